"""Shapes of a graph's values as ONNX Runtime computes them: the graph is run once, and each value asked for its shape.

ONNX's own inference differs from the runtime (pools with ceil_mode, SAME padding with dilations, Resize by scales) and
knows nothing of shapes that depend on values. Here every value gets a Shape node; values live no longer for it, so that
the run takes hardly more memory than the model's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, inliner

from latency_models import timer
from latency_models.errors import InvalidModelError
from latency_models.graph.attributes import SEQUENCE_LENGTHS, names_read, subgraphs
from latency_models.graph.branches import take_branches
from latency_models.graph.element_types import element_type
from latency_models.graph.shapes import Shapes, constants_of, one_line, real_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    Feed = Mapping[str, np.ndarray]

_PREFIX = "hwnas/shape of/"


def observe(model: onnx.ModelProto, feed: Feed, *, label: str = "model", folder: Path | None = None) -> Shapes:
    """The graph that runs with these inputs, and the shapes of its values in such a run on this machine's CPU.

    Functions of the model's own are written out, and an If gives way to the branch that it takes.

    Args:
        model: its opset and its own functions stay as they are.
        feed: an array for each input.
        label: of the model in messages.
        folder: that external data lies in.

    Raises:
        InvalidModelError: no loadable model, or one that can't be run with these inputs.
    """
    proto, decided_late = _written_out(model, feed, label, folder)
    try:
        constants = constants_of(proto, decided_late)
        names = [name for node in proto.graph.node for name in node.output if name and name not in constants]
        lengths = _sequence_lengths(proto.graph.node)
        dims, numbers = _shapes(proto, names, lengths, feed, folder)
        fixed = [name for node in proto.graph.node for name in node.output if name in constants]
        if fixed:
            made = [node for node in proto.graph.node if constants.issuperset(filter(None, node.output))]
            dims |= _shapes(proto, fixed, [], feed, folder, made)[0]
    except refusals() as error:
        raise InvalidModelError(label, f"it can't be run with these inputs: {one_line(error)}") from error
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    dims |= {name: tuple(tensor.dims) for name, tensor in stored.items()}
    dims |= {sparse.values.name: tuple(sparse.dims) for sparse in proto.graph.sparse_initializer}
    dims |= {name: tuple(array.shape) for name, array in feed.items()}
    types = {info.name: info.type.tensor_type.elem_type for info in real_inputs(proto.graph)}
    return Shapes(
        nodes=tuple(proto.graph.node),
        inputs=tuple(types),
        outputs=tuple(info.name for info in proto.graph.output),
        constants=constants,
        dims=dims,
        elem_types=types | {name: tensor.data_type for name, tensor in stored.items()},
        values=numbers,
    )


def written_out(
    model: onnx.ModelProto, feed: Feed, *, label: str = "model", folder: Path | None = None
) -> onnx.ModelProto:
    """The model without functions of its own, and with the branch that each If takes in its place.

    Args and errors: as `observe`.
    """
    return _written_out(model, feed, label, folder)[0]


def _written_out(
    model: onnx.ModelProto, feed: Feed, label: str, folder: Path | None
) -> tuple[onnx.ModelProto, frozenset[str]]:
    """The model as `written_out`, and the results of its Ifs that inputs decide."""
    try:
        proto = inliner.inline_local_functions(_with_needed_imports(model)) if model.functions else model
        return take_branches(proto, lambda each, names: _values(each, names, feed, folder))
    except refusals() as error:
        raise InvalidModelError(label, f"it can't be run with these inputs: {one_line(error)}") from error


def _with_needed_imports(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with functions that import only the domains of their nodes: others' versions hinder the inliner."""
    light = onnx.ModelProto()
    light.CopyFrom(model)
    for function in light.functions:
        used = {node.domain for node in _all_nodes(function.node)}
        needed = [entry for entry in function.opset_import if entry.domain in used or entry.domain in ("", "ai.onnx")]
        del function.opset_import[:]
        function.opset_import.extend(needed)
    return light


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from _all_nodes(graph.node)


def refusals() -> tuple[type[Exception], ...]:
    """The errors with which ONNX Runtime refuses a model or its inputs."""
    return (ValueError, RuntimeError, *timer.runtime_errors())


def plain_session(content: bytes, folder: Path | None) -> Any:
    """A silent session of one thread on the CPU, without optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = timer.SILENT
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    return onnxruntime.InferenceSession(content, options, providers=[timer.CPU_PROVIDER])


def tensor_types(model: onnx.ModelProto, names: Iterable[str], folder: Path | None = None) -> dict[str, int]:
    """ONNX's element types of those values that are tensors, as ONNX Runtime infers them; nothing is run."""
    content = _asking(model, [onnx.ValueInfoProto(name=name) for name in names])
    found = plain_session(content, folder).get_outputs()
    return {each.name: kind for each in found if (kind := element_type(each.type))}


