"""From a config's section `space` to the search space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.registry import make
from pipeline.tables import SPACES

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet
    from pipeline.spaces.base import SearchSpace


def make_space(config: RunConfig, data: DataSet) -> SearchSpace:
    """Make the search space that a config names, for its data."""
    space: SearchSpace = make("space", config.space.name, SPACES, config.space, data.input_shape, len(data.classes))
    return space
