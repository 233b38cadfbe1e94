"""Does the session that runs a float file compute what its graph says? If not: where, and how to write it right.

The graph's own word is a session with optimisations off. Both run on inputs that show what real ones may hide: zeros,
negative and large values. Where they differ, barriers between the nodes tell which neighbours the runtime must not
join: with barriers everywhere nothing is joined, and halving the set again and again leaves the ones that matter. No
torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto

from export import barriers, onnx_file
from export.errors import ExportError, InvalidFileError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy.typing as npt

    Array = npt.NDArray[Any]

_LARGE = 100.0
_TINY = 2.0**-20
"""Relative change of inputs that shows how much of a difference is rounding."""
_AMPLIFIED = 8.0
_TOLERANCE = 1e-4
_LEAST = 1e-6
_AT_MOST = 4
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})
_ROUNDS = 6


@dataclass(frozen=True)
class Probe:
    """Inputs for one run; `kind` is for messages."""

    kind: str
    inputs: Array


@dataclass(frozen=True)
class Difference:
    """Two runs of one thing that should be equal: on which inputs, by how much, and by how much they may."""

    kind: str
    largest: float
    tolerance: float

    def __str__(self) -> str:
        return f"on {self.kind} inputs by {self.largest:.3g} (tolerance {self.tolerance:.3g})"


def probes(inputs: Array) -> list[Probe]:
    """Inputs that show differences: some of the given ones, zeros, normal ones, negative and large ones.

    Args:
        inputs: (N, …) as a network takes them; of other types than floats only these themselves are taken.
    """
    given = inputs[:_AT_MOST]
    found = [Probe("the given", given)]
    if given.dtype.kind != "f" or not given.size:
        return found
    normal = np.random.default_rng(0).standard_normal(given.shape).astype(given.dtype)
    ends = (np.abs(normal) * _LARGE).astype(given.dtype)
    return [
        *found,
        Probe("all-zero", np.zeros_like(given)),
        Probe("normal", normal),
        Probe("negative", -np.abs(normal)),
        Probe("large", (normal * _LARGE).astype(given.dtype)),
        Probe("large negative", -ends),
    ]


def nudged(inputs: Array) -> Array:
    """The inputs, each changed by about its last digits but three."""
    signs = np.random.default_rng(1).choice([-1.0, 1.0], inputs.shape)
    return np.asarray(inputs * (1 + _TINY * signs), inputs.dtype)


def difference(kind: str, found: Array, wanted: Array, again: Array | None) -> Difference | None:
    """Distance of outputs from the wanted ones, where that is more than rounding makes of it.

    Args:
        kind: of the inputs.
        found: the outputs.
        wanted: what they should be; where it isn't finite, anything will do.
        again: what they should be for inputs that are a little different, which shows what rounding does.
    """
    if found.shape != wanted.shape:
        return Difference(kind, np.inf, 0.0)
    finite = np.isfinite(wanted)
    if not finite.any():
        return None
    size = float(np.abs(wanted[finite]).max())
    noise = 0.0
    if again is not None and again.shape == wanted.shape:
        moved = np.abs(again[finite].astype(np.float64) - wanted[finite])
        noise = float(np.nan_to_num(moved, nan=np.inf, posinf=np.inf).max())
    tolerance = max(_LEAST, _TOLERANCE * size, _AMPLIFIED * noise)
    off = np.abs(found[finite].astype(np.float64) - wanted[finite])
    largest = float(np.nan_to_num(off, nan=np.inf, posinf=np.inf).max())
    return Difference(kind, largest, tolerance) if not largest <= tolerance else None


def disagreement(model: bytes, inputs: Sequence[Probe]) -> Difference | None:
    """The largest difference between the deployed session and the graph's own word; None where they agree.

    None also on inputs on which the model can't be run with optimisations off, so that there is no word.
    """
    try:
        graph = onnx_file.open_session(model, optimised=False)
    except InvalidFileError:
        return None
    name = graph.get_inputs()[0].name
    try:
        deployed = onnx_file.open_session(model)
    except InvalidFileError:
        return Difference("any", np.inf, 0.0)
    found: list[Difference] = []
    for probe in inputs:
        feeds, near = {name: probe.inputs}, None
        try:
            wanted = _run(graph, feeds)
            if probe.inputs.dtype.kind == "f":
                near = _run(graph, {name: nudged(probe.inputs)})
        except InvalidFileError:
            continue
        try:
            made = _run(deployed, feeds)
        except InvalidFileError:
            return Difference(probe.kind, np.inf, 0.0)
        for at, (one, other) in enumerate(zip(made, wanted, strict=True)):
            if one.dtype.kind == "f" and (each := difference(probe.kind, one, other, near[at] if near else None)):
                found.append(each)
    return max(found, key=lambda each: each.largest / (each.tolerance or 1.0), default=None)


def _run(session: Any, feeds: dict[str, Array]) -> list[Array]:
    try:
        return list(session.run(None, feeds))
    except onnx_file.RUN_ERRORS as error:
        raise InvalidFileError("the model", str(error)) from error


def kept_apart(model: onnx.ModelProto, inputs: Sequence[Probe]) -> tuple[onnx.ModelProto, list[str]]:
    """The model with barriers where the runtime would otherwise compute something else, and these places in words.

    The model itself, and no places, where the deployed session agrees with its graph.

    Args:
        model: one input, embedded weights.
        inputs: to run it on.

    Raises:
        ExportError: a node alone is computed otherwise than ONNX says: barriers everywhere don't help.
    """
    seen = disagreement(model.SerializeToString(), inputs)
    if seen is None:
        return model, []
    values = _joints(model)

    def helps(names: Collection[str]) -> bool:
        return disagreement(_with_barriers(model, names).SerializeToString(), inputs) is None

    if not helps(values):
        raise ExportError(
            f"ONNX Runtime computes something else than the file says, {seen}, also node by node"
            f"{'' if seen.tolerance else ', or refuses to load it'}"
        )
    needed: list[str] = []
    for _ in range(_ROUNDS):
        good = len(values)  # with barriers behind the first `good` values it is right, behind the first `bad` it isn't
        bad = -1
        while good - bad > 1:
            middle = (good + bad) // 2
            if helps([*values[:middle], *needed]):
                good = middle
            else:
                bad = middle
        if good == 0:
            break
        needed.append(values[good - 1])
    else:
        needed = values
    return _with_barriers(model, needed), [_place(model, name) for name in needed]


def _joints(model: onnx.ModelProto) -> list[str]:
    """Float values between nodes of the main graph, in order of execution."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except (RuntimeError, ValueError, onnx.shape_inference.InferenceError):
        inferred = model
    kinds = {
        value.name: value.type.tensor_type.elem_type for value in (*inferred.graph.value_info, *model.graph.output)
    }
    read = {name for node in model.graph.node for name in node.input}
    made = [name for node in model.graph.node for name in node.output if name in read]
    return [name for name in made if kinds.get(name, TensorProto.FLOAT) in _FLOATS]


def _with_barriers(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """A copy with a barrier behind each of these values."""
    copy, behind = onnx_file.copied(model), set(names)
    taken = onnx_file.value_names(copy.graph)
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        nodes.append(node)
        for at, name in enumerate(node.output):
            if name in behind:
                before = f"{name}_before"
                while before in taken:
                    before += "_"
                taken.add(before)
                node.output[at] = before
                nodes.append(barriers.barrier(before, name))
    kept = [onnx_file.copied(node) for node in nodes]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy


def _place(model: onnx.ModelProto, name: str) -> str:
    """The neighbours that are kept apart, in words."""
    maker = next(node for node in model.graph.node if name in node.output)
    readers = [node for node in model.graph.node if name in node.input]
    return f"{_named(maker)} and {', '.join(map(_named, readers))}"


def _named(node: onnx.NodeProto) -> str:
    return f"{node.op_type} ({node.name})" if node.name and node.name != node.op_type else str(node.op_type)
