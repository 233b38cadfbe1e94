"""Peak memory of the activations, by liveness over the graph."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from latency_models.shapes import Shapes, infer

if TYPE_CHECKING:
    import onnx

# The result is the input's own memory under another shape or name.
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
# The result may be written over an input of the same size that nobody needs any more.
_IN_PLACE = frozenset(
    {
        "Abs", "Add", "And", "BatchNormalization", "Ceil", "Celu", "Clip", "Div", "Elu", "Erf", "Exp",
        "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "LogSoftmax", "Max", "Min", "Mish",
        "Mul", "Neg", "Not", "PRelu", "Pow", "QuickGelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid",
        "Sign", "Softmax", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu",
        "Where",
    }
)  # fmt: skip


def peak_activation_bytes(model: onnx.ModelProto, batch_size: int = 1) -> int:
    """The most bytes that activations take at one time, at `batch_size`.

    Nodes run in the file's order. An input counts until its last use, an output to the end, weights not at
    all. Elementwise nodes work in place where their input isn't needed any more, and a convolution adds its
    result onto the other side of an `Add` that follows it, as ONNX Runtime fuses them.

    Raises:
        InvalidModelError: an input has an open dimension beside the batch, or the batch is fixed at another
            size.
        UnknownShapeError: the shape of an activation can't be inferred.
    """
    return peak_bytes(infer(model, batch_size))


def peak_bytes(shapes: Shapes) -> int:
    """`peak_activation_bytes` of a graph whose shapes are known."""
    return _Liveness(shapes).peak()


class _Liveness:
    """A walk over the nodes with the buffers that are held at each."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._nodes = shapes.live_nodes
        self._buffer_of: dict[str, int] = {}
        self._bytes: list[int] = []
        self._pinned: set[int] = set()
        self._uses: Counter[int] = Counter()
        self._uses_of_value = Counter(
            name for node in self._nodes for name in node.input if name and name not in shapes.constants
        )
        self._uses_of_value.update(shapes.outputs)  # never used up, so held to the end
        self._added_onto = _convolutions_added_onto(self._nodes, self._uses_of_value, shapes)
        self._held = 0
        self._peak = 0

    def peak(self) -> int:
        for name in self._shapes.inputs:
            if self._uses_of_value[name]:
                self._pinned.add(self._allocate(name))
        self._peak = self._held
        for node in self._nodes:
            self._step(node)
        return self._peak

    def _step(self, node: onnx.NodeProto) -> None:
        inputs = [name for name in node.input if name and name not in self._shapes.constants]
        outputs = [name for name in node.output if name and self._uses_of_value[name]]
        if node.op_type in _VIEWS and inputs:
            self._share(outputs, self._buffer_of[inputs[0]])
        elif outputs:
            reused = self._reusable(node, inputs, outputs[0])
            if reused is not None:
                self._share(outputs[:1], reused)
            for name in outputs if reused is None else outputs[1:]:
                self._allocate(name)
        self._peak = max(self._peak, self._held)
        for name in inputs:
            self._release(self._buffer_of[name])

    def _reusable(self, node: onnx.NodeProto, inputs: list[str], output: str) -> int | None:
        """The buffer that the node's result can be written over."""
        size = self._shapes.n_bytes(output)
        if node.output[0] in self._added_onto:
            onto = self._buffer_of.get(self._added_onto[node.output[0]])
            # One use is left: the Add, which finds its result there already.
            if onto is not None and self._uses[onto] == 1 and self._bytes[onto] == size and onto not in self._pinned:
                return onto
        if node.op_type not in _IN_PLACE:
            return None
        used_here = Counter(self._buffer_of[name] for name in inputs)
        for buffer, uses in used_here.items():
            if self._uses[buffer] == uses and self._bytes[buffer] == size and buffer not in self._pinned:
                return buffer
        return None

    def _allocate(self, name: str) -> int:
        buffer = len(self._bytes)
        self._bytes.append(self._shapes.n_bytes(name))
        self._held += self._bytes[buffer]
        self._share([name], buffer)
        return buffer

    def _share(self, names: list[str], buffer: int) -> None:
        for name in names:
            self._buffer_of[name] = buffer
            self._uses[buffer] += self._uses_of_value[name]

    def _release(self, buffer: int) -> None:
        self._uses[buffer] -= 1
        if self._uses[buffer] == 0:
            self._held -= self._bytes[buffer]


def _convolutions_added_onto(nodes: tuple[onnx.NodeProto, ...], uses: Counter[str], shapes: Shapes) -> dict[str, str]:
    """The results of convolutions that only an `Add` reads, each with the other side of that `Add`."""
    maker = {output: node for node in nodes for output in node.output}
    position = {output: at for at, node in enumerate(nodes) for output in node.output}
    found: dict[str, str] = {}
    for node in nodes:
        if node.op_type not in {"Add", "Sum"} or len(node.input) != 2:
            continue
        sides = sorted(node.input, key=lambda name: position.get(name, -1))
        other, last = sides
        # BatchNormalization is folded into the convolution before it.
        convolution = maker.get(last)
        result = last
        if convolution is not None and convolution.op_type == "BatchNormalization" and uses[last] == 1:
            result = convolution.input[0]
            convolution = maker.get(result)
        if convolution is None or convolution.op_type != "Conv" or uses[result] != 1 or uses[last] != 1:
            continue
        if other not in shapes.constants and other not in shapes.inputs:
            found[result] = other
    return found
