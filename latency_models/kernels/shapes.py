"""What ONNX Runtime's own kernels say of their sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BLOCKED = "com.microsoft.nchwc"
"""The domain of the kernels that run on blocks of channels."""


def window_settings(count: int, attributes: Mapping[str, Any]) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Strides, dilations and pads of a convolution or a pool of `count` spatial dimensions."""
    ones = [1] * count
    pads = attributes.get("pads") or [0] * (2 * count)
    return attributes.get("strides") or ones, attributes.get("dilations") or ones, pads
