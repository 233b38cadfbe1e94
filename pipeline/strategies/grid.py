"""`grid`: every architecture once."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from pipeline.nni_types import ExecutableModelSpace, GridSearch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config.strategy import GridOptions
    from pipeline.spaces.base import Architecture
    from pipeline.strategies.problem import Problem


_LARGEST_SHUFFLE = 1_000_000


class Grid(GridSearch):  # type: ignore[misc]  # NNI has no types
    """NNI's grid search over canonical architectures, shuffled as a whole.

    NNI's own grid enumerates all combinations of labels; most of them differ only in inactive choices. It shuffles a
    hundred at a time, which in a large space varies only the last labels.
    """

    def __init__(self, options: GridOptions, problem: Problem) -> None:
        super().__init__(shuffle=False, seed=problem.seed, dedup=False)
        self._space, self._shuffled = problem.space, options.shuffle
        self._generator = Random(problem.seed)  # noqa: S311 - no secret

    def _grid_generator(self, model_space: ExecutableModelSpace) -> Iterator[ExecutableModelSpace]:
        for architecture in self.architectures():
            yield model_space.freeze(self._space.complete(architecture))

    def architectures(self) -> Iterator[Architecture]:
        """Yield the architectures in the order in which they are tried."""
        return map(self._space.at, self._ranks()) if self._shuffled else self._space.architectures()

    def _ranks(self) -> Iterator[int]:
        """Yield all ranks of the space in random order."""
        size = self._space.size()
        if size <= _LARGEST_SHUFFLE:
            yield from self._generator.sample(range(size), size)
            return
        seen: set[int] = set()  # too many to list; no search gets far enough to draw many twice
        while len(seen) < size:
            rank = self._generator.randrange(size)
            if rank not in seen:
                seen.add(rank)
                yield rank
