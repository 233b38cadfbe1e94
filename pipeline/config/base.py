"""Base models and types of config sections."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Cost = Literal["latency_ms", "peak_memory_mb", "size_mb", "params", "macs", "energy_mj"]
"""Name of a cost: a metric that is better when it is smaller."""


def is_empty(value: object) -> bool:
    """Leave a default out when serialising, so that digests of configs from before this key stay valid."""
    return not value


class Strict(BaseModel):
    """A model with no unknown keys, no silent conversions, no infinite numbers and no changes after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Section(Strict):
    """A config section whose `name` chooses what it is about; the name's row in `pipeline.tables` has its model."""

    name: str

    def resolved(self, *, trials: int, pick: str) -> Self:
        """The section with what it takes from elsewhere written out: a run keeps that for good.

        Args:
            trials: the budget's.
            pick: which trial is to win.
        """
        return self


class ThirdParty(Section):
    """A section whose name is a third party's, who checks the options alone."""

    model_config = ConfigDict(extra="allow", strict=False)
