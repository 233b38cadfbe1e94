"""ONNX Runtime's layout in blocks of channels: which kernels run in it, and where values are copied in and out.

A convolution on a CPU is fastest on N, C/b, H, W, b (b the channels of a vector register). ONNX Runtime's
`NchwcTransformer` moves convolutions and pools into that layout, and what stands between them if it can; a value's
channels are padded to whole blocks there, and a copy leads to each reader that wants the plain layout.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx

from latency_models.graph.convolutions import group_of
from latency_models.graph.fusion import dequantized_weights
from latency_models.graph.steps import BLOCKED, LAST, Step

if TYPE_CHECKING:
    from latency_models.graph.shapes import Shapes

_REORDER_INPUT_ALIGNMENT = 4
_INTO_CONVOLUTIONS = frozenset({"Relu", "Sigmoid", "Tanh", "HardSigmoid"})
_POOLS = frozenset({"AveragePool", "MaxPool"})
_GLOBAL_POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool"})
_ACTIVATIONS = _INTO_CONVOLUTIONS | {"Gelu", "QuickGelu"}


@dataclass(frozen=True)
class Values:
    """Shapes, and bytes of one element, by value name; the layout adds its own values."""

    dims: dict[str, tuple[int, ...]]
    item_bytes: dict[str, int]


def blocked_steps(shapes: Shapes, steps: list[Step], values: Values, block: int) -> list[Step]:
    """Move what can be moved of the steps (in running order) into the layout; `values` gets the new values."""
    return _Blocks(shapes, steps, values, block).run()


@dataclass
class _BlockedValue:
    """A value in blocks: the step that made it, and the number of readers that still need the plain layout."""

    name: str
    channels: int
    readers: int
    left: int
    made_by: int


class _Blocks:
    """One pass in running order that moves what it can into the blocked layout."""

    def __init__(self, shapes: Shapes, steps: list[Step], values: Values, block: int) -> None:
        self._shapes, self._block = shapes, block
        self._dims, self._item_bytes = values.dims, values.item_bytes
        self._not_stored = dequantized_weights(shapes)
        self._todo = steps
        self._steps: list[Step] = []
        self._blocked: dict[str, _BlockedValue] = {}
        self._reordered: dict[str, str] = {}
        self._uses = Counter(name for step in steps for name in step.inputs)
        self._uses.update(shapes.outputs)
        self._age = 0
        self._gated = {pair: step for step in steps if step.op_type == "Mul" for pair in _pairs(step.inputs)}
        self._done: set[str] = set()

    def run(self) -> list[Step]:
        for step in self._todo:
            if step.outputs[0] not in self._done:
                self._transform(step)
        for name, value in self._blocked.items():
            if value.left > 0:
                self._steps.append(
                    Step("ReorderOutput", (value.name,), (name,), self._next_age(LAST), self._steps[value.made_by].node)
                )
        return self._steps

    def _transform(self, step: Step) -> None:
        if step.op_type == "Conv" and self._convolution_fits(step):
            reads_plain = self._weight(step)[1] < self._block and group_of(step.node) == 1
            source = step.inputs[0] if reads_plain else self._blocked_input(step.inputs[0])
            self._emit(step, (source, *step.inputs[1:]), self._weight(step)[0])
        elif self._is_pool(step) and self._channels_fit(step):
            self._emit(step, (self._blocked_input(step.inputs[0]),), self._dims[step.inputs[0]][1])
        elif step.inputs and all(name in self._blocked for name in step.inputs) and self._takes_blocks(step):
            return
        else:
            self._steps.append(step)

    def _is_pool(self, step: Step) -> bool:
        """Whether it is a pool that moves; a global one stays if a kernel of the plain layout makes its input."""
        if step.op_type in _GLOBAL_POOLS:
            return step.inputs[0] in self._blocked or step.inputs[0] in self._shapes.inputs
        return step.op_type in _POOLS and len(step.outputs) == 1

    def _takes_blocks(self, step: Step) -> bool:
        """Move a node that runs on blocks if all of its inputs are in blocks; returns whether it was moved."""
        sources = [self._blocked[name] for name in step.inputs]
        channels, first = sources[0].channels, step.inputs[0]
        if step.op_type in {"Add", "Sum", "Mul"}:
            if len(sources) != _operands(step) or any(self._dims[n] != self._dims[first] for n in step.inputs):
                return False
            if step.op_type != "Mul" and len(sources) == 2 and self._added_by_convolution(step):
                return True
            self._keep(step, channels)
        elif step.op_type == "Concat":
            if _axis(step) != 1 or any(source.channels % self._block for source in sources):
                return False
            self._keep(step, sum(source.channels for source in sources))
        elif step.op_type in _ACTIVATIONS:
            if not self._hardswish_by_convolution(step) and not self._activated_by_convolution(step):
                self._keep(step, channels)
        elif step.op_type == "BatchNormalization" and len(step.outputs) == 1:
            self._emit(replace(step, op_type="Conv"), (self._blocked_input(first),), channels)
        else:
            return False
        return True

    def _added_by_convolution(self, step: Step) -> bool:
        """Fuse a sum into one of its convolutions, which adds its result onto the other operand."""
        for source, other in (step.inputs, step.inputs[::-1]):
            value = self._blocked[source]
            maker = self._steps[value.made_by]
            if maker.op_type == "Conv" and value.readers == 1 and not maker.activated and not maker.added:
                onto = self._blocked_input(other)
                value.left -= 1
                self._steps[value.made_by] = replace(maker, inputs=(*maker.inputs, onto), added=True)
                self._hand_on(step.outputs[0], value)
                return True
        return False

    def _activated_by_convolution(self, step: Step) -> bool:
        value = self._blocked[step.inputs[0]]
        maker = self._steps[value.made_by]
        fits = step.op_type in _INTO_CONVOLUTIONS and maker.op_type == "Conv" and not maker.activated
        if fits and value.readers == 1:
            value.left -= 1
            self._steps[value.made_by] = replace(maker, activated=True)
            self._hand_on(step.outputs[0], value)
            return True
        return False

    def _hardswish_by_convolution(self, step: Step) -> bool:
        """Fuse x hardsigmoid(x) of a convolution's result that nothing else reads."""
        value = self._blocked[step.inputs[0]]
        maker = self._steps[value.made_by]
        product = self._gated.get((step.inputs[0], step.outputs[0]))
        if product is None or not _is_hardswish_gate(step) or maker.op_type != "Conv" or maker.activated:
            return False
        if value.readers != 2 or self._uses[step.outputs[0]] != 1 or product.outputs[0] in self._shapes.outputs:
            return False
        value.left -= 2
        self._steps[value.made_by] = replace(maker, activated=True)
        self._hand_on(product.outputs[0], value)
        self._done.add(product.outputs[0])
        return True

    def _hand_on(self, name: str, value: _BlockedValue) -> None:
        """Make `name` the result of the value's maker."""
        uses = self._uses[name]
        self._blocked[name] = _BlockedValue(value.name, value.channels, uses, uses, value.made_by)

    def _emit(self, step: Step, inputs: tuple[str, ...], channels: int) -> None:
        """Append a node of the layout's own; it sorts after every kernel that isn't."""
        age = self._next_age(BLOCKED)
        self._write(replace(step, inputs=inputs, age=age), channels)

    def _keep(self, step: Step, channels: int) -> None:
        """Append a node that runs on either layout."""
        self._write(replace(step, inputs=tuple(self._blocked_input(name) for name in step.inputs)), channels)

    def _write(self, step: Step, channels: int) -> None:
        name = step.outputs[0]
        blocked = self._blocked_name(name, channels)
        self._blocked[name] = _BlockedValue(blocked, channels, self._uses[name], self._uses[name], len(self._steps))
        self._steps.append(replace(step, outputs=(blocked,)))

    def _blocked_input(self, name: str) -> str:
        if name in self._blocked:
            self._blocked[name].left -= 1
            return self._blocked[name].name
        if name not in self._reordered:
            self._reordered[name] = self._blocked_name(name, self._dims[name][1])
            node = onnx.NodeProto(op_type="ReorderInput")
            age = self._next_age(BLOCKED)
            self._steps.append(Step("ReorderInput", (name,), (self._reordered[name],), age, node))
        return self._reordered[name]

    def _blocked_name(self, name: str, channels: int) -> str:
        blocked = f"{name}/blocked"
        dims = self._dims[name]
        self._dims[blocked] = (dims[0], -(-channels // self._block) * self._block, *dims[2:])
        self._item_bytes[blocked] = self._item_bytes[name]
        return blocked

    def _next_age(self, kind: int) -> tuple[int, int]:
        self._age += 1
        return kind, self._age

    def _weight(self, step: Step) -> tuple[int, ...]:
        return self._shapes.dims.get(step.node.input[1], ())

    def _convolution_fits(self, step: Step) -> bool:
        weight, group, block = self._weight(step), group_of(step.node), self._block
        is_float = self._shapes.elem_types.get(step.node.input[1]) == onnx.TensorProto.FLOAT
        if step.node.input[1] in self._not_stored:
            return False
        if len(step.inputs) != 1 or len(weight) != 4 or not is_float:
            return False
        made, read = weight[:2]
        if group == 1:
            return read < block or read % _REORDER_INPUT_ALIGNMENT == 0
        if made % _REORDER_INPUT_ALIGNMENT:
            return False
        return bool((read == 1 and made == group) or (read % block == 0 and (made // group) % block == 0))

    def _channels_fit(self, step: Step) -> bool:
        dims = self._dims[step.inputs[0]]
        return len(dims) == 4 and dims[1] % self._block == 0


def _operands(step: Step) -> int:
    """Operands of a sum or product, constants included; a node that was written out is a product of two values."""
    return len(step.node.input) if step.node.op_type == step.op_type else 2


def _axis(step: Step) -> int | None:
    return next((attribute.i for attribute in step.node.attribute if attribute.name == "axis"), None)


def _pairs(inputs: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return (inputs, inputs[::-1]) if len(inputs) == 2 else ()


def _is_hardswish_gate(step: Step) -> bool:
    if step.op_type != "HardSigmoid":
        return False
    if step.node.op_type == "HardSwish":
        return True
    settings = {"alpha": 0.2, "beta": 0.5} | {attribute.name: attribute.f for attribute in step.node.attribute}
    return bool(abs(settings["alpha"] - 1 / 6) < 1e-6 and abs(settings["beta"] - 0.5) < 1e-6)
