"""A bundle's samples.npz, read in batches: what it unpacks to is known and bounded before anything is unpacked."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from export.bundle.manifest import SAMPLES_FILE
from export.bundle.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    import numpy.typing as npt

    Array = npt.NDArray[Any]

ARCHIVE_ERRORS = (OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
"""Errors of damaged archives."""

_NEEDED = ("inputs", "outputs", "images")
_OPTIONAL = ("outputs_int8",)
_KINDS = {"inputs": "f", "outputs": "f", "images": "u", "outputs_int8": "f"}
_BATCH_BYTES = 10**6
_LARGEST_BATCH = 64
# Compressed samples of real images shrink to a fifth; an archive that unpacks to more than this is no such thing.
_LARGEST_GROWTH = 10
_ALWAYS_FINE_BYTES = 16 * 10**6
_LARGEST_ROW_BYTES = 16 * 10**6
_LARGEST_BY_COLUMNS = 32 * 10**6
# The end of a ZIP archive: where its directory is, and how long.
_END, _END_BYTES, _LONGEST_COMMENT = b"PK\x05\x06", 22, 2**16
_LONGEST_DIRECTORY = 2**16


@dataclass(frozen=True)
class _Member:
    """One array as its header declares it: its numbers lie `start` bytes into the archive's member."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    by_columns: bool

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class SampleFile:
    """The samples of one bundle, open until the context ends.

    Attributes:
        count: of the samples.
        image_shape: of the raw images, (count, height, width, channels).
        input_shape: of the network's inputs, (count, …).

    Raises:
        One of `ARCHIVE_ERRORS`: no archive of the arrays that a bundle has, or one that unpacks to far more than it is.
    """

    def __init__(self, bundle: Path) -> None:
        self._file = open_regular(bundle, SAMPLES_FILE)
        try:
            size = _checked_size(self._file)
            self._archive = zipfile.ZipFile(self._file)
            self._members = {name: self._member(name) for name in (*_NEEDED, *self._optional())}
            self._check_together(size)
        except BaseException:
            self._file.close()
            raise
        self.count = self._members["images"].shape[0]
        self.image_shape = self._members["images"].shape
        self.input_shape = self._members["inputs"].shape

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def pairs(self, first: str, second: str) -> Iterator[tuple[Array, Array]]:
        """Yield two arrays' rows side by side, a few at a time: about 1 MB of inputs, at least two rows."""
        rows = max(2, min(_LARGEST_BATCH, _BATCH_BYTES // self._members["inputs"].row_bytes))
        yield from zip(self._rows(self._members[first], rows), self._rows(self._members[second], rows), strict=True)

    def _rows(self, member: _Member, rows: int) -> Iterator[Array]:
        with self._archive.open(f"{member.name}.npy") as file:
            _read(file, member.start, member)
            if member.by_columns:
                content = _read(file, self.count * member.row_bytes, member)
                whole = np.frombuffer(content, member.dtype).reshape(member.shape, order="F")
                yield from (whole[start : start + rows] for start in range(0, self.count, rows))
                return
            for start in range(0, self.count, rows):
                count = min(rows, self.count - start)
                content = _read(file, count * member.row_bytes, member)
                yield np.frombuffer(content, member.dtype).reshape(count, *member.shape[1:])
            file.read(1)  # the checksum is looked at behind the last byte

    def _optional(self) -> list[str]:
        found = set(self._archive.namelist())
        return [name for name in _OPTIONAL if f"{name}.npy" in found]

    def _member(self, name: str) -> _Member:
        """Read one array's header, which has to fit the length of the archive's member."""
        try:
            info = self._archive.getinfo(f"{name}.npy")
        except KeyError:
            raise ValueError(f"it has no array {name!r}") from None
        with self._archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):  # later ones may have a header of any length, which is read before it is looked at
                raise ValueError(f"{name!r} is of NumPy's format {version[0]}.{version[1]}, not 1.0")
            shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
        if dtype.hasobject:
            raise ValueError(f"{name!r} holds Python objects, which only pickle reads; they are never loaded")
        if dtype.kind != _KINDS[name] or dtype.subdtype is not None or (name == "images" and dtype != np.uint8):
            raise ValueError(f"{name!r} is of type {dtype}")
        if len(shape) < 2 or min(shape) < 1:
            raise ValueError(f"{name!r} has the shape {shape}")
        member = _Member(name, shape, dtype, start, by_columns)
        if by_columns and shape[0] * member.row_bytes > _LARGEST_BY_COLUMNS:
            raise ValueError(f"{name!r} is stored by columns, and too large to be read so")
        if info.file_size != start + shape[0] * member.row_bytes:
            raise ValueError(f"{name!r} is said to be {dtype} of shape {shape}, but has {info.file_size:,} bytes")
        return member

    def _check_together(self, size: int) -> None:
        members = self._members.values()
        counts = {member.name: member.shape[0] for member in members}
        if len(set(counts.values())) != 1:
            listed = ", ".join(f"{count} {name}" for name, count in counts.items())
            raise ValueError(f"it has not as many of each: {listed}")
        unpacked = sum(member.shape[0] * member.row_bytes for member in members)
        if unpacked > max(_LARGEST_GROWTH * size, _ALWAYS_FINE_BYTES):
            raise ValueError(f"it would unpack to {unpacked:,} bytes, {unpacked / size:,.0f} times its size")
        if (largest := max(member.row_bytes for member in members)) > _LARGEST_ROW_BYTES:
            raise ValueError(f"one of its samples has {largest:,} bytes")


def _read(file: IO[bytes], count: int, member: _Member) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise ValueError(f"{member.name!r} ends early")
    return content


def _checked_size(file: IO[bytes]) -> int:
    """The archive's size in bytes; an archive with a long directory is refused before zipfile reads it."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_BYTES - _LONGEST_COMMENT))
    tail = file.read()
    at = tail.find(_END)
    if at < 0:
        raise ValueError("it is no archive of arrays")
    while 0 <= at <= len(tail) - _END_BYTES:
        (directory,) = struct.unpack_from("<L", tail, at + 12)
        if directory > _LONGEST_DIRECTORY:
            raise ValueError(f"the archive's directory is said to have {directory:,} bytes")
        at = tail.find(_END, at + 1)
    file.seek(0)
    return size
