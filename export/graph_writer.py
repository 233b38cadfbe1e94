"""Writing a new ONNX graph node by node, with names, initializers and shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.errors import UnsupportedModuleError

if TYPE_CHECKING:
    import numpy.typing as npt

PRODUCER = "hwnas"
BATCH, INPUT, OUTPUT = "batch", "input", "logits"
"""Names in every file: of the dynamic first dimension, of the graph's input and of its output."""
# What torch's exporter stamps: runtimes of the same age read both kinds of file, or neither.
MINIMUM_IR_VERSION = 10


@dataclass(frozen=True)
class Value:
    """A tensor of the graph that is being written; `shape` leaves out the batch dimension."""

    name: str
    shape: tuple[int, ...]


class GraphWriter:
    """Collects nodes and initializers in order of execution.

    `scope` is the path of the module that is being written; it names the nodes (`<path>/<OpType>`) and the
    initializers (`<path>.<name>`).
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.scope = ""
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._constants: dict[tuple[bytes, tuple[int, ...], str], str] = {}
        self._names: dict[str, int] = {}

    def node(
        self, op_type: str, *inputs: Value | str, shape: tuple[int, ...] | None = None, **attributes: Any
    ) -> Value:
        """Append a node and return its output, which has the first input's shape unless `shape` is given.

        Raises:
            UnsupportedModuleError: the operator is not in the graph's opset.
        """
        if not onnx.defs.has(op_type, self.opset, ""):
            raise UnsupportedModuleError(self.scope, f"{op_type} at opset {self.opset}")
        first = inputs[0]
        if shape is None:
            if isinstance(first, str):
                raise TypeError(f"{op_type} on the constant {first!r} needs an explicit shape")
            shape = first.shape
        name = self.unique(f"{self.scope}/{op_type}" if self.scope else op_type)
        output = f"{name}.out"
        names = [value if isinstance(value, str) else value.name for value in inputs]
        self._nodes.append(helper.make_node(op_type, names, [output], name=name, **attributes))
        return Value(output, shape)

    def initializer(self, name: str, array: npt.NDArray[Any]) -> str:
        """Store an array of the current module once, and return its name in the graph."""
        full = f"{self.scope}.{name}" if self.scope else name
        if full not in self._initializers:
            self._initializers[full] = numpy_helper.from_array(np.ascontiguousarray(array), full)
        return full

    def constant(self, array: npt.NDArray[Any]) -> str:
        """Store a constant that belongs to no module, equal ones once, and return its name."""
        key = (array.tobytes(), array.shape, array.dtype.str)
        if key not in self._constants:
            name = self.unique("constant")
            self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
            self._constants[key] = name
        return self._constants[key]

    def scalar(self, value: float) -> str:
        """Store a float32 constant of rank 0 and return its name."""
        return self.constant(np.asarray(value, np.float32))

    def unique(self, name: str) -> str:
        """Return the name itself the first time, then `name_1`, `name_2`, …"""
        count = self._names.get(name, 0)
        self._names[name] = count + 1
        return name if count == 0 else self.unique(f"{name}_{count}")

    def model(self, graph_input: Value, output: Value) -> onnx.ModelProto:
        """Return the finished model: float32 input and output, both with the dynamic first dimension "batch"."""
        if output.name == graph_input.name:
            output = self.node("Identity", output)
        for node in self._nodes:
            _rename(node.input, output.name, OUTPUT)
            _rename(node.output, output.name, OUTPUT)
        graph = helper.make_graph(
            self._nodes,
            PRODUCER,
            [helper.make_tensor_value_info(graph_input.name, TensorProto.FLOAT, [BATCH, *graph_input.shape])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [BATCH, *output.shape])],
            list(self._initializers.values()),
        )
        opsets = [helper.make_opsetid("", self.opset)]
        ir_version = max(MINIMUM_IR_VERSION, helper.find_min_ir_version_for(opsets))
        return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, producer_name=PRODUCER)


def _rename(names: Any, old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new
