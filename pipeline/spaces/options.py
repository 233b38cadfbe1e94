"""The config's section `space`, for each name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from pipeline.strict import Strict


class ConvNetOptions(Strict):
    """Stages of convolutional blocks; see `pipeline.spaces.convnet`."""

    name: Literal["convnet"]
    stages: Annotated[int, Field(ge=1, le=6)] | None = None
    width: Annotated[int, Field(ge=8, le=256)] = 16
    width_multipliers: list[Annotated[float, Field(gt=0, le=16, allow_inf_nan=False)]] = [0.5, 1.0, 1.5, 2.0]
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
        if not values:
            raise PydanticCustomError("choices", "needs at least one choice")
        if len(set(values)) != len(values):
            raise PydanticCustomError("choices", "lists a choice twice")
        return values
