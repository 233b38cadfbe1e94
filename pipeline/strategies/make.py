"""From a config's section `strategy` to the strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.registry import make
from pipeline.tables import STRATEGIES

if TYPE_CHECKING:
    from pipeline.config.base import Section
    from pipeline.nni_types import Strategy
    from pipeline.strategies.problem import Problem


def strategy_of(section: Section, problem: Problem) -> Strategy:
    """The strategy of a config's section, of the table's or a third party's.

    Raises:
        HwnasError: a third party's can't be made.
    """
    return make("strategy", section.name, STRATEGIES, section, problem)