def _shapes(
    model: onnx.ModelProto,
    names: Sequence[str],
    lengths: Sequence[str],
    feed: Feed,
    folder: Path | None,
    nodes: Sequence[onnx.NodeProto] | None = None,
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Shapes of the values `names`, as far as they are tensors, and the numbers in the values `lengths`."""
    unique = list(dict.fromkeys(names))
    if not unique and not lengths:
        return {}, {}
    try:
        session = plain_session(_probing(model, unique, lengths, nodes), folder)
    except refusals():
        # A sequence or an optional has no shape; of narrow types ONNX Runtime's Shape knows nothing at some opsets.
        kinds = tensor_types(model, unique, folder)
        unique = [name for name, kind in kinds.items() if kind <= onnx.TensorProto.BFLOAT16]
        if not unique and not lengths:
            return {}, {}
        session = plain_session(_probing(model, unique, lengths, nodes), folder)
    asked = [*(_PREFIX + name for name in unique), *lengths]
    found = _run(session, asked, feed)
    shapes = {name: tuple(map(int, found[_PREFIX + name])) for name in unique}
    return shapes, {name: tuple(map(int, np.ravel(found[name]))) for name in lengths}


def _probing(
    model: onnx.ModelProto, names: Sequence[str], values: Sequence[str], nodes: Sequence[onnx.NodeProto] | None
) -> bytes:
    """The model, serialised, with the shapes of `names` and with `values` as its only outputs."""
    probes = [helper.make_node("Shape", [name], [_PREFIX + name]) for name in names]
    shapes = [helper.make_tensor_value_info(_PREFIX + name, onnx.TensorProto.INT64, None) for name in names]
    outputs = [*shapes, *(onnx.ValueInfoProto(name=name) for name in values)]
    return _asking(model, outputs, [*(model.graph.node if nodes is None else nodes), *probes])


def _asking(
    model: onnx.ModelProto, outputs: Sequence[onnx.ValueInfoProto], nodes: Sequence[onnx.NodeProto] | None = None
) -> bytes:
    """The model, serialised, with other outputs, and perhaps other nodes; the model's weights are copied once alone."""
    graph = model.graph
    old_outputs, old_infos, old_nodes = list(graph.output), list(graph.value_info), list(graph.node)
    try:
        del graph.output[:], graph.value_info[:]
        graph.output.extend(outputs)
        if nodes is not None:
            new_nodes = list(nodes)
            del graph.node[:]
            graph.node.extend(new_nodes)
        content: bytes = model.SerializeToString()
    finally:
        del graph.output[:], graph.node[:]
        graph.output.extend(old_outputs)
        graph.value_info.extend(old_infos)
        graph.node.extend(old_nodes)
    return content


def _values(model: onnx.ModelProto, names: Sequence[str], feed: Feed, folder: Path | None) -> dict[str, np.ndarray]:
    """The arrays of named values; those of inputs and initializers are read where they are."""
    found: dict[str, np.ndarray] = {name: feed[name] for name in names if name in feed}
    found |= {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name in names}
    wanted = [name for name in names if name not in found]
    if wanted:
        # What only other results need isn't run: another branch may not fit these inputs.
        needed = _ancestors(model.graph.node, wanted)
        content = _asking(model, [onnx.ValueInfoProto(name=name) for name in wanted], needed)
        found |= _run(plain_session(content, folder), wanted, feed)
    return found


def _run(session: Any, names: Sequence[str], feed: Feed) -> dict[str, np.ndarray]:
    import onnxruntime

    silent = onnxruntime.RunOptions()
    silent.log_severity_level = timer.SILENT
    declared = {each.name for each in session.get_inputs()}
    arrays = session.run(list(names), {name: feed[name] for name in feed if name in declared}, silent)
    return dict(zip(names, arrays, strict=True))


def _ancestors(nodes: Sequence[onnx.NodeProto], names: Iterable[str]) -> list[onnx.NodeProto]:
    wanted = set(names)
    found = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            found.append(node)
            wanted.update(names_read(node))
    return found[::-1]


def _sequence_lengths(nodes: Iterable[onnx.NodeProto]) -> list[str]:
    """Names of the inputs that say how long the sequences of a recurrent node are."""
    names = []
    for node in nodes:
        at = SEQUENCE_LENGTHS.get(node.op_type)
        if at is not None and len(node.input) > at and node.input[at]:
            names.append(node.input[at])
    return list(dict.fromkeys(names))
