"""The origins of the kernels that ran: nodes of the file, modules, activations.

ONNX Runtime drops the nodes' metadata, fuses nodes and renames values. What survives is the flow of data: the graph
that it ran is saved beside the profile, its values mostly keep their names, and a blocked kernel has the name of the
value that it stands for. So a kernel covers the nodes of the file between the values it reads and those it makes.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnx import defs, inliner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import onnx

    Recogniser = Callable[[onnx.ModelProto], Mapping[str, str]]
    """From a model to its activations: the name of a node's output → the activation that the node is part of."""

_HEAVY = ("Conv", "ConvTranspose", "ConvInteger", "Gemm", "MatMul", "MatMulInteger", "LSTM", "GRU", "Attention")
# Copies into another layout or type: those out of the fast one count to their reader, the others to their writer.
_FOR_READER = frozenset({"ReorderOutput", "DequantizeLinear"})
_FOR_WRITER = frozenset({"ReorderInput", "QuantizeLinear"})
_LAYOUT_NAME = re.compile(r"(_bn_nchwc|_mul_nchwc|_nchwc)(_token_\d+)?$")
_TOKEN = re.compile(r"_token_\d+$")
_SCOPES, _NAMESPACE = "pkg.torch.onnx.name_scopes", "namespace"
_TAKE_ACTIVATIONS = frozenset({"Conv", "BatchNormalization", "Add", "Sum"})
_LARGEST_GROUP = 40


@dataclass(frozen=True)
class Origin:
    """The origin of a kernel in the file.

    Attributes:
        node: the name of its main node (a convolution rather than the activation fused into it).
        op_types: the operators of all nodes that it covers, in the file's order.
        module: a dotted path.
        activation: the activation that it computes, "Conv + relu" for one fused into another node, "" for none.
    """

    node: str
    op_types: tuple[str, ...]
    module: str
    activation: str


