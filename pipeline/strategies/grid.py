"""Grid search over canonical architectures."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pipeline.nni_types import ExecutableModelSpace, GridSearch, Strategy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from pipeline.config import GridOptions
    from pipeline.spaces.base import SearchSpace


class CanonicalGrid(GridSearch):  # type: ignore[misc]  # NNI has no types
    """NNI's grid search, but over the space's architectures.

    NNI's own grid runs through every combination of labels, of which most differ only in choices that the depth
    leaves out.
    """

    def __init__(self, space: SearchSpace, *, shuffle: bool, seed: int) -> None:
        super().__init__(shuffle=shuffle, seed=seed, dedup=False)
        self._space = space

    def _grid_generator(self, model_space: ExecutableModelSpace) -> Iterator[ExecutableModelSpace]:
        for architecture in self._space.architectures():
            yield model_space.freeze(self._space.complete(architecture))


def grid(options: BaseModel, space: SearchSpace, seed: int) -> Strategy:
    """Every architecture once."""
    return CanonicalGrid(space, shuffle=cast("GridOptions", options).shuffle, seed=seed)
