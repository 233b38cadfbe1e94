"""The quick ONNX graph of a frozen candidate, in milliseconds.

A search compares the costs of hundreds of candidates, and torch's exporter takes a second for each. This builder
walks a symbolic trace and writes the graph that the exporter and the lowering would end up with: the same operators,
batch norm folded into the convolution before it. A network with a part that has no rule here goes to the exporter.
"""

from __future__ import annotations

import operator
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from export.activations.table import as_if_trained, emitter_of
from export.errors import UnsupportedModuleError
from export.exporter import onnx_export
from export.exporter.graph_rules import MODULE_RULES, convolution, folded_batch_norm
from export.graph_writer import INPUT, GraphWriter, Value
from export.lowering import lower as lowering
from export.module_state import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx

    Rule = Callable[[GraphWriter, nn.Module, Value], Value]


def _flatten(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    return nn.Flatten(start_dim, end_dim)


# Functions and methods that do what a module does; their further arguments are the module's own, in order.
_CALLS: dict[Any, Callable[..., nn.Module]] = {
    F.relu: nn.ReLU,
    torch.relu: nn.ReLU,
    "relu": nn.ReLU,
    F.relu6: nn.ReLU6,
    F.leaky_relu: nn.LeakyReLU,
    F.elu: nn.ELU,
    F.selu: nn.SELU,
    F.celu: nn.CELU,
    F.hardtanh: nn.Hardtanh,
    F.softsign: nn.Softsign,
    F.gelu: nn.GELU,
    F.silu: nn.SiLU,
    F.mish: nn.Mish,
    F.hardswish: nn.Hardswish,
    F.hardsigmoid: nn.Hardsigmoid,
    F.sigmoid: nn.Sigmoid,
    torch.sigmoid: nn.Sigmoid,
    "sigmoid": nn.Sigmoid,
    F.tanh: nn.Tanh,
    torch.tanh: nn.Tanh,
    "tanh": nn.Tanh,
    F.softplus: nn.Softplus,
    torch.flatten: _flatten,
    "flatten": _flatten,
}
_ARITHMETIC: dict[Any, str] = {
    operator.add: "Add",
    operator.iadd: "Add",
    torch.add: "Add",
    "add": "Add",
    operator.mul: "Mul",
    operator.imul: "Mul",
    torch.mul: "Mul",
    "mul": "Mul",
}
_MEANS = (torch.mean, "mean")
_IN_PLACE = (operator.iadd, operator.imul)
# These may hand their input on as it is: to write into their output in place is to write into their input.
_ALIASING_MODULES = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten)
_ALIASING_CALLS = (torch.flatten, "flatten")


def cost_graph(
    model: nn.Module, input_shape: tuple[int, int, int], *, forms: Mapping[str, str] | None = None
) -> tuple[onnx.ModelProto, Literal["builder", "exporter"]]:
    """Build the quick graph of an untrained network so that it costs what the trained network will cost.

    The learnable activations are written with other numbers than the network's. Arguments, result and errors are
    those of `quick_graph`.
    """
    with as_if_trained(model):
        return quick_graph(model, input_shape, forms=forms)


def quick_graph(
    model: nn.Module, input_shape: tuple[int, int, int], *, forms: Mapping[str, str] | None = None
) -> tuple[onnx.ModelProto, Literal["builder", "exporter"]]:
    """Build the graph of a network, or export the network where the builder has no rule for it.

    Args:
        model: a frozen candidate, float32.
        input_shape: one input's (channels, height, width).
        forms: activation family → form to prefer, as `export.lowering.lower.lower` takes it.

    Returns:
        The model (input (batch, channels, height, width) → output (batch, classes)), and who wrote it.

    Raises:
        ExportError: the exporter failed as well.
    """
    try:
        return build_graph(model, input_shape, forms=forms), "builder"
    except UnsupportedModuleError:
        parameter = next(model.parameters(), None)
        device = parameter.device if parameter is not None else torch.device("cpu")
        example = torch.zeros(2, *input_shape, device=device)
        return onnx_export.export_model(model, example, forms=forms), "exporter"


