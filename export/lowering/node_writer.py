"""Writing new nodes into an existing graph: unique names, constants stored once, scales of each channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    Array = npt.NDArray[Any]


SCALE_NOTE = "hwnas.scale"
"""Key in a node's `metadata_props` that marks a convolution in place of an elementwise product; it costs no MACs."""


class NodeWriter:
    """Collects the new nodes and constants of one activation.

    Args:
        names: all names in the graph; new ones are added.
        prefix: of the new names.
        channels: number of channels of the activation's input; None where it isn't known.
        axis: of the channels, counted from the right, for constants of each channel.
        origin: the node whose notes (`metadata_props`) the new nodes inherit.
    """

    def __init__(
        self, names: set[str], prefix: str, *, channels: int | None, axis: int = 2, origin: onnx.NodeProto | None = None
    ) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self._names, self._prefix, self._channels, self._axis, self._origin = names, prefix, channels, axis, origin

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Append a node and return its output's name."""
        name = self._unique(op_type)
        made = helper.make_node(op_type, list(inputs), [f"{name}.out"], name=name, **attributes)
        if self._origin is not None:
            made.metadata_props.extend(self._origin.metadata_props)
        self.nodes.append(made)
        return f"{name}.out"

    def number(self, value: float) -> str:
        """Store a float32 constant of rank 0 and return its name."""
        return self._stored(np.asarray(value, np.float32), "number")

    def per_channel(self, values: Array) -> str:
        """Store (channels,) constants, shaped to broadcast along the channels, and return their name."""
        if values.size == 1:
            return self.number(float(values.reshape(())))
        return self._stored(values.astype(np.float32).reshape(-1, *([1] * self._axis)), "channels")

    def scaled(self, x: str, values: Array) -> str:
        """Append x times (channels,) or (1,) numbers and return the output's name."""
        return self.node("Mul", x, self.per_channel(np.atleast_1d(values)))

    def affine(self, x: str, scale: Array | float, shift: Array | float | None = None) -> str:
        """Append scale·x + shift of each channel, as a depthwise 1×1 convolution, and return the output's name.

        Args:
            x: a map with a known number of channels.
            scale: (channels,), (1,) or a number.
            shift: likewise.
        """
        if self._channels is None:
            raise ValueError("an affine of each channel needs their number")
        inputs = [x, self._stored(self._spread(scale).reshape(-1, 1, 1, 1), "scale")]
        if shift is not None:
            inputs.append(self._stored(self._spread(shift), "shift"))
        output = self.node("Conv", *inputs, group=self._channels, kernel_shape=[1, 1])
        self.nodes[-1].metadata_props.add(key=SCALE_NOTE, value="elementwise")
        return output

    def _spread(self, values: Array | float) -> Array:
        array = np.asarray(values, np.float32).reshape(-1)
        return np.array(np.broadcast_to(array, (self._channels or 1,)))

    def _stored(self, array: Array, purpose: str) -> str:
        for name, stored in self.constants.items():
            if stored.shape == array.shape and stored.tobytes() == array.tobytes():
                return name
        name = self._unique(purpose)
        self.constants[name] = array
        return name

    def _unique(self, purpose: str) -> str:
        base = name = f"{self._prefix}/{purpose}" if self._prefix else purpose
        count = 0
        while name in self._names or f"{name}.out" in self._names:
            count += 1
            name = f"{base}_{count}"
        self._names.update((name, f"{name}.out"))
        return name


def initializers(constants: dict[str, Array]) -> Iterable[onnx.TensorProto]:
    """Turn constants into a graph's initializers."""
    return (numpy_helper.from_array(array, name) for name, array in constants.items())
