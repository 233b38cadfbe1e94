"""The schema of a stored operator model: it is checked by this when it is read, whoever wrote it."""

from __future__ import annotations

from typing import Annotated, LiteralString

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

# Beyond any size or time, and small enough that sums of squares stay finite.
_LARGEST = 1e18
_MOST_OBSERVATIONS = 20_000

Positive = Annotated[float, Field(gt=0, le=_LARGEST)]
Amount = Annotated[float, Field(ge=0, le=_LARGEST)]
Share = Annotated[float, Field(gt=0, le=1e6)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class StoredHyper(_Part):
    """Hyperparameters, as in `Hyper`."""

    kind: Share
    shape: Share
    own: Share
    reach: Share
    misfit: Share


class StoredObservation(_Part):
    """A timed network: places of its operators in the list of all, its time in ms and that time's relative noise."""

    operators: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    ms: Positive
    noise: Annotated[float, Field(ge=0, le=1e6)]
    whole: bool


StoredOperator = Annotated[tuple[str, list[Positive], list[Amount]], Field(strict=False)]
"""An operator's kind, sizes and amounts of work; JSON has a list for the tuple."""


class StoredOperatorModel(_Part):
    """The document of `OperatorModel.as_dict`."""

    hyper: StoredHyper
    operators: list[StoredOperator]
    observations: Annotated[list[StoredObservation], Field(min_length=2, max_length=_MOST_OBSERVATIONS)]

    @model_validator(mode="after")
    def _fits_together(self) -> StoredOperatorModel:
        widths: dict[str, tuple[int, int]] = {}
        for at, (kind, sizes, work) in enumerate(self.operators):
            width = (len(sizes), len(work))
            if widths.setdefault(kind, width) != width:
                raise _damage("operator {at} has other numbers of sizes and amounts than the first of its kind", at)
        for at, observation in enumerate(self.observations):
            if max(observation.operators) >= len(self.operators):
                raise _damage("observation {at} has an operator that isn't listed", at)
        return self


def _damage(what: LiteralString, at: int) -> PydanticCustomError:
    return PydanticCustomError("damaged", what, {"at": at})