def build_graph(
    model: nn.Module, input_shape: tuple[int, int, int], *, opset: int = 20, forms: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """Write the lowered graph of a network in eval mode; its modules' own modes are restored.

    Args:
        model: takes one float32 tensor (batch, channels, height, width) and returns one tensor.
        input_shape: one input's (channels, height, width).
        opset: of the default ONNX domain.
        forms: see `quick_graph`.

    Raises:
        UnsupportedModuleError: a part of the network has no rule here.
    """
    return lowering.lower(plain_graph(model, input_shape, opset=opset), forms)


def plain_graph(model: nn.Module, input_shape: tuple[int, int, int], *, opset: int = 20) -> onnx.ModelProto:
    """Write the graph of a network with its activations as torch's exporter writes them; see `build_graph`."""
    if model._forward_hooks or model._forward_pre_hooks:
        raise UnsupportedModuleError("", f"{type(model).__name__} with a forward hook")
    with evaluating(model):
        trace = _trace(model)
        walk = _Walk(dict(model.named_modules(remove_duplicate=False)), trace, GraphWriter(opset))
        return walk.run(Value(INPUT, input_shape))


class _Tracer(fx.Tracer):
    """Traces a network down to the modules that have a rule."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _rule_of(m) is not None or super().is_leaf_module(m, module_qualified_name)


def _trace(model: nn.Module) -> fx.Graph:
    try:
        return _Tracer().trace(model)
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        # Anything may stop a symbolic trace; the exporter's message says better whether the network is at fault.
        raise UnsupportedModuleError("", f"{type(model).__name__}, which can't be traced: {error}") from error


def _rule_of(module: nn.Module) -> Rule | None:
    return MODULE_RULES.get(type(module)) or emitter_of(type(module))


class _Walk:
    """Writes the graph of a trace, node by node in order of execution."""

    def __init__(self, modules: Mapping[str, nn.Module], trace: fx.Graph, writer: GraphWriter) -> None:
        self.modules = modules
        self.trace = trace
        self.writer = writer
        self.values: dict[fx.Node, Value] = {}
        calls = Counter(id(modules[str(n.target)]) for n in trace.nodes if n.op == "call_module")
        self.folded = {n.args[0]: n for n in trace.nodes if self._folds(n, calls)}
        self.folded_norms = set(self.folded.values())

    def run(self, graph_input: Value) -> onnx.ModelProto:
        steps = {
            "call_module": self._module,
            "call_function": self._call,
            "call_method": self._call,
        }
        placeholders = 0
        for node in self.trace.nodes:
            self.writer.scope = _scope_of(node)
            if node.op == "placeholder":
                placeholders += 1
                self.values[node] = graph_input
            elif node.op == "output":
                break
            elif node.op in steps:
                self.values[node] = steps[node.op](node)
            else:
                self._refuse(f"a parameter used outside its module ({node.target})")
        if placeholders != 1:
            self._refuse(f"a network with {placeholders} inputs")
        return self.writer.model(graph_input, self._value(node.args[0]))

    def _folds(self, node: fx.Node, calls: Counter[int]) -> bool:
        """Whether the node is a batch norm that can go into the convolution before it."""
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
            return False
        norm, conv = self.modules[str(node.target)], self.modules[str(before.target)]
        return (
            type(norm) is nn.BatchNorm2d
            and type(conv) is nn.Conv2d
            and norm.track_running_stats
            and len(before.users) == 1
            # A shared module keeps its weights in one place, as in the exporter's graph.
            and calls[id(norm)] == calls[id(conv)] == 1
        )

    def _module(self, node: fx.Node) -> Value:
        module = self.modules[str(node.target)]
        if len(node.args) != 1 or node.kwargs:
            self._refuse(f"{type(module).__name__} with other arguments than its input")
        if module._forward_hooks or module._forward_pre_hooks:
            self._refuse(f"{type(module).__name__} with a forward hook")
        x = self._value(node.args[0])
        if node in self.folded_norms:
            return x
        if node in self.folded:
            norm = cast("nn.BatchNorm2d", self.modules[str(self.folded[node].target)])
            conv = cast("nn.Conv2d", module)
            return convolution(self.writer, conv, x, *folded_batch_norm(conv, norm, self.writer.scope))
        return self._apply(node, module, x)

    def _apply(self, node: fx.Node, module: nn.Module, x: Value) -> Value:
        rule = _rule_of(module)
        if rule is None:
            self._refuse(type(module).__name__)
        if getattr(module, "inplace", False):
            self._require_private_input(node)
        return rule(self.writer, module, x)

    def _call(self, node: fx.Node) -> Value:
        target = node.target
        if target in _IN_PLACE:
            self._require_private_input(node)
        if target in _ARITHMETIC:
            return self._arithmetic(node, _ARITHMETIC[target])
        if target in _MEANS:
            return self._mean(node)
        if target not in _CALLS:
            self._refuse(f"a call of {getattr(target, '__name__', target)}")
        try:
            module = _CALLS[target](*node.args[1:], **node.kwargs)
        except TypeError as error:
            raise UnsupportedModuleError(self.writer.scope, f"a call: {error}") from error
        return self._apply(node, module, self._value(node.args[0]))

    def _arithmetic(self, node: fx.Node, op_type: str) -> Value:
        if len(node.args) != 2 or node.kwargs:
            self._refuse(f"{op_type} with other arguments than two operands")
        operands = [self._operand(argument) for argument in node.args]
        shapes = [operand.shape for operand in operands if isinstance(operand, Value)]
        if len({len(shape) for shape in shapes}) != 1:
            self._refuse(f"{op_type} of tensors of different rank")
        try:
            shape = np.broadcast_shapes(*shapes)
        except ValueError:
            self._refuse(f"{op_type} of the shapes {shapes}")
        return self.writer.node(op_type, *operands, shape=shape)

    def _operand(self, argument: Any) -> Value | str:
        if isinstance(argument, int | float) and not isinstance(argument, bool):
            return self.writer.scalar(argument)
        return self._value(argument)

    def _mean(self, node: fx.Node) -> Value:
        given = dict(zip(("input", "dim", "keepdim"), node.args, strict=False)) | dict(node.kwargs)
        x, keepdim = self._value(given.pop("input", None)), given.pop("keepdim", False)
        dims = given.pop("dim", None)
        axes = {dim % 4 for dim in dims} if isinstance(dims, list | tuple) else set()
        if given or axes != {2, 3} or len(x.shape) != 3:
            self._refuse("a mean that is not over height and width")
        pooled = self.writer.node("GlobalAveragePool", x, shape=(x.shape[0], 1, 1))
        return pooled if keepdim else self.writer.node("Flatten", pooled, shape=x.shape[:1], axis=1)

    def _value(self, argument: Any) -> Value:
        if not isinstance(argument, fx.Node):
            self._refuse(f"{type(argument).__name__} where one tensor is needed")
        return self.values[argument]

    def _require_private_input(self, node: fx.Node) -> None:
        """Refuse work in place on a tensor that something else reads too."""
        source = node.args[0]
        while isinstance(source, fx.Node):
            if len(source.users) > 1:
                self._refuse("work in place on a tensor that is used again")
            if not self._aliases(source):
                return
            source = source.args[0]

    def _aliases(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return isinstance(self.modules[str(node.target)], _ALIASING_MODULES)
        return node.target in _ALIASING_CALLS

    def _refuse(self, what: str) -> NoReturn:
        raise UnsupportedModuleError(self.writer.scope, what)


def _scope_of(node: fx.Node) -> str:
    """Path of the module in whose `forward` the node was traced; a called module is its own."""
    if node.op == "call_module":
        return str(node.target)
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""