class Attribution:
    """Finds the origins of the kernels in the graph `optimized` that a runtime made of `model`.

    `origins` are in the order of `optimized`'s nodes; None for an unknown origin.
    """

    def __init__(self, model: onnx.ModelProto, optimized: onnx.ModelProto, recognise: Recogniser) -> None:
        inlined = inliner.inline_local_functions(model) if model.functions else model
        self._file = inlined.graph
        self._ran = optimized.graph
        self._maker = {name: at for at, node in enumerate(self._file.node) for name in node.output if name}
        self._by_name = {node.name: at for at, node in enumerate(self._file.node) if node.name}
        self._ran_maker = {name: at for at, node in enumerate(self._ran.node) for name in node.output if name}
        self._readers: dict[str, list[int]] = defaultdict(list)
        for at, node in enumerate(self._ran.node):
            for name in node.input:
                self._readers[name].append(at)
        named = recognise(inlined)
        self._activation = {at: named[output] for output, at in self._maker.items() if output in named}
        self._constants = _constant_names(self._file)
        self._inputs = {info.name for info in self._file.input}
        self._made = {value for node in self._ran.node for name in node.output if (value := self._original(name))}
        self._covered = [self._cover(node) for node in self._ran.node]
        self._busy: set[int] = set()
        self._found: dict[int, Origin | None] = {}
        self.origins = tuple(self._origin(at) for at in range(len(self._ran.node)))

    def _original(self, name: str) -> str | None:
        """The name in the file of a value of the graph that ran."""
        if name in self._maker or name in self._inputs:
            return name
        if name not in self._ran_maker:
            return None
        node = self._ran.node[self._ran_maker[name]]
        if node.op_type in _FOR_READER | _FOR_WRITER:
            return self._original(node.input[0])
        if node.op_type == "QuickGelu":
            return self._gated(self._original(node.input[0]))
        for pattern in (_LAYOUT_NAME, _TOKEN):
            stripped = pattern.sub("", node.name)
            if stripped in self._maker:
                return self._after_fusion(stripped, node)
            if stripped in self._by_name:  # it runs on another layout, but is itself
                return str(self._file.node[self._by_name[stripped]].output[0])
        return None

    def _gated(self, value: str | None) -> str | None:
        """The file's product x sigmoid(x), which the runtime fuses into a kernel without a name."""
        gates = {n.output[0] for n in self._reading(value or "") if n.op_type == "Sigmoid"}
        products = (n for n in self._reading(value or "") if n.op_type == "Mul" and gates.intersection(n.input))
        return next((n.output[0] for n in products), None)

    def _after_fusion(self, value: str, node: onnx.NodeProto) -> str:
        """The result of a blocked convolution, which keeps its name if a sum or an activation is fused into it."""
        if len(node.input) > 3 and node.input[3]:
            value = next((n.output[0] for n in self._reading(value) if n.op_type in {"Add", "Sum"}), value)
        activation = next((a.s.decode() for a in node.attribute if a.name == "activation"), None)
        if activation is None or self._file.node[self._maker[value]].op_type not in _TAKE_ACTIVATIONS:
            return value
        readers = self._reading(value)
        if activation == "HardSwish" and len(readers) == 2:
            return next((n.output[0] for n in readers if n.op_type == "Mul"), value)
        return next((n.output[0] for n in readers if n.op_type == activation), value)

    def _reading(self, value: str) -> list[onnx.NodeProto]:
        return [node for node in self._file.node if value in node.input]

    def _cover(self, node: onnx.NodeProto) -> tuple[int, ...]:
        """Positions of the file's nodes that a kernel stands for."""
        if node.op_type in {"ReorderInput", "ReorderOutput"}:
            return ()
        targets = [value for name in node.output if name and (value := self._original(name)) in self._maker]
        if not targets:
            named = self._by_name.get(_TOKEN.sub("", node.name))
            return () if named is None else (named,)
        read = {value for name in node.input if (value := self._original(name))}
        stops = (self._made | read).difference(targets)
        covered: set[int] = set()
        pending = [self._maker[value] for value in targets if value is not None]
        while pending:
            at = pending.pop()
            if at not in covered:
                covered.add(at)
                pending += [self._maker[n] for n in self._file.node[at].input if n in self._maker and n not in stops]
        if len(covered) > _LARGEST_GROUP:
            return tuple(self._maker[value] for value in targets if value is not None)
        return tuple(sorted(at for at in covered if self._file.node[at].output[0] not in self._constants))

    def _origin(self, at: int) -> Origin | None:
        if at not in self._found:
            if at in self._busy:
                return None
            self._busy.add(at)
            self._found[at] = self._look_up(at)
        return self._found[at]

    def _look_up(self, at: int) -> Origin | None:
        node = self._ran.node[at]
        readers = [reader for name in node.output for reader in self._readers.get(name, ())]
        writers = [self._ran_maker[name] for name in node.input if name in self._ran_maker]
        if node.op_type in _FOR_READER:
            return self._of_neighbour((*readers, *writers), node.op_type)
        if node.op_type in _FOR_WRITER:
            return self._of_neighbour((*writers, *readers), node.op_type)
        if not self._covered[at]:  # part of an operator that was written out, or a transposition for a layout
            return self._of_neighbour((*readers, *writers), node.op_type)
        return self._described(self._covered[at])

    def _of_neighbour(self, neighbours: Iterable[int], op_type: str) -> Origin | None:
        """The origin of an auxiliary kernel: its neighbour's, but without what was fused there."""
        for neighbour in neighbours:
            if (origin := self._origin(neighbour)) is not None:
                activation = "" if " + " in origin.activation else origin.activation
                return replace(origin, op_types=(op_type,), activation=activation)
        return None

    def _described(self, covered: tuple[int, ...]) -> Origin:
        nodes = [self._file.node[at] for at in covered]
        real = [at for at in covered if self._file.node[at].op_type not in _FOR_READER | _FOR_WRITER] or list(covered)
        heavy = [at for at in real if self._file.node[at].op_type in _HEAVY]
        main = heavy[0] if heavy else real[-1]
        names = list(dict.fromkeys(self._activation[at] for at in real if at in self._activation))
        others = [self._file.node[at].op_type for at in real if at not in self._activation]
        if names and others:
            names.insert(0, self._file.node[main].op_type if main not in self._activation else others[0])
        return Origin(
            node=self._file.node[main].name or self._file.node[main].output[0],
            op_types=tuple(node.op_type for node in nodes),
            module=self._scope(main) or self._by_weight(main) or _plain_name(self._file.node[main]),
            activation=" + ".join(names),
        )

    def _scope(self, at: int) -> str | None:
        """The module of a node by the file's metadata or the node's name."""
        node = self._file.node[at]
        metadata = {entry.key: entry.value for entry in node.metadata_props}
        scopes = _literal(metadata.get(_SCOPES, "")) or [part for part, _ in _namespace(metadata.get(_NAMESPACE, ""))]
        if len(scopes) > 1:
            # A normalisation folded into a convolution leaves its own scope on the result.
            return self._by_weight(at) or scopes[-2] or None
        return _module_of_path(node.name)

    def _by_weight(self, at: int) -> str | None:
        """The module of a node by its weight: `layer1.0.conv1.weight` belongs to `layer1.0.conv1`."""
        names = [name for name in self._file.node[at].input if name.endswith(".weight")]
        return names[0].removesuffix(".weight") if names else None


def _constant_names(graph: onnx.GraphProto) -> set[str]:
    """Names of the values that depend on no input."""
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if constants.issuperset(filter(None, node.input)):
            constants.update(node.output)
    return constants


def _literal(text: str) -> list[str]:
    try:
        found = ast.literal_eval(text) if text else []
    except (ValueError, SyntaxError):
        return []
    return [str(each) for each in found] if isinstance(found, list) else []


def _namespace(text: str) -> list[tuple[str, str]]:
    """Pairs (name, class) of each level of `: Net/layer1: Sequential/…/conv2d: aten.conv2d`."""
    levels = [level.partition(": ") for level in text.split("/")] if text else []
    return [(name.removesuffix(":").strip(), kind.strip()) for name, _, kind in levels]


def _module_of_path(name: str) -> str | None:
    """The module in `/layer1/layer1.0/conv1/Conv` or `layer1.0.conv1/Conv`; None without a path."""
    parts = [part for part in name.partition(";")[0].split("/") if part]
    if len(parts) < 2:
        return None
    while len(parts) > 2 and defs.has(parts[-2]):  # `act/HardSigmoid/Add`, where an operator was written as others
        parts.pop()
    path = ""
    for part in parts[:-1]:
        parent = path.rpartition(".")[2] if path else ""
        if path and (part == path or part.startswith(f"{path}.")):
            path = part
        elif parent and part.startswith(f"{parent}."):
            path = f"{path}.{part.removeprefix(parent + '.')}"
        else:
            path = f"{path}.{part}" if path else part
    return path


def _plain_name(node: onnx.NodeProto) -> str:
    return str(node.name or node.output[0])
