"""Random float networks in ONNX, of the operators and attributes that meet an INT8 runtime; seeded, valid, small.

A network grows node by node; what a new node makes is computed at once with optimisations off, so that only nodes that
ONNX Runtime runs as they stand are kept.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[np.float32]
Rng = np.random.Generator

OPSETS = range(13, 25)
_IR_VERSIONS = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12}
_LARGEST = 4096
"""Values of a tensor for one input; a node that makes more is dropped."""


@dataclass(frozen=True)
class RandomNet:
    """A valid float network with inputs for it.

    Attributes:
        name: says the seed and the number.
        model: one input `x`, one or two outputs.
        inputs: (N, …), negative, zero and positive values.
    """

    name: str
    model: onnx.ModelProto
    inputs: Array


def random_nets(seed: int, count: int) -> Iterator[RandomNet]:
    """The first `count` networks of a seed, each made when it is asked for."""
    return (random_net(seed, number) for number in range(count))


def random_net(seed: int, number: int) -> RandomNet:
    """One network of a seed; each has its own random numbers."""
    rng = np.random.default_rng((seed, number))
    spatial = int(rng.choice([0, 1, 2, 3], p=[0.25, 0.1, 0.6, 0.05]))
    net = _Net(rng, int(rng.choice(OPSETS)), spatial)
    wanted = int(rng.integers(3, 11))
    for _ in range(12 * wanted):
        if len(net.made) >= wanted and net.weighted >= 1:
            break
        net.grow()
    return RandomNet(f"{seed}/{number}", net.model(), net.inputs)


class _Net:
    """A network that grows."""

    def __init__(self, rng: Rng, opset: int, spatial: int) -> None:
        self.rng, self.opset, self.spatial = rng, opset, spatial
        self.numbers = itertools.count()
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, onnx.TensorProto] = {}
        sizes = tuple(int(size) for size in rng.integers(5, 14, spatial))
        channels = int(rng.choice([1, 3, 8, 16]))
        self.inputs = self._inputs((4, channels, *sizes))
        self.values: dict[str, Array] = {"x": self.inputs}
        self.last = "x"
        self.weighted = 0
        self.made: list[str] = []

    def grow(self) -> None:
        """Try one more node, or a few that belong together; nothing is kept of what can't be run."""
        kinds = _IMAGE if self.values[self.last].ndim > 2 else _VECTOR
        names = list(kinds)
        weights = np.array([weight for _, weight in kinds.values()])
        kind = names[int(self.rng.choice(len(names), p=weights / weights.sum()))]
        before = len(self.nodes), dict(self.stored)
        made = kinds[kind][0](self)
        value = None if made is None else self._value(made)
        if made is None or value is None or value.size > _LARGEST * len(self.inputs) or not self._useful(value):
            del self.nodes[before[0] :]
            self.stored = before[1]
            return
        self.weighted += kind in _WEIGHTED
        self.values[made] = value
        self.made.append(made)
        self.last = made

    def model(self) -> onnx.ModelProto:
        """The network, whose last value is its output; sometimes an earlier one is another."""
        outputs = [self.last]
        if len(self.made) > 2 and self.rng.random() < 0.2:
            outputs.append(str(self.rng.choice(self.made[:-1])))
        return self._model(outputs)

    def _model(self, outputs: list[str]) -> onnx.ModelProto:
        needed, nodes = set(outputs), []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                nodes.insert(0, node)
                needed |= set(node.input)
        shape = ["N", *self.inputs.shape[1:]]
        given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        # Of open sizes: onnx infers some otherwise than the runtime computes them.
        ranks = {name: self.values[name].ndim for name in outputs if name in self.values}
        wanted = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *[None] * (ranks[name] - 1)])
            if name in ranks
            else helper.make_empty_tensor_value_info(name)
            for name in outputs
        ]
        stored = [tensor for name, tensor in self.stored.items() if name in needed]
        graph = helper.make_graph(nodes, "random", given, wanted, stored)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSIONS[self.opset])

    def _inputs(self, shape: tuple[int, ...]) -> Array:
        values = self.rng.standard_normal(shape) * self.rng.choice([0.3, 1.0, 3.0]) + self.rng.choice([-1, 0, 0, 1])
        if self.rng.random() < 0.3:
            values = np.maximum(values, 0)
        return values.astype(np.float32)

    def _useful(self, value: Array) -> bool:
        """Whether the value is finite, of a sane size, has a batch, and isn't the same throughout."""
        if value.dtype != np.float32 or value.ndim < 2 or not value.size or value.shape[0] != len(self.inputs):
            return False
        return (
            bool(np.isfinite(value).all()) and 1e-3 < float(np.abs(value).max()) < 1e4 and float(np.ptp(value)) > 1e-4
        )

    def _value(self, name: str) -> Array | None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        try:
            content = self._model([name]).SerializeToString()
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            return np.asarray(session.run(None, {"x": self.inputs})[0])
        except Exception:  # the runtime's errors have no common base; a node that can't be run is none of ours
            return None

    # --- parts of nodes

    @property
    def here(self) -> tuple[int, ...]:
        """The shape of the last value."""
        return self.values[self.last].shape

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Append a node and return its first output; attributes that are None are left out."""
        names = [f"v{next(self.numbers)}" for _ in range(outputs)]
        given = {name: value for name, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"{op}_{names[0]}", **given))
        return names[0]

    def store(self, array: Any) -> str:
        name = f"k{next(self.numbers)}"
        self.stored[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def weights(self, *shape: int, fan_in: int) -> str:
        """New weights of uneven channels, or a stored tensor of this shape again."""
        same = [name for name, tensor in self.stored.items() if tuple(tensor.dims) == shape]
        if same and self.rng.random() < 0.35:
            return str(self.rng.choice(same))
        values = self.rng.standard_normal(shape) / np.sqrt(fan_in)
        if self.rng.random() < 0.5:
            spread = 10.0 ** self.rng.uniform(-2, 0, shape[0])
            values *= spread.reshape(-1, *[1] * (len(shape) - 1)) / spread.max()
        if self.rng.random() < 0.1:
            values[0] = 0
        return self.store(values.astype(np.float32))

    def bias(self, channels: int) -> list[str]:
        if self.rng.random() < 0.4:
            return []
        return [self.store((self.rng.standard_normal(channels) * 0.3).astype(np.float32))]

    def pick(self, *values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def earlier(self, fits: Callable[[tuple[int, ...]], bool]) -> str | None:
        """An earlier value (or the last one itself) whose shape fits."""
        found = [name for name, value in self.values.items() if fits(value.shape)]
        return self.pick(*found) if found else None

    def window(self, *, dilated: bool = True) -> dict[str, Any]:
        """A sliding window's attributes."""
        rank = len(self.here) - 2
        kernel = [int(size) for size in self.rng.integers(1, 4, rank)]
        found: dict[str, Any] = {"kernel_shape": kernel, "strides": [int(s) for s in self.rng.integers(1, 3, rank)]}
        if dilated and self.chance(0.25):
            found["dilations"] = [int(size) for size in self.rng.integers(1, 3, rank)]
        if self.chance(0.15):
            found["auto_pad"] = self.pick("SAME_UPPER", "SAME_LOWER", "VALID")
        elif self.chance(0.5):
            found["pads"] = [int(self.rng.integers(0, size)) for size in kernel * 2]
        dilations, pads = found.get("dilations", [1] * rank), found.get("pads", [0] * 2 * rank)
        for axis, size in enumerate(self.here[2:]):  # a window larger than its input has no meaning
            if size + pads[axis] + pads[axis + rank] < dilations[axis] * (kernel[axis] - 1) + 1:
                kernel[axis], pads[axis], pads[axis + rank] = 1, 0, 0
        return found


