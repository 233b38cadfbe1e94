"""Properties of a convolution, read from its node."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

SCALE_NOTE = "hwnas.scale"
"""Key in a node's `metadata_props` that `export` writes for such a convolution."""


def group_of(node: onnx.NodeProto) -> int:
    """The number of groups of a convolution."""
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)


def scales_an_activation(node: onnx.NodeProto) -> bool:
    """Whether hwnas wrote this convolution in place of a product with one number a channel, for an activation."""
    return any(note.key == SCALE_NOTE for note in node.metadata_props)
