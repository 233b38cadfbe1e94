"""The space `table`: positions with the same alternatives each, for tables keyed by a string of choices."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NoReturn, cast

from pipeline.nni_types import ModelSpace, choice
from pipeline.spaces.base import ArchitectureError, Choice, SearchSpace, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from pipeline.config.space import TableSpaceOptions


class TabularSpace(SearchSpace):
    """The space `table`. Options: `pipeline.config.space.TableSpaceOptions`."""

    buildable: ClassVar[bool] = False
    quantities: ClassVar[bool] = False

    def __init__(self, options: BaseModel, input_shape: tuple[int, int, int], classes: int) -> None:
        section = cast("TableSpaceOptions", options)
        digits = len(str(section.choices - 1))
        alternatives = tuple(section.alternatives)
        self.choices = tuple(Choice(f"choice_{n:0{digits}}", alternatives) for n in range(section.choices))
        self._separator = section.separator

    def model_space(self) -> ModelSpace:
        """The space as NNI sees it: labels and values without layers."""
        return _Labels(self.choices)

    def build(self, architecture: Mapping[str, Value]) -> NoReturn:
        """Raise an error: the space has names only.

        Raises:
            ArchitectureError: always.
        """
        raise ArchitectureError("the space 'table' has names of networks only, which can't be built")

    def key(self, architecture: Mapping[str, Value]) -> str:
        """The key of an architecture: its choices one after the other."""
        return self._separator.join(str(architecture[each.label]) for each in self.choices)


class _Labels(ModelSpace):  # type: ignore[misc]  # NNI has no types
    def __init__(self, choices: tuple[Choice, ...]) -> None:
        super().__init__()
        for each in choices:
            self.add_mutable(choice(each.label, list(each.values)))
