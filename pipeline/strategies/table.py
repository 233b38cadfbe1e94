"""The table of strategies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pipeline.registry import Entry, make

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pipeline.nni_types import Strategy
    from pipeline.strategies.problem import Problem

STRATEGIES = {
    "guided": Entry(
        "pipeline.strategies.guided:guided", "expected gain in hypervolume: models accuracy, knows the costs"
    ),
    "random": Entry("pipeline.strategies.nni_own:random", "NNI's uniform random search"),
    "evolution": Entry("pipeline.strategies.nni_own:evolution", "NNI's regularized evolution on the reward"),
    "grid": Entry("pipeline.strategies.grid:grid", "every architecture once, shuffled"),
    "local_search": Entry("pipeline.strategies.local_search:local_search", "neighbours of the best, or of the front"),
    "nsga2": Entry("pipeline.strategies.nsga2:nsga2", "NSGA-II: a population along the front, under the limits"),
    "tpe": Entry("pipeline.strategies.tpe:tpe", "NNI's Tree-structured Parzen Estimator on the reward"),
    "bayesian": Entry("pipeline.strategies.bayesian:bayesian", "a Gaussian process of the reward"),
    "controller": Entry("pipeline.strategies.controller:controller", "an LSTM policy, reinforced by the reward"),
}


def strategy_of(section: BaseModel, problem: Problem) -> Strategy:
    """The strategy of a config's section, of the table's or a third party's.

    Raises:
        HwnasError: a third party's can't be made.
    """
    return make("strategy", cast("Any", section).name, STRATEGIES, section, problem)
