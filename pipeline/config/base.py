"""What all models of config sections share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Cost = Literal["latency_ms", "peak_memory_mb", "size_mb", "params", "macs", "energy_mj"]
"""A metric that is the better the smaller."""


class Strict(BaseModel):
    """No unknown keys, no silent conversions, no changes after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ThirdParty(BaseModel):
    """A section whose name is a dotted path: its options are its owner's to check."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
