"""Made by its name in the config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pipeline.registry import make

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pipeline.nni_types import Strategy
    from pipeline.strategies.problem import Problem
from pipeline.tables import STRATEGIES


def strategy_of(section: BaseModel, problem: Problem) -> Strategy:
    """The strategy of a config's section, of the table's or a third party's.

    Raises:
        HwnasError: a third party's can't be made.
    """
    return make("strategy", cast("Any", section).name, STRATEGIES, section, problem)
