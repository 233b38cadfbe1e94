"""Forms in which ONNX Runtime's optimisations compute something else than the graph says, written so that they don't.

- A Pad of zeros before a pool is merged into the pool's own padding. That is lower than any value, so that a maximum of
  negative values is no longer 0; an average may not count it; and a pool whose padding then reaches its window's size
  can't even be loaded.
- Log(Sigmoid(x)), as torch's exporter writes LogSigmoid, is -inf from about -104 on in any runtime.

What isn't known here is found by `export.agreement`. No torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import helper, numpy_helper

from export import barriers
from export.onnx_file import DEFAULT_DOMAINS, all_graphs, attributes_of, copied, value_names

if TYPE_CHECKING:
    from collections.abc import Iterator

_POOLS = frozenset({"MaxPool", "AveragePool"})
_NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Abs", "Softplus", "Softmax", "Exp", "Sqrt"})


def with_exact_forms(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with these forms rewritten in its main graph; the same object where it has none of them."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    pools = {node.output[0] for node in _padded_pools(graph, makers)}
    logs = {node.output[0] for node in _logs_of_sigmoids(graph, makers)}
    if not pools and not logs:
        return model
    copy = copied(model)
    taken = value_names(copy.graph)
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        name = node.output[0] if node.output else ""
        if name in pools:
            nodes += _apart(node, taken)
        elif name in logs:
            nodes += _stable_log(node, makers[node.input[0]].input[0], taken)
        else:
            nodes.append(node)
    nodes = [copied(node) for node in _needed(nodes, copy.graph)]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _padded_pools(graph: onnx.GraphProto, makers: dict[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type not in _POOLS or node.domain not in DEFAULT_DOMAINS:
            continue
        before = makers.get(node.input[0])
        if before is not None and before.op_type == "Cast":
            before = makers.get(before.input[0])
        if before is None or before.op_type != "Pad":
            continue
        if not _merges_exactly(node, before, makers.get(before.input[0]), stored):
            yield node


def _merges_exactly(
    pool: onnx.NodeProto, pad: onnx.NodeProto, source: onnx.NodeProto | None, stored: dict[str, onnx.TensorProto]
) -> bool:
    """Whether the runtime may merge the pad: a small one, counted by an average, or around values never negative."""
    options = attributes_of(pool)
    counted = pool.op_type == "AveragePool" and options.get("count_include_pad")
    hidden = pool.op_type == "MaxPool" and source is not None and source.op_type in _NEVER_NEGATIVE
    if options.get("ceil_mode") or not (counted or hidden):
        return False
    amounts = attributes_of(pad).get("pads")
    if amounts is None and len(pad.input) > 1 and pad.input[1] in stored:
        amounts = numpy_helper.to_array(stored[pad.input[1]]).tolist()
    kernel = options["kernel_shape"]
    rank = len(kernel)
    own = options.get("pads", [0] * 2 * rank)
    if amounts is None or len(amounts) != 2 * (rank + 2):
        return False
    added = [*amounts[2 : 2 + rank], *amounts[4 + rank :]]
    return all(each + more < size for each, more, size in zip(own, added, [*kernel, *kernel], strict=True))


def _apart(pool: onnx.NodeProto, taken: set[str]) -> list[onnx.NodeProto]:
    """A pool that is kept apart from the pad before it."""
    before, apart = pool.input[0], _fresh(f"{pool.input[0]}_apart", taken)
    pool.input[0] = apart
    return [barriers.barrier(before, apart), pool]


def _logs_of_sigmoids(graph: onnx.GraphProto, makers: dict[str, onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        sigmoid = makers.get(node.input[0]) if node.op_type == "Log" else None
        if sigmoid is None or sigmoid.op_type != "Sigmoid" or {node.domain, sigmoid.domain} - DEFAULT_DOMAINS:
            continue
        source = makers.get(sigmoid.input[0])
        if source is None or source.op_type not in _NEVER_NEGATIVE:  # log σ(|x|) is a stable softplus's own
            yield node


def _stable_log(node: onnx.NodeProto, x: str, taken: set[str]) -> list[onnx.NodeProto]:
    """Nodes for log σ(x) = log σ(|x|) - relu(-x), which is exact for any x."""
    y, name = node.output[0], node.name or node.output[0]
    size, gate, log, less, low = (_fresh(f"{y}_{part}", taken) for part in ("size", "gate", "log", "less", "low"))
    steps = [("Abs", [x], size), ("Sigmoid", [size], gate), ("Log", [gate], log), ("Neg", [x], less)]
    steps += [("Relu", [less], low), ("Sub", [log, low], y)]
    nodes = [helper.make_node(op, inputs, [output], name=f"{name}/{op}") for op, inputs, output in steps]
    for each in nodes:
        each.metadata_props.extend(node.metadata_props)
    return nodes


def _needed(nodes: list[onnx.NodeProto], graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes without sigmoids that nobody reads any more."""
    read = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
    for part in all_graphs(graph):
        if part is not graph:
            read |= {name for node in part.node for name in node.input} | {value.name for value in part.output}
    return [node for node in nodes if node.op_type != "Sigmoid" or node.output[0] in read]


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name
