"""External data: the weights of an ONNX model that lie in other files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import onnx

from latency_models.errors import InvalidModelError
from latency_models.graph.model_file import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKED = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}  # bits of types with several in a byte
LARGEST_BYTES = 2**31 - 1
"""A protobuf, and so an ONNX file, can't be larger."""


def load_with_external_data(
    path: Path, *, largest_tensor: int | None = None
) -> tuple[onnx.ModelProto, frozenset[Path]]:
    """Read a model with its external data in it; the second is the set of files that the data lies in.

    Args:
        path: the model's file; its external data must lie in regular files below the same folder.
        largest_tensor: in bytes; the data of larger ones stays outside. By default all of it is read.

    Raises:
        InvalidModelError: no model; a file that it needs is missing, too short, a link or outside of its folder; or
            all together is larger than one ONNX file can be.
    """
    model = parse(path)
    outside = external_tensors(model)
    files = external_files(path, model)
    loaded = [each for each in outside if largest_tensor is None or _byte_range(each)[1] <= largest_tensor]
    if model.ByteSize() + sum(_byte_range(tensor)[1] for tensor in loaded) > LARGEST_BYTES:
        raise InvalidModelError(str(path), "with its weights it is larger than the 2 GB that one ONNX file can be")
    try:
        for tensor in loaded:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        names = ", ".join(sorted(map(str, files)))
        raise InvalidModelError(str(path), f"its weights can't be read from {names}") from error
    return model, files


def parse_whole(model: Path | bytes) -> onnx.ModelProto:
    """Parse a model, whose weights in other files are there and long enough; they aren't read.

    Raises:
        InvalidModelError: as `load_with_external_data`.
    """
    proto = parse(model)
    if not isinstance(model, bytes):
        external_files(model, proto)
    return proto


def openable(model: Path) -> Path | bytes:
    """A model as ONNX Runtime can open it: its path, or its content where the path isn't UTF-8.

    Raises:
        InvalidModelError: as `load_with_external_data`, where the content is needed.
    """
    try:
        str(model).encode()
    except UnicodeEncodeError:
        return bytes(load_with_external_data(model)[0].SerializeToString())
    return model


def external_tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """All tensors whose data lies in other files: initializers, attributes, those of nested graphs and functions."""
    return [tensor for tensor in _tensors(model) if tensor.data_location == onnx.TensorProto.EXTERNAL]


def external_files(path: Path, model: onnx.ModelProto) -> frozenset[Path]:
    """The files beside a model's that its weights lie in.

    Raises:
        InvalidModelError: as `load_with_external_data`.
    """
    return frozenset(_checked(path, tensor) for tensor in external_tensors(model))


def external_bytes(model: onnx.ModelProto) -> int:
    """Bytes of other files that a model's weights take; a part that several tensors share counts once.

    Raises:
        InvalidModelError: where they lie isn't said in numbers.
    """
    parts: dict[str, set[tuple[int, int]]] = {}
    for tensor in external_tensors(model):
        try:
            parts.setdefault(dict(_entries(tensor)).get("location", ""), set()).add(_byte_range(tensor))
        except ValueError as error:
            raise InvalidModelError("model", f"where {tensor.name!r} lies isn't said ({error})") from error
    return sum(_covered(sorted(found)) for found in parts.values())


def _covered(parts: list[tuple[int, int]]) -> int:
    """Bytes that sorted, perhaps overlapping parts of a file cover."""
    total, end = 0, 0
    for offset, length in parts:
        total += max(0, offset + length - max(offset, end))
        end = max(end, offset + length)
    return total


def _tensors(message: Any) -> Iterator[onnx.TensorProto]:
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if isinstance(value, Sequence) else (value,):
                if isinstance(inner, onnx.TensorProto):
                    yield inner
                else:
                    yield from _tensors(inner)


def _checked(path: Path, tensor: onnx.TensorProto) -> Path:
    """The file of a tensor, which exists and is long enough."""
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
        offset, length = _byte_range(tensor)
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


def _byte_range(tensor: onnx.TensorProto) -> tuple[int, int]:
    """Offset and length in bytes of a tensor in its file; the length by shape and type where it isn't recorded.

    Raises:
        ValueError: the recorded ones are no numbers of bytes.
    """
    entries = dict(_entries(tensor))
    offset = int(entries.get("offset", "0"))
    length = int(entries["length"]) if "length" in entries else math.ceil(math.prod(tensor.dims) * _bits(tensor) / 8)
    if offset < 0 or length < 0:
        raise ValueError("less than 0 bytes")
    return offset, length


def _bits(tensor: onnx.TensorProto) -> int:
    """Bits of one stored element."""
    name = onnx.TensorProto.DataType.Name(tensor.data_type)
    packed = _PACKED.get(name)
    return packed or 8 * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _entries(tensor: onnx.TensorProto) -> Iterator[tuple[str, str]]:
    return ((entry.key, entry.value) for entry in tensor.external_data)
