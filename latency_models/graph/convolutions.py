"""Properties of a convolution, read from its node."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from onnx import helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx


def group_of(node: onnx.NodeProto) -> int:
    """The number of groups of a convolution."""
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)


def scales_channels(node: onnx.NodeProto, filters: Sequence[int]) -> bool:
    """Whether a convolution only scales, and perhaps shifts, each channel.

    Args:
        node: a convolution.
        filters: shape of its weight, (M, C/group, k1, …); empty where it isn't known.
    """
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    in_place = all(value == 1 for value in attributes.get("strides", ())) and not any(attributes.get("pads", ()))
    return in_place and len(filters) > 1 and math.prod(filters[1:]) == 1 and group_of(node) == filters[0]
