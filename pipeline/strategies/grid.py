"""Grid search over canonical architectures."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, cast

from pipeline.nni_types import ExecutableModelSpace, GridSearch, Strategy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from pipeline.config.strategy import GridOptions
    from pipeline.spaces.base import SearchSpace
    from pipeline.strategies.problem import Problem


_LARGEST_SHUFFLE = 1_000_000


class CanonicalGrid(GridSearch):  # type: ignore[misc]  # NNI has no types
    """NNI's grid search, but over the space's architectures, and shuffled as a whole.

    NNI's own grid runs through every combination of labels, of which most differ only in choices that the depth
    leaves out, and shuffles them a hundred at a time, which in a large space varies only the last labels.
    """

    def __init__(self, space: SearchSpace, *, shuffle: bool, seed: int) -> None:
        super().__init__(shuffle=False, seed=seed, dedup=False)
        self._space, self._shuffled, self._generator = space, shuffle, Random(seed)  # noqa: S311 - no secret

    def _grid_generator(self, model_space: ExecutableModelSpace) -> Iterator[ExecutableModelSpace]:
        order = map(self._space.at, self._ranks()) if self._shuffled else self._space.architectures()
        for architecture in order:
            yield model_space.freeze(self._space.complete(architecture))

    def _ranks(self) -> Iterator[int]:
        """All ranks in a random order."""
        size = self._space.size()
        if size <= _LARGEST_SHUFFLE:
            yield from self._generator.sample(range(size), size)
            return
        seen: set[int] = set()  # too many to hold: drawn without replacement, and no search gets far enough to repeat
        while len(seen) < size:
            rank = self._generator.randrange(size)
            if rank not in seen:
                seen.add(rank)
                yield rank


def grid(options: BaseModel, problem: Problem) -> Strategy:
    """Every architecture once."""
    return CanonicalGrid(problem.space, shuffle=cast("GridOptions", options).shuffle, seed=problem.seed)
