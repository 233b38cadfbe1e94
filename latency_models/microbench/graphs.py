"""A builder of small ONNX graphs with random weights, node by node."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_OPSET = 20
_IR_VERSION = 10
_SCALE = 0.05


_RANDOM = 1 << 16


@dataclass(frozen=True)
class Tensor:
    """A value of the graph, its shape and the type of its elements."""

    name: str
    dims: tuple[int, ...]
    elem_type: int = TensorProto.FLOAT


@dataclass
class GraphBuilder:
    """Collects the nodes of a graph; every method adds some and returns their result.

    `open_weights` lists the weights among the inputs, as old files do. ONNX Runtime neither folds such weights nor
    changes their layout, because a caller may replace them. `numbers` is the type of inputs and weights. `apart` keeps
    the biases of `linear` in nodes of their own, as they stay in files whose batch is open.
    """

    rng: np.random.Generator
    open_weights: bool = False
    numbers: type[np.floating[Any]] = np.float32
    apart: bool = False
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    stored: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)

    def image(self, *dims: int) -> Tensor:
        """An input of floats."""
        return self.input(helper.np_dtype_to_tensor_dtype(np.dtype(self.numbers)), *dims)

    def input(self, elem_type: int, *dims: int) -> Tensor:
        """An input of any type."""
        name = f"x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, elem_type, dims))
        return Tensor(name, dims, elem_type)

    def constant(self, array: np.ndarray) -> str:
        """Store an array; returns its name."""
        name = f"w{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(array, name))
        return name

    def weights(self, *dims: int, scale: float = 1.0) -> str:
        """Store random floats; returns their name. Many of them repeat, which no kernel notices."""
        count = math.prod(dims)
        drawn = self.rng.standard_normal(min(count, _RANDOM), dtype=np.float32) * np.float32(scale)
        return self.constant(np.resize(drawn, count).reshape(dims).astype(self.numbers))

    def add(
        self,
        op_type: str,
        inputs: list[Tensor | str],
        dims: tuple[int, ...],
        *,
        elem_type: int | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> Tensor:
        """Add a node with one result, by default of the first input's type."""
        return self.add_several(op_type, inputs, [dims], elem_type=elem_type, domain=domain, **attributes)[0]

    def add_several(
        self,
        op_type: str,
        inputs: list[Tensor | str],
        results: list[tuple[int, ...]],
        *,
        elem_type: int | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> list[Tensor]:
        """Add a node with a result for each of the shapes."""
        name = f"v{len(self.nodes)}"
        names = [each.name if isinstance(each, Tensor) else each for each in inputs]
        outputs = [name, *(f"{name}.{at}" for at in range(1, len(results)))]
        self.nodes.append(helper.make_node(op_type, names, outputs, name=name, domain=domain, **attributes))
        if elem_type is None:
            elem_type = next((each.elem_type for each in inputs if isinstance(each, Tensor)), TensorProto.FLOAT)
        return [Tensor(each, dims, elem_type) for each, dims in zip(outputs, results, strict=True)]

    def conv(
        self, x: Tensor, after: int, kernel: int | tuple[int, int] = 1, stride: int = 1, groups: int = 1
    ) -> Tensor:
        """A padded convolution with a bias; only its stride changes the size of the map."""
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        before = x.dims[1] // groups
        weight = self.weights(after, before, height, width, scale=math.sqrt(2.0 / (before * height * width)))
        return self._conv(x, [weight, self.weights(after, scale=0.1)], (after, height, width), stride, groups)

    def _conv(
        self, x: Tensor, stored: list[Tensor | str], weight: tuple[int, int, int], stride: int, groups: int
    ) -> Tensor:
        after, height, width = weight
        top, left = (height - 1) // 2, (width - 1) // 2
        return self.add(
            "Conv",
            [x, *stored],
            (x.dims[0], after, *((size - 1) // stride + 1 for size in x.dims[2:])),
            kernel_shape=[height, width],
            strides=[stride, stride],
            pads=[top, left, height - 1 - top, width - 1 - left],
            group=groups,
        )

    def conv1d(self, x: Tensor, after: int, kernel: int, stride: int = 1, groups: int = 1) -> Tensor:
        """A padded convolution along one axis, with a bias."""
        before = x.dims[1] // groups
        weight = self.weights(after, before, kernel, scale=math.sqrt(2.0 / (before * kernel)))
        left = (kernel - 1) // 2
        dims = (x.dims[0], after, (x.dims[2] - 1) // stride + 1)
        return self.add(
            "Conv",
            [x, weight, self.weights(after, scale=0.1)],
            dims,
            kernel_shape=[kernel],
            strides=[stride],
            pads=[left, kernel - 1 - left],
            group=groups,
        )

    def activation(self, x: Tensor, name: str) -> Tensor:
        """One of ONNX's unary operators, or `silu`, `relu6`, `prelu`; "" is none."""
        if not name:
            return x
        if name == "silu":
            return self.add("Mul", [x, self.add("Sigmoid", [x], x.dims)], x.dims)
        if name == "gelu-tanh":
            return self.add("Gelu", [x], x.dims, approximate="tanh")
        if name == "relu6":
            low, high = (self.constant(np.array(bound, self.numbers)) for bound in (0.0, 6.0))
            return self.add("Clip", [x, low, high], x.dims)
        if name == "prelu":
            slopes = self.constant(np.full((x.dims[1], *[1] * (len(x.dims) - 2)), 0.25, np.float32))
            return self.add("PRelu", [x, slopes], x.dims)
        return self.add(name, [x], x.dims)

    def binary(self, op_type: str, x: Tensor, other: Tensor | str) -> Tensor:
        """An operator of two operands, the second of which may be repeated along dimensions of the first."""
        return self.add(op_type, [x, other], x.dims)

    def pool(self, x: Tensor, kind: str, kernel: int, stride: int) -> Tensor:
        """A MaxPool or AveragePool."""
        before = (kernel - 1) // 2
        rows, columns = ((size + kernel - 1 - kernel) // stride + 1 for size in x.dims[2:])
        return self.add(
            kind,
            [x],
            (*x.dims[:2], rows, columns),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, kernel - 1 - before, kernel - 1 - before],
        )

    def global_pool(self, x: Tensor, kind: str = "GlobalAveragePool") -> Tensor:
        """The mean (or maximum) of each channel."""
        return self.add(kind, [x], (*x.dims[:2], 1, 1))

    def excitation(self, x: Tensor, inner: int, gate: str = "HardSigmoid") -> Tensor:
        """Squeeze and excitation."""
        squeezed = self.activation(self.conv(self.global_pool(x), inner), "Relu")
        return self.binary("Mul", x, self.activation(self.conv(squeezed, x.dims[1]), gate))

    def concat(self, parts: list[Tensor], axis: int = 1) -> Tensor:
        """Concatenate along an axis."""
        dims = list(parts[0].dims)
        dims[axis] = sum(part.dims[axis] for part in parts)
        return self.add("Concat", list(parts), tuple(dims), axis=axis)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Two halves of the channels."""
        half = (x.dims[0], x.dims[1] // 2, *x.dims[2:])
        first, second = self.add_several("Split", [x], [half, half], axis=1, num_outputs=2)
        return first, second

    def reshape(self, x: Tensor, *dims: int) -> Tensor:
        """The same elements in another shape."""
        return self.add("Reshape", [x, self.constant(np.array(dims, np.int64))], dims)

    def transpose(self, x: Tensor, *order: int) -> Tensor:
        """Permute the dimensions."""
        return self.add("Transpose", [x], tuple(x.dims[axis] for axis in order), perm=list(order))

    def shuffle(self, x: Tensor, groups: int) -> Tensor:
        """Shuffle the channels of groups."""
        batch, channels, *spatial = x.dims
        apart = self.reshape(x, batch, groups, channels // groups, *spatial)
        return self.reshape(self.transpose(apart, 0, 2, 1, 3, 4), batch, channels, *spatial)

    def batch_norm(self, x: Tensor) -> Tensor:
        """A batch normalisation."""
        channels = x.dims[1]
        settings = [self.constant(np.full(channels, value, np.float32)) for value in (0.9, 0.1, 0.05, 1.1)]
        return self.add("BatchNormalization", [x, *settings], x.dims)

    def gemm(self, x: Tensor, after: int) -> Tensor:
        """A fully connected layer."""
        weight = self.weights(after, x.dims[1], scale=math.sqrt(2.0 / x.dims[1]))
        return self.add("Gemm", [x, weight, self.weights(after, scale=0.1)], (x.dims[0], after), transB=1)

    def matmul(self, x: Tensor, other: Tensor | int) -> Tensor:
        """The product with another value, or with stored weights of `other` columns."""
        if isinstance(other, int):
            weight = self.weights(x.dims[-1], other, scale=math.sqrt(1.0 / x.dims[-1]))
            return self.add("MatMul", [x, weight], (*x.dims[:-1], other))
        return self.add("MatMul", [x, other], (*x.dims[:-1], other.dims[-1]))

    def transposed_matmul(self, x: Tensor, other: Tensor) -> Tensor:
        """The product with the last two dimensions of another value swapped."""
        order = [*range(len(other.dims) - 2), len(other.dims) - 1, len(other.dims) - 2]
        return self.matmul(x, self.transpose(other, *order))

    def number(self, value: float) -> str:
        """Store one number of the weights' type."""
        return self.constant(np.array(value, self.numbers))

    def norm(self, x: Tensor) -> Tensor:
        """A normalisation of each row, with its own scale and shift."""
        width = x.dims[-1]
        return self.add(
            "LayerNormalization", [x, self.weights(width, scale=0.1), self.weights(width, scale=0.1)], x.dims, axis=-1
        )

    def linear(self, x: Tensor, after: int) -> Tensor:
        """A fully connected layer of each row."""
        ones = (1,) * (len(x.dims) - 1) if self.apart else ()
        return self.binary("Add", self.matmul(x, after), self.weights(*ones, after, scale=0.1))

    def gated_linear(self, x: Tensor, after: int, act: str) -> Tensor:
        """A fully connected layer of each row and an activation, which may take the bias with it."""
        fused = {"Gelu": "BiasGelu", "gelu-tanh": "FastGelu"}
        if not self.apart or act not in fused:
            return self.activation(self.linear(x, after), act)
        y = self.matmul(x, after)
        return self.add(fused[act], [y, self.weights(after, scale=0.1)], y.dims, domain="com.microsoft")

    def cast(self, x: Tensor, elem_type: int) -> Tensor:
        """The same numbers in another type."""
        return self.add("Cast", [x], x.dims, elem_type=elem_type, to=elem_type)

    def slice(self, x: Tensor, axis: int, start: int, end: int) -> Tensor:
        """Part of a value along one axis."""
        dims = list(x.dims)
        dims[axis] = end - start
        bounds = [self.constant(np.array([value], np.int64)) for value in (start, end, axis)]
        return self.add("Slice", [x, *bounds], tuple(dims))

    def reduce(self, op_type: str, x: Tensor, axes: list[int], *, keep: bool = True) -> Tensor:
        """A mean, sum, … along some dimensions."""
        axes = [axis % len(x.dims) for axis in axes]
        dims = tuple(1 if at in axes else size for at, size in enumerate(x.dims) if keep or at not in axes)
        return self.add(op_type, [x, self.constant(np.array(axes, np.int64))], dims, keepdims=int(keep))

    def classifier(self, x: Tensor, classes: int) -> Tensor:
        """Mean over the positions and a fully connected layer."""
        return self.gemm(self.reshape(self.global_pool(x), x.dims[0], x.dims[1]), classes)

    def quantised(self, x: Tensor, *, signed: bool = True) -> Tensor:
        """Quantise to unsigned 8 bits and dequantise; ONNX Runtime fuses such pairs into its integer kernels.

        A value that is never negative (not `signed`) has its zero at 0; ONNX Runtime drops a Relu before it.
        """
        factor = self.constant(np.array(_SCALE, np.float32))
        zero = self.constant(np.array(128 if signed else 0, np.uint8))
        integers = self.add("QuantizeLinear", [x, factor, zero], x.dims, elem_type=TensorProto.UINT8)
        return self.add("DequantizeLinear", [integers, factor, zero], x.dims, elem_type=TensorProto.FLOAT)

    def quantised_conv(self, x: Tensor, after: int, kernel: int = 1, groups: int = 1) -> Tensor:
        """A convolution of a `quantised` value, with signed 8-bit weights and a scale for each channel."""
        before = x.dims[1] // groups
        integers = self.rng.integers(-127, 128, (after, before, kernel, kernel)).astype(np.int8)
        size = np.float32(math.sqrt(2.0 / (before * kernel * kernel)) / 73.0)
        factors, zeros = self.constant(np.full(after, size)), self.constant(np.zeros(after, np.int8))
        weight = self.add("DequantizeLinear", [self.constant(integers), factors, zeros], integers.shape, axis=0)
        biases = self.rng.integers(-50, 50, after).astype(np.int32)
        bias_zeros = self.constant(np.zeros(after, np.int32))
        bias_scale = self.constant(np.full(after, size * np.float32(_SCALE)))
        bias = self.add("DequantizeLinear", [self.constant(biases), bias_scale, bias_zeros], (after,), axis=0)
        return self._conv(x, [weight, bias], (after, kernel, kernel), 1, groups)

    def quantised_weights(self, before: int, after: int) -> Tensor:
        """Signed 8-bit weights (before, after) with a scale for all of them, dequantised."""
        integers = self.rng.integers(-127, 128, (before, after)).astype(np.int8)
        factor = self.constant(np.array(math.sqrt(1.0 / before) / 73.0, np.float32))
        zero = self.constant(np.array(0, np.int8))
        stored = self.constant(integers)
        return self.add("DequantizeLinear", [stored, factor, zero], (before, after), elem_type=TensorProto.FLOAT)

    def model(self, *results: Tensor) -> bytes:
        """The serialised graph."""
        outputs = [helper.make_tensor_value_info(each.name, each.elem_type, each.dims) for each in results]
        inputs = list(self.inputs)
        if self.open_weights:
            inputs += [helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in self.stored]
        graph = helper.make_graph(self.nodes, "micro", inputs, outputs, self.stored)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets)
        model.ir_version = _IR_VERSION
        return bytes(model.SerializeToString())
