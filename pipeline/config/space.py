"""The config's section `space`, for each name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.base import Count, Section

WIDTH_STEP = 8
DEVICE_STEP = "device"
"""A step that is found by timing the device, before the space is made."""
WIDEST_STEP = 256


def _is_usual(step: object) -> bool:
    return step == WIDTH_STEP


class ConvNetOptions(Section):
    """Options of `convnet`; see `pipeline.spaces.convnet`."""

    name: Literal["convnet"]
    stages: Annotated[int, Field(ge=1, le=6)] | None = None
    width: Annotated[int, Field(ge=8, le=256)] = 16
    width_multipliers: list[Annotated[float, Field(gt=0, le=16, allow_inf_nan=False)]] = [0.5, 1.0, 1.5, 2.0]
    width_step: Annotated[int | str, Field(exclude_if=_is_usual)] = WIDTH_STEP
    depths: list[Annotated[int, Field(ge=1, le=8)]] = [1, 2, 3]
    blocks: list[Literal["residual", "fused", "inverted"]] = ["residual", "fused", "inverted"]
    kernels: list[Literal[3, 5, 7]] = [3, 5]
    expansions: list[Annotated[int, Field(ge=1, le=8)]] = [2, 4]
    squeeze_excitation: list[bool] = [False, True]
    activations: list[str] = ["relu", "hardswish", "silu", "leaky_relu"]
    activation_scope: Literal["network", "stage", "block"] = "stage"

    @field_validator(
        "width_multipliers", "depths", "blocks", "kernels", "expansions", "squeeze_excitation", "activations"
    )
    @classmethod
    def _choices(cls, values: list[Any]) -> list[Any]:
        return _distinct(values)

    @field_validator("width_step", mode="before")
    @classmethod
    def _step(cls, value: Any) -> Any:
        number = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= WIDEST_STEP
        if not number and value != DEVICE_STEP:
            raise PydanticCustomError("step", f"needs a number of channels from 1 to {WIDEST_STEP}, or '{DEVICE_STEP}'")
        return value


class NasBench201Options(Section):
    """Options of `nasbench201`; see `pipeline.spaces.nasbench201`."""

    name: Literal["nasbench201"]
    width: Annotated[int, Field(ge=4, le=256)] = 16
    cells: Annotated[int, Field(ge=1, le=20)] = 1
    activations: list[str] = ["relu"]

    @field_validator("activations")
    @classmethod
    def _choices(cls, values: list[str]) -> list[str]:
        return _distinct(values)


class TableSpaceOptions(Section):
    """Options of `table`; see `pipeline.spaces.tabular`."""

    name: Literal["table"]
    choices: Count
    alternatives: list[int | str]
    separator: str = ""

    @field_validator("alternatives")
    @classmethod
    def _alternatives(cls, values: list[int | str]) -> list[int | str]:
        if len({str(value) for value in values}) != len(values):
            raise PydanticCustomError("choices", "lists an alternative twice")
        if len(values) < 2:
            raise PydanticCustomError("choices", "needs at least two alternatives")
        return values

    @model_validator(mode="after")
    def _unambiguous(self) -> TableSpaceOptions:
        texts = [str(value) for value in self.alternatives]
        if not self.separator and len({len(text) for text in texts}) > 1:
            raise PydanticCustomError(
                "separator", "alternatives of different lengths need a space.separator, or keys can't be told apart"
            )
        if self.separator and any(self.separator in text for text in texts):
            raise PydanticCustomError("separator", "space.separator occurs in an alternative")
        return self


def _distinct(values: list[Any]) -> list[Any]:
    if not values:
        raise PydanticCustomError("choices", "needs at least one choice")
    if len(set(values)) != len(values):
        raise PydanticCustomError("choices", "lists a choice twice")
    return values