def _conv(net: _Net) -> str:
    channels, made = net.here[1], net.pick(4, 8, 16)
    window = net.window()
    group = net.pick(1, 1, channels, *(2 for _ in range(channels % 2 == 0 and made % 2 == 0)))
    if group == channels:
        made = channels * net.pick(1, 1, 2)
    if made * channels > 512:
        made = 8 if group == 1 else made
    shape = (made, channels // group, *window["kernel_shape"])
    weights = net.weights(*shape, fan_in=int(np.prod(shape[1:])))
    return net.add("Conv", net.last, weights, *net.bias(made), group=group, **window)


def _transposed(net: _Net) -> str:
    channels, made, rank = net.here[1], net.pick(4, 8), len(net.here) - 2
    kernel, strides = [net.pick(2, 3)] * rank, [net.pick(1, 2)] * rank
    group = 2 if channels % 2 == 0 and net.chance(0.3) else 1
    weights = net.weights(channels, made // group, *kernel, fan_in=channels * kernel[0])
    extra = {"output_padding": [1] * rank} if strides[0] == 2 and net.chance(0.3) else {}
    pads = [1] * (2 * rank) if net.chance(0.4) else None
    return net.add(
        "ConvTranspose", net.last, weights, *net.bias(made), strides=strides, group=group, pads=pads, **extra
    )


def _max_pool(net: _Net) -> str:
    x = net.last
    if net.chance(0.25):
        rank = len(net.here) - 2
        pads = np.array([0, 0, *net.rng.integers(0, 3, rank)] * 2, np.int64)
        value = [net.store(np.array(net.pick(0.0, 0.0, -1.0, 0.5), np.float32))] if net.chance(0.7) else []
        x = net.add("Pad", x, net.store(pads), *value, mode="constant")
    return net.add("MaxPool", x, ceil_mode=net.pick(0, 0, 1), **net.window())


def _average_pool(net: _Net) -> str:
    include, ceil = net.pick(0, 1), net.pick(0, 0, 1)
    x = net.last
    if net.chance(0.15):
        rank = len(net.here) - 2
        x = net.add("Pad", x, net.store(np.array([0, 0, *[1] * rank] * 2, np.int64)), mode="constant")
    return net.add("AveragePool", x, ceil_mode=ceil, count_include_pad=include, **net.window(dilated=net.opset >= 19))


def _global_pool(net: _Net) -> str:
    return net.add(net.pick("GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool"), net.last)


def _power_pool(net: _Net) -> str:
    return net.add("LpPool", net.last, p=net.pick(1, 2), kernel_shape=[2] * (len(net.here) - 2))


def _activation(net: _Net) -> str:
    x = net.last
    simple = ["Relu", "Relu", "Relu", "Sigmoid", "HardSigmoid", "LeakyRelu", "Tanh", "Elu", "Selu", "Softplus", "Abs"]
    simple += ["HardSwish"] * 2 * (net.opset >= 14) + ["Mish"] * (net.opset >= 18) + ["Gelu"] * (net.opset >= 20)
    simple += ["Swish"] * (net.opset >= 24) + ["Clip", "Clip", "PRelu", "silu", "Erf", "Neg", "Softmax"]
    op = str(net.pick(*simple))
    if op == "Clip":
        low, high = net.pick((0.0, 6.0), (-1.0, 1.0), (0.5, 2.0), (0.0, None), (None, 1.0))
        ends = ["" if end is None else net.store(np.array(end, np.float32)) for end in (low, high)]
        return net.add("Clip", x, *ends)
    if op == "PRelu":
        slopes = net.weights(net.here[1], *[1] * (len(net.here) - 2), fan_in=4)
        return net.add("PRelu", x, slopes)
    if op == "silu":
        return net.add("Mul", x, net.add("Sigmoid", x))
    if op == "Softmax":
        return net.add("Softmax", x, axis=net.pick(1, -1))
    attributes = {"LeakyRelu": {"alpha": net.pick(0.01, 0.2)}, "HardSigmoid": net.pick({}, {"alpha": 0.15})}
    return net.add(op, x, **attributes.get(op, {}))


def _arithmetic(net: _Net) -> str | None:
    op = net.pick("Add", "Add", "Mul", "Sub", "Max", "Min", "Sum", "Mean", "Div")
    if op != "Div" and net.chance(0.55):
        other = net.earlier(lambda shape: shape == net.here)
    else:
        shape = net.pick((), (net.here[1], *[1] * (len(net.here) - 2)), (1, *net.here[1:]))
        if op == "Div" or len(shape) == 0:
            other = net.store((net.rng.uniform(0.5, 2, shape)).astype(np.float32))
        else:
            other = net.weights(*shape, fan_in=4)
    if other is None:
        return None
    pair = [net.last, other] if net.chance(0.7) or op == "Div" else [other, net.last]
    if op in ("Sum", "Mean", "Max") and net.chance(0.2):
        pair.append(net.last)
    return net.add(op, *pair)


def _concat(net: _Net) -> str | None:
    here = net.here
    other = net.earlier(lambda shape: len(shape) == len(here) and shape[2:] == here[2:])
    if other is None:
        return None
    parts = [net.last, other] if net.chance(0.8) else [net.last, other, net.last]
    return net.add("Concat", *parts, axis=net.pick(1, 1, -len(here) + 1))


def _resize(net: _Net) -> str:
    rank = len(net.here)
    mode = net.pick("nearest", "nearest", "linear", "cubic")
    scales = net.store(np.array([1, 1, *[net.pick(2.0, 2.0, 1.5, 0.6)] * (rank - 2)], np.float32))
    return net.add(
        "Resize",
        net.last,
        "",
        scales,
        mode=mode,
        coordinate_transformation_mode=net.pick("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"),
        nearest_mode=net.pick("floor", "round_prefer_floor") if mode == "nearest" else None,
    )


def _rearranged(net: _Net) -> str | None:
    here, rank = net.here, len(net.here)
    op = net.pick("Transpose", "Reshape", "Slice", "Pad", "Split", "DepthToSpace", "Unsqueeze", "Gather", "Expand")
    if op == "Transpose":
        perm = [0, *(int(axis) for axis in net.rng.permutation(range(1, rank)))]
        return net.add("Transpose", net.last, perm=perm)
    if op == "Reshape":
        if rank > 3:
            return net.add("Reshape", net.last, net.store(np.array([0, -1, *here[3:]], np.int64)))
        return net.add("Reshape", net.last, net.store(np.array([0, 0, -1], np.int64)))
    if op == "Slice":
        ends = [net.store(np.array([value], np.int64)) for value in (0, max(1, here[1] - 1), 1)]
        return net.add("Slice", net.last, *ends)
    if op == "Pad":
        pads = np.array([0, 0, *[1] * (rank - 2)] * 2, np.int64)
        return net.add("Pad", net.last, net.store(pads), mode=net.pick("constant", "reflect", "edge"))
    if op == "Split":
        if here[1] % 2:
            return None
        return net.add("Split", net.last, net.store(np.array([here[1] // 2] * 2, np.int64)), outputs=2, axis=1)
    if op == "DepthToSpace":
        return net.add(op, net.last, blocksize=2) if rank == 4 and here[1] % 4 == 0 else None
    if op == "Unsqueeze":
        axis = net.store(np.array([net.pick(1, rank)], np.int64))
        return net.add("Squeeze", net.add("Unsqueeze", net.last, axis), axis)
    if op == "Gather":
        return net.add("Gather", net.last, net.store(net.rng.permutation(here[1]).astype(np.int64)), axis=1)
    return net.add("Expand", net.last, net.store(np.array([1] * rank, np.int64)))


def _normalised(net: _Net) -> str | None:
    channels = net.here[1]
    ones, zeros = (net.store((net.rng.uniform(0.5, 1.5, channels)).astype(np.float32)) for _ in range(2))
    if net.chance(0.6):
        return net.add("BatchNormalization", net.last, ones, zeros, zeros, ones)
    if net.opset >= 21 and channels % 2 == 0 and net.chance(0.5):
        return net.add("GroupNormalization", net.last, ones, zeros, num_groups=2)
    if net.opset >= 17 and net.chance(0.5):
        width = net.here[-1]
        return net.add("LayerNormalization", net.last, net.store(np.ones(width, np.float32)), axis=-1)
    return net.add("InstanceNormalization", net.last, ones, zeros)


def _reduced(net: _Net) -> str:
    op, axes, keep = net.pick("ReduceMean", "ReduceMax", "ReduceSum"), list(range(2, len(net.here))), net.pick(0, 1)
    if op == "ReduceSum" or net.opset >= 18:
        return net.add(op, net.last, net.store(np.array(axes, np.int64)), keepdims=keep)
    return net.add(op, net.last, axes=axes, keepdims=keep)


def _flattened(net: _Net) -> str:
    return net.add("Flatten", net.last, axis=1)


def _gemm(net: _Net) -> str:
    width, made = net.here[1], net.pick(8, 16, net.here[1])
    across = net.pick(0, 1)
    weights = net.weights(*((made, width) if across else (width, made)), fan_in=width)
    scales = net.pick({}, {}, {}, {"alpha": 0.5}, {"beta": 2.0})
    return net.add("Gemm", net.last, weights, *net.bias(made), transB=across, **scales)


def _matmul(net: _Net) -> str:
    width = net.here[-1]
    if len(net.here) > 2 and net.chance(0.2):
        return net.add("MatMul", net.weights(net.pick(4, 8), net.here[-2], fan_in=net.here[-2]), net.last)
    if len(net.here) > 2 and net.here[-2] == width and net.chance(0.3):
        return net.add("MatMul", net.last, net.earlier(lambda shape: shape == net.here) or net.last)
    made = net.pick(8, 16, width)
    product = net.add("MatMul", net.last, net.weights(width, made, fan_in=width))
    return net.add("Add", product, *bias) if (bias := net.bias(made)) else product


def _gated(net: _Net) -> str:
    """A squeeze-and-excitation gate."""
    channels = net.here[1]
    ones = [1] * (len(net.here) - 2)
    pooled = net.add("GlobalAveragePool", net.last)
    gate = net.add("Conv", pooled, net.weights(channels, channels, *ones, fan_in=channels), *net.bias(channels))
    return net.add("Mul", net.last, net.add(net.pick("Sigmoid", "HardSigmoid"), gate))


_WEIGHTED = frozenset({"conv", "transposed", "gemm", "matmul"})
_Kinds = dict[str, tuple[Callable[[_Net], str | None], float]]
_IMAGE: _Kinds = {
    "conv": (_conv, 5),
    "transposed": (_transposed, 0.7),
    "max_pool": (_max_pool, 1.5),
    "average_pool": (_average_pool, 2),
    "global_pool": (_global_pool, 0.3),
    "power_pool": (_power_pool, 0.2),
    "activation": (_activation, 3.5),
    "arithmetic": (_arithmetic, 2),
    "concat": (_concat, 1),
    "resize": (_resize, 0.8),
    "rearranged": (_rearranged, 1),
    "normalised": (_normalised, 0.6),
    "reduced": (_reduced, 0.2),
    "flattened": (_flattened, 0.3),
    "gated": (_gated, 0.5),
    "matmul": (_matmul, 0.4),
}
_VECTOR: _Kinds = {
    "gemm": (_gemm, 4),
    "matmul": (_matmul, 2),
    "activation": (_activation, 3),
    "arithmetic": (_arithmetic, 2),
    "concat": (_concat, 0.7),
    "normalised": (_normalised, 0.3),
}
