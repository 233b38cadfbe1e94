"""Reference models: small convolutional nets of graded sizes that a model is timed against.

They are made on the spot from seeded weights, so that every machine times the same ones. They are small in memory;
one more net, the memory probe, streams its weights from the outer caches, which other processes use too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_OPSET = 17
_IR_VERSION = 8
_CLASSES = 10


@dataclass(frozen=True)
class ReferenceSpec:
    """A net of `blocks` blocks of [1×1, depthwise 3×3, 1×1, 3×3], `channels` wide, on `side`×`side` images.

    `about_ms` only orders the references and finds a first candidate; it is never reported.
    """

    name: str
    channels: int
    side: int
    blocks: int
    about_ms: float


REFERENCES: tuple[ReferenceSpec, ...] = (
    ReferenceSpec("ref-1", channels=4, side=4, blocks=0, about_ms=0.007),
    ReferenceSpec("ref-2", channels=16, side=8, blocks=3, about_ms=0.028),
    ReferenceSpec("ref-3", channels=32, side=12, blocks=3, about_ms=0.11),
    ReferenceSpec("ref-4", channels=32, side=16, blocks=8, about_ms=0.45),
    ReferenceSpec("ref-5", channels=48, side=28, blocks=5, about_ms=1.8),
    ReferenceSpec("ref-6", channels=64, side=40, blocks=6, about_ms=7.5),
    ReferenceSpec("ref-7", channels=96, side=56, blocks=5, about_ms=28.0),
)

ANCHOR = "ref-3"
"""The reference that is timed first in an environment; the others are timed beside it."""

MEMORY_PROBE = ReferenceSpec("memory", channels=256, side=4, blocks=4, about_ms=0.9)
PROBE_WORKING_SET_BYTES = 11_900_000


@cache
def reference_model(name: str) -> bytes:
    """The serialised reference model of that name; float32, opset 17, input (1, 3, side, side)."""
    return build_reference(spec_of(name))


def spec_of(name: str) -> ReferenceSpec:
    """The specification of the reference of that name."""
    return next(each for each in (*REFERENCES, MEMORY_PROBE) if each.name == name)


def build_reference(spec: ReferenceSpec) -> bytes:
    """The serialised model of a specification; its weights are drawn with its name as the seed."""
    builder = _Builder(np.random.default_rng([ord(letter) for letter in spec.name]))
    value = builder.conv("image", 3, spec.channels, kernel=3)
    for _ in range(spec.blocks):
        value = builder.conv(value, spec.channels, spec.channels, kernel=1)
        value = builder.conv(value, spec.channels, spec.channels, kernel=3, groups=spec.channels)
        value = builder.conv(value, spec.channels, spec.channels, kernel=1)
        value = builder.conv(value, spec.channels, spec.channels, kernel=3)
    builder.head(value, spec.channels)
    return bytes(builder.model(spec).SerializeToString())


class _Builder:
    """The nodes and weights of a graph under construction."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def conv(self, value: str, inputs: int, outputs: int, *, kernel: int, groups: int = 1) -> str:
        """Add a convolution and a ReLU; return the name of the result."""
        at = len(self._nodes)
        shape = (outputs, inputs // groups, kernel, kernel)
        weights = [self._weight(f"w{at}", shape), self._weight(f"b{at}", (outputs,))]
        node = helper.make_node("Conv", [value, *weights], [f"c{at}"], group=groups, pads=[kernel // 2] * 4)
        self._nodes.append(node)
        self._nodes.append(helper.make_node("Relu", [f"c{at}"], [f"r{at}"]))
        return f"r{at}"

    def head(self, value: str, channels: int) -> None:
        """Add the mean over the image and a linear layer; the result is "scores"."""
        self._nodes.append(helper.make_node("GlobalAveragePool", [value], ["mean"]))
        self._nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
        weights = [self._weight("w", (_CLASSES, channels)), self._weight("b", (_CLASSES,))]
        self._nodes.append(helper.make_node("Gemm", ["flat", *weights], ["scores"], transB=1))

    def model(self, spec: ReferenceSpec) -> onnx.ModelProto:
        """The finished model."""
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, spec.side, spec.side])
        scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, _CLASSES])
        graph = helper.make_graph(self._nodes, spec.name, [image], [scores], self._weights)
        opset = helper.make_operatorsetid("", _OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)

    def _weight(self, name: str, shape: tuple[int, ...]) -> str:
        # Variance by fan-in keeps values in range: denormal numbers would be slow.
        scale = np.sqrt(2.0 / max(int(np.prod(shape[1:])), 1))
        array = (self._rng.standard_normal(shape) * scale).astype(np.float32)
        self._weights.append(numpy_helper.from_array(array, name))
        return name
