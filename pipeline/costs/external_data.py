"""An ONNX file with the weights that lie in other files."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import onnx

from export.onnx_file import all_tensors
from latency_models.errors import InvalidModelError
from latency_models.graph.graph_cost import external_length
from latency_models.graph.model_file import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST_BYTES = 2**31 - 1  # of one protobuf


def whole_model(path: Path) -> tuple[onnx.ModelProto, frozenset[Path]]:
    """The model with all its weights in it, and the other files that they came from.

    Raises:
        InvalidModelError: no model; a file that it needs is missing, too short, a link or outside of its folder; or the
            whole is larger than one ONNX file can be.
    """
    model = parse(path)
    outside = [tensor for tensor in all_tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]
    files = frozenset(_checked(path, tensor) for tensor in outside)
    size = model.ByteSize() + sum(_stretch(tensor)[1] for tensor in outside)
    if size > _LARGEST_BYTES:
        raise InvalidModelError(str(path), "with its weights it is larger than the 2 GB that one ONNX file can be")
    try:
        for tensor in outside:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        names = ", ".join(sorted(map(str, files)))
        raise InvalidModelError(str(path), f"its weights can't be read from {names}") from error
    return model, files


def _checked(path: Path, tensor: onnx.TensorProto) -> Path:
    """The file that a tensor lies in, which is there and long enough."""
    location = dict(_entries(tensor)).get("location", "")
    if _leaves_folder(location):
        raise InvalidModelError(
            str(path), f"its weights are said to be in {location!r}, which is no file below its folder"
        )
    file = path.parent / location
    if not file.is_file():
        raise InvalidModelError(str(path), f"its weights are in another file, {file}, which is missing")
    if file.is_symlink():
        raise InvalidModelError(
            str(path), f"its weights are in another file, {file}, which is a symbolic link; put the file itself there"
        )
    try:
        offset, length = _stretch(tensor)
    except ValueError as error:
        raise InvalidModelError(
            str(path), f"its weights are in another file, {file}; where, isn't said ({error})"
        ) from error
    if file.stat().st_size < offset + length:
        found = f"{file.stat().st_size:,} bytes of at least {offset + length:,}"
        raise InvalidModelError(str(path), f"its weights are in another file, {file}, which is truncated: {found}")
    return file


def _leaves_folder(location: str) -> bool:
    kinds = (PurePosixPath(location), PureWindowsPath(location))
    return not location or any(kind.is_absolute() or ".." in kind.parts for kind in kinds)


def _stretch(tensor: onnx.TensorProto) -> tuple[int, int]:
    """Where a tensor begins in its file, and its length in bytes.

    Raises:
        ValueError: what is said of them are no numbers.
    """
    return int(dict(_entries(tensor)).get("offset", "0")), external_length(tensor)


def _entries(tensor: onnx.TensorProto) -> Iterator[tuple[str, str]]:
    return ((entry.key, entry.value) for entry in tensor.external_data)
