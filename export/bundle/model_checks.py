"""Checks of a model file against the manifest: form, operators, opset, weights in other files; no torch."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import onnx

from export import onnx_file
from export.bundle.manifest import file_record, section, stays_inside
from export.bundle.regular_file import NotRegularError, open_regular
from export.checks import Check
from export.errors import InvalidFileError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def check_form(path: Path, manifest: Mapping[str, Any], most_bytes: int | None = None) -> tuple[list[Check], bool]:
    """Check a model file; the flag says whether it may be loaded.

    Args:
        path: in a bundle whose files have their recorded hashes.
        manifest: of the bundle.
        most_bytes: that the model and its external data may have to be loaded; any number where None.
    """
    size = path.stat().st_size
    if most_bytes is not None and size > most_bytes:
        return [_too_large(size, most_bytes)], False
    try:
        model = onnx_file.read_model(path)
    except InvalidFileError as error:
        return [Check("model", False, error.reason)], False
    external, outside = _check_external_data(model, path.parent, manifest)
    recorded = section(manifest, "models").get(path.name)
    checks = [_check_operators(model, recorded), _check_opset(model, manifest), external]
    del model  # the checker and the runtime read the file themselves, and one copy at a time is enough
    if external.ok is not True:
        skipped = Check("model", None, "skipped: its external data must not be read")
        return [skipped, *checks], False
    if most_bytes is not None and size + outside > most_bytes:
        return [_too_large(size + outside, most_bytes), *checks], False
    try:
        onnx_file.check_model(path)
        onnx_file.open_session(path)
    except InvalidFileError as error:
        return [Check("model", False, error.reason), *checks], False
    return [Check("model", True, "accepted by the ONNX checker and ONNX Runtime"), *checks], True


def _too_large(size: int, most_bytes: int) -> Check:
    detail = (
        f"skipped: it has {size / 1e6:,.0f} MB, and within this memory {most_bytes / 1e6:,.0f} MB can be loaded; "
        "`hwnas verify --memory-mb` allows more"
    )
    return Check("model", None, detail)


def operators_of(model: onnx.ModelProto) -> dict[str, int]:
    """Count a model's nodes by operator, nested graphs included; names of other domains have the domain in front."""
    nodes = (node for graph in onnx_file.all_graphs(model.graph) for node in graph.node)
    own = onnx_file.DEFAULT_DOMAINS
    found = Counter(node.op_type if node.domain in own else f"{node.domain}:{node.op_type}" for node in nodes)
    return dict(sorted(found.items()))


def model_record(model: onnx.ModelProto) -> dict[str, Any]:
    """A manifest's record of a model: opset, operators, and each input and output with its type and shape."""
    return {
        "opset": onnx_file.opset_of(model),
        "operators": operators_of(model),
        "inputs": [_value_record(value) for value in model.graph.input],
        "outputs": [_value_record(value) for value in model.graph.output],
    }


def _value_record(value: onnx.ValueInfoProto) -> dict[str, Any]:
    kind = value.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in kind.shape.dim]
    return {"name": value.name, "type": onnx.TensorProto.DataType.Name(kind.elem_type).lower(), "shape": shape}


def _check_operators(model: onnx.ModelProto, recorded: Any) -> Check:
    """Check that all operators are ONNX's own, and as many of each as the manifest counts."""
    found = operators_of(model)
    foreign = {name for name in found if ":" in name}
    foreign |= {f"{function.domain}:{function.name} (a function)" for function in model.functions}
    if foreign:
        return Check("operators", False, f"outside ONNX's own domain: {', '.join(sorted(foreign))}")
    detail = f"{sum(found.values())} nodes, all of ONNX's own domain"
    if recorded is None:
        return Check("operators", True, detail)
    wanted = recorded.get("operators") if isinstance(recorded, dict) else None
    if not isinstance(wanted, dict):
        return Check("operators", False, "the manifest's record of this model has no `operators`")
    if found != wanted:
        names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        differing = ", ".join(f"{name} {found.get(name, 0)} for {wanted.get(name, 0)}" for name in names)
        return Check("operators", False, f"others than the manifest counts: {differing}")
    return Check("operators", True, f"{detail}, as recorded")


def _check_opset(model: onnx.ModelProto, manifest: Mapping[str, Any]) -> Check:
    found, recorded = onnx_file.opset_of(model), manifest.get("opset")
    if recorded is None:
        return Check("opset", None, f"skipped: the manifest records none (the model has {found})")
    return Check("opset", found == recorded, f"the model has {found}, the manifest {recorded}")


def _check_external_data(model: onnx.ModelProto, directory: Path, manifest: Mapping[str, Any]) -> tuple[Check, int]:
    """Check that weights in other files lie in the bundle and are listed in the manifest; also their size in bytes."""
    locations = {
        entry.value
        for tensor in onnx_file.all_tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    listed, size = section(manifest, "files"), 0
    for location in sorted(locations):
        if not stays_inside(location):
            return Check("external_data", False, f"{location!r} points outside the bundle"), size
        if location not in listed:
            return Check("external_data", False, f"{location!r} is not one of the bundle's recorded files"), size
        size += (directory / location).stat().st_size
    detail = f"in {', '.join(sorted(locations))}" if locations else "none: weights are embedded"
    return Check("external_data", True, detail), size


def form_problem(directory: Path, name: str, record: Mapping[str, Any]) -> str | None:
    """The reason why a file of the bundle can't be the recorded one, without reading it; None where it may be."""
    if not stays_inside(name):
        return f"{name!r} points outside the bundle"
    try:
        with open_regular(directory, name) as file:
            size = os.fstat(file.fileno()).st_size
    except NotRegularError as error:
        return f"{name} {error}"
    except FileNotFoundError:
        return f"{name} is missing"
    except (OSError, ValueError) as error:
        return f"{name} can't be read ({error})"
    if record["bytes"] != size:
        return f"{name} was changed: it has {size} bytes, not the recorded {record['bytes']}"
    return None


def hash_problem(directory: Path, name: str, record: Mapping[str, Any]) -> str | None:
    """The reason why a file of the bundle isn't the recorded one, by its hash; None where it is."""
    try:
        found = file_record(directory / name)
    except OSError as error:
        return f"{name} can't be read ({error})"
    return (
        None
        if found == {"sha256": record["sha256"], "bytes": record["bytes"]}
        else (f"{name} was changed: its SHA-256 is not the recorded one")
    )
