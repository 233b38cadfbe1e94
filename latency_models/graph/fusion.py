"""The nodes that are left after ONNX Runtime's fusions on a CPU, before they get a layout."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from latency_models.graph.steps import FILE, FUSED, WRITTEN_OUT, Step

if TYPE_CHECKING:
    import onnx

    from latency_models.graph.shapes import Shapes

_INTO_CONVOLUTIONS = frozenset({"Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid"})
_WRITTEN_OUT = {"Mish": ("Softplus", "Tanh"), "HardSwish": ("HardSigmoid",)}
_REMOVED = frozenset({"Identity", "Dropout"})
_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
# Operators that have an integer kernel, or move integers as well as floats.
_QUANTIZED = frozenset(
    {
        "Conv", "Gemm", "MatMul", "Add", "Mul", "GlobalAveragePool", "AveragePool", "Concat", "Softmax", "Sigmoid",
        "LeakyRelu", "Where", "MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Resize", "Split",
        "Gather", "Slice",
    }
)  # fmt: skip
_MOVED = frozenset({"MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Split", "Gather", "Slice"})
_FLOAT_RESULT = frozenset({"Gemm", "MatMul"})


def fused_steps(shapes: Shapes) -> list[Step]:
    """The kernels of a graph: some nodes are folded into others, operators without a kernel are written out."""
    fusion = _Fusion(shapes)
    fusion.remove_unchanged()
    fusion.fuse_quantized()
    fusion.fold_into_convolutions()
    fusion.write_out()
    fusion.fuse_quick_gelu()
    fusion.fuse_activations()
    return [step for step in fusion.steps if step is not None]


def dequantized_weights(shapes: Shapes) -> frozenset[str]:
    """Names of the constants that are stored as integers and dequantised at every run."""
    return frozenset(
        node.output[0] for node in shapes.nodes if node.op_type == _DEQUANTIZE and node.output[0] in shapes.constants
    )


def _runs(node: onnx.NodeProto, shapes: Shapes) -> bool:
    return node.op_type == _DEQUANTIZE or any(name and name not in shapes.constants for name in node.output)


class _Fusion:
    """The rewrites of ONNX Runtime's levels 1 and 2 that add or remove values."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self.steps: list[Step | None] = []
        self._weights = dequantized_weights(shapes)
        for at, node in enumerate(node for node in shapes.nodes if _runs(node, shapes)):
            inputs = tuple(
                name for name in node.input if name and (name not in shapes.constants or name in self._weights)
            )
            self.steps.append(Step(node.op_type, inputs, tuple(filter(None, node.output)), (FILE, at), node))
        self._count()

    def _count(self) -> None:
        live = [(at, step) for at, step in enumerate(self.steps) if step is not None]
        self._uses = Counter(name for _, step in live for name in step.inputs)
        self._uses.update(self._shapes.outputs)
        self._maker = {name: at for at, step in live for name in step.outputs}

    def remove_unchanged(self) -> None:
        """Drop nodes that return their input, but not one that makes a result of the graph."""
        renamed: dict[str, str] = {}
        for at, step in enumerate(self.steps):
            assert step is not None
            step = replace(step, inputs=tuple(renamed.get(name, name) for name in step.inputs))
            self.steps[at] = step
            if step.op_type in _REMOVED and step.inputs and step.outputs[0] not in self._shapes.outputs:
                renamed[step.outputs[0]] = step.inputs[0]
                self.steps[at] = None
        self._count()

    def fuse_quantized(self) -> None:
        """Run nodes between dequantised inputs and a quantised result on integers, and final matrix products as well.

        Every other reader of a dequantised value gets a dequantisation of its own.
        """
        reader = {name: at for at, step in enumerate(self.steps) if step is not None for name in step.inputs}
        for at, step in enumerate(self.steps):
            if step is None or step.op_type not in _QUANTIZED or not step.inputs:
                continue
            makers = [self._made_by(name) for name in step.inputs]
            read = reader.get(step.outputs[0])
            after = None if read is None else self.steps[read]
            quantized = after is not None and after.op_type == _QUANTIZE and self._uses[step.outputs[0]] == 1
            if any(maker is None or maker.op_type != _DEQUANTIZE for maker in makers):
                continue
            if not quantized and step.op_type not in _FLOAT_RESULT:
                continue
            inputs = tuple(name for maker in makers if maker is not None for name in maker.inputs)
            outputs = step.outputs
            if quantized and after is not None and read is not None:
                outputs, self.steps[read] = after.outputs, None
            op_type = step.op_type if step.op_type in _MOVED else f"QLinear{step.op_type}"
            self.steps[at] = replace(step, op_type=op_type, inputs=inputs, outputs=outputs)
        self._separate_dequantized()
        self._count()

    def _made_by(self, name: str) -> Step | None:
        at = self._maker.get(name)
        return None if at is None else self.steps[at]

    def _separate_dequantized(self) -> None:
        """Give each reader a dequantised value of its own, and drop those without a reader."""
        steps = [step for step in self.steps if step is not None]
        shared = {
            s.outputs[0]: s for s in steps if s.op_type == _DEQUANTIZE and s.outputs[0] not in self._shapes.outputs
        }
        separate: list[Step] = []
        taken: Counter[str] = Counter()
        for step in steps:
            names = {}
            for name in dict.fromkeys(step.inputs):
                if name in shared:
                    taken[name] += 1
                    names[name] = name if taken[name] == 1 else f"{name}/{taken[name]}"
                    separate.append(replace(shared[name], outputs=(names[name],)))
            if step.outputs[0] not in shared:
                separate.append(replace(step, inputs=tuple(names.get(name, name) for name in step.inputs)))
        self.steps = list(separate)

    def fold_into_convolutions(self) -> None:
        """Fold batch normalisation, and products and sums with one constant a channel, into convolutions."""
        for at, step in enumerate(self.steps):
            if step is None or len(step.inputs) != 1 or step.op_type not in {"BatchNormalization", "Mul", "Add"}:
                continue
            if step.op_type == "BatchNormalization" or self._one_constant_a_channel(step):
                self._into_convolution(at, step, activated=False)

    def _one_constant_a_channel(self, step: Step) -> bool:
        constants = [name for name in step.node.input if name in self._shapes.constants]
        channels = self._shapes.of(step.outputs[0])[1:2]
        dims = self._shapes.dims.get(constants[0], ()) if constants else ()
        return (
            bool(channels) and len(dims) in {3, 4} and dims[-3:] == (*channels, 1, 1) and math.prod(dims) == channels[0]
        )

    def fuse_activations(self) -> None:
        """Fuse an activation into a convolution that nothing else reads."""
        for at, step in enumerate(self.steps):
            if step is not None and step.op_type in _INTO_CONVOLUTIONS and len(step.inputs) == 1:
                self._into_convolution(at, step, activated=True)

    def _into_convolution(self, at: int, step: Step, activated: bool) -> None:
        made_at = self._maker.get(step.inputs[0])
        maker = None if made_at is None else self.steps[made_at]
        if made_at is None or maker is None or maker.op_type != "Conv" or maker.activated:
            return
        if self._uses[step.inputs[0]] != 1:
            return
        age = (FUSED, at) if activated else maker.age
        self.steps[made_at] = replace(maker, outputs=step.outputs[:1], activated=activated, age=age)
        self._maker[step.outputs[0]] = made_at
        self.steps[at] = None

    def write_out(self) -> None:
        """Write x tanh(softplus(x)) and x hardsigmoid(x) node by node."""
        written: list[Step | None] = []
        for step in self.steps:
            if step is None or step.op_type not in _WRITTEN_OUT:
                written.append(step)
                continue
            last = x = step.inputs[0]
            for number, op_type in enumerate(_WRITTEN_OUT[step.op_type]):
                inner = f"{step.outputs[0]}/{op_type}"
                written.append(Step(op_type, (last,), (inner,), (WRITTEN_OUT, 3 * step.age[1] + number), step.node))
                last = inner
            written.append(Step("Mul", (x, last), step.outputs, (WRITTEN_OUT, 3 * step.age[1] + 2), step.node))
        self.steps = written
        self._count()

    def fuse_quick_gelu(self) -> None:
        """Make x sigmoid(x) one kernel."""
        for at, step in enumerate(self.steps):
            if step is None or step.op_type != "Mul" or len(step.inputs) != 2:
                continue
            for x, gate in (step.inputs, step.inputs[::-1]):
                made_at = self._maker.get(gate)
                maker = None if made_at is None else self.steps[made_at]
                if made_at is None or maker is None or maker.op_type != "Sigmoid" or maker.inputs != (x,):
                    continue
                if self._uses[gate] == 1:
                    self.steps[made_at] = None
                    self.steps[at] = Step("QuickGelu", (x,), step.outputs, (FUSED, at), step.node)
                    break
        self._count()
