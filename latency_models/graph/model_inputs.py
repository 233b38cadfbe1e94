"""The inputs that a model is run with: sizes where the file leaves some open, and values."""

from __future__ import annotations

import json
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from onnx import TensorProto, helper

from latency_models import timer
from latency_models.errors import InputError, InvalidModelError, unknown_name
from latency_models.graph.attributes import SEQUENCE_LENGTHS
from latency_models.graph.element_types import type_text
from latency_models.graph.shapes import declared_shape, real_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import onnx

Declared: TypeAlias = "list[int | str | None]"  # sizes, or names of open ones; None for an open one without a name
IMAGE_SIZE = 224
"""The size assumed for an open height or width of an image."""
_LONGEST_VALUE = 60  # characters of a value in a message
_IMAGE_RANK = 4
_IMAGE_CHANNELS = (1, 3, 4)
_IMAGE_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8)


@dataclass(frozen=True)
class GivenInputs:
    """Sizes and values that a user gives for a model's inputs.

    Attributes:
        shapes: input → all its sizes; 0 is a size.
        values: input → its array, or a single number, which fills the input.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    values: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.shapes or self.values)

    def only(self, names: Iterable[str]) -> GivenInputs:
        """Keep the sizes and values of the named inputs."""
        wanted = frozenset(names)
        return GivenInputs(
            {name: sizes for name, sizes in self.shapes.items() if name in wanted},
            {name: array for name, array in self.values.items() if name in wanted},
        )

    def check_known(self, names: Iterable[str]) -> None:
        """Raise InputError unless all inputs that something is said of are among `names`."""
        known = set(names)
        for option, found in (("--shape", self.shapes), ("--input", self.values)):
            for name in found:
                if name not in known:
                    raise InputError(f"{option}: {unknown_name('input', name, known)}")


NOTHING_GIVEN = GivenInputs()
"""All sizes are the file's, all values made up."""


@dataclass(frozen=True)
class ModelInputs:
    """The inputs of one model.

    Attributes:
        shapes: input → its sizes, none of them open.
        batch_size: of the inputs whose first size is open.
        names: name of an open size → the size.
        only_batch: whether only the batch was open, and nothing was given.
        notes: for the user, on assumed sizes and lengths.
        types: input → ONNX's element type.
        values: input → its array, where one was given.
        model: for messages.
    """

    shapes: dict[str, tuple[int, ...]]
    batch_size: int
    names: dict[str, int]
    only_batch: bool
    notes: tuple[str, ...] = ()
    types: dict[str, int] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    model: str = "model"

    def arrays(self) -> dict[str, np.ndarray]:
        """An array for each input: the given ones; floats in [0, 1) from a fixed seed, zeros for other types.

        Raises:
            InputError: nothing can be made up for an input's type.
        """
        rng = np.random.default_rng(timer.SEED)
        found = {}
        for name, shape in self.shapes.items():
            if name in self.values:
                found[name] = self.values[name]
                continue
            kind = type_text(self.types[name])
            try:
                found[name] = timer.made_up_input(kind, shape, rng)
            except timer.RefusedError as refused:
                raise InputError(f"{self.model}: input {name!r}: {refused.reason}") from refused
        return found

    def refused(self, error: InvalidModelError) -> InvalidModelError:
        """The error of a model that can't be run, with its inputs and how to give others where that may help."""
        if not self.shapes or error.reason.startswith(timer.CANT_LOAD):
            return error
        made_up = [name for name in self.shapes if name not in self.values]
        sizes = ", ".join(f"{name}={','.join(map(str, shape)) or 'one number'}" for name, shape in self.shapes.items())
        values = f"; the values of {', '.join(made_up)} are made up" if made_up else ""
        way_out = "--shape INPUT=SIZES and --input INPUT=VALUE give others"
        if self.notes:
            way_out = f"sizes were guessed: {'; '.join(self.notes)}; {way_out}"
        return InvalidModelError(error.model, f"{error.reason} (run with {sizes}{values}; {way_out})")

    def fed(self) -> dict[str, np.ndarray] | None:
        """The arrays for a timer; None where it makes up the very same ones itself."""
        return None if self.only_batch else self.arrays()

    def written_into(self, model: onnx.ModelProto) -> None:
        """Write the sizes into a model, in place."""
        for info in real_inputs(model.graph):
            dims = info.type.tensor_type.shape.dim
            sizes = self.shapes[info.name]
            if len(dims) != len(sizes):
                del dims[:]
                dims.extend(type(info.type.tensor_type.shape).Dimension() for _ in sizes)
                info.type.tensor_type.shape.SetInParent()
            for dim, size in zip(dims, sizes, strict=True):
                dim.dim_value = size
        for info in (*model.graph.value_info, *model.graph.output):
            for dim in info.type.tensor_type.shape.dim:
                if dim.dim_param in self.names:
                    dim.dim_value = self.names[dim.dim_param]


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Parse texts such as "image=1,3,224,224" into input → sizes; "x=" is a single number, without sizes.

    Raises:
        InputError: another form, or one input twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        parts = [part.strip() for part in sizes.split(",")] if sizes.strip() else []
        if not equals or not name or not all(part.isascii() and part.isdecimal() for part in parts):
            raise InputError(f"--shape {text!r} must be INPUT=SIZES, as in image=1,3,224,224")
        if name in shapes:
            raise InputError(f"--shape gives the sizes of {name!r} twice")
        shapes[name] = tuple(map(int, parts))
    return shapes


def parse_values(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Parse texts such as "rate=16000", "ids=[[1,2]]", "x=x.npy" or "inputs.npz" into input → array.

    Raises:
        InputError: another form, a file that can't be read, or one input twice.
    """
    values: dict[str, np.ndarray] = {}
    for text in texts:
        for name, value in _parsed(text).items():
            if name in values:
                raise InputError(f"--input gives {name!r} twice")
            values[name] = value
    return values


def _parsed(text: str) -> dict[str, np.ndarray]:
    if text.endswith(".npz") and Path(text).exists():
        return _archive(text)
    name, equals, value = text.partition("=") if text.count("=") == 1 else text.rpartition("=")
    if not equals or not name or not value:
        raise InputError(f"--input {text!r} must be INPUT=VALUE, INPUT=FILE.npy, or an existing FILE.npz")
    if value.endswith(".npy"):
        return {name: _array(value)}
    if value.endswith(".npz"):
        raise InputError(f"--input: {_short(value)} holds arrays of several inputs, by name: --input {_short(value)}")
    try:
        array = np.asarray(json.loads(value))
    except (ValueError, RecursionError) as error:
        said = f"--input {name}: {_short(value)} is no number, and no list of numbers as in [[1,2]]"
        raise InputError(said) from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"--input {name}: {_short(value)} isn't made of numbers alone, of at most 64 bits")
    return {name: array}


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"


def _archive(file: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz by the names of their inputs."""
    with _reading(file):
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.lib.npyio.NpzFile):
            with found:
                arrays = {name: found[name] for name in found.files}
        else:
            arrays = {}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"--input: {name!r} in {file} is no array")
    if not arrays:
        raise InputError(f"--input: {file} holds no arrays by name, as numpy.savez writes them")
    return arrays


def _array(file: str) -> np.ndarray:
    """The array of an .npy."""
    with _reading(file):
        found = np.load(file, allow_pickle=False)
    if not isinstance(found, np.ndarray):
        raise InputError(f"--input: {file} isn't one array, as numpy.save writes it")
    return found


@contextmanager
def _reading(file: str) -> Iterator[None]:
    """Raise InputError, which names the file, for what can go wrong while arrays are read."""
    try:
        yield
    except MemoryError as error:
        raise InputError(f"--input: {file} can't be read: it doesn't fit in memory") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        said = "it holds Python objects, or isn't NumPy's" if "pickle" in str(error) else timer.one_line(error)
        raise InputError(f"--input: {file} can't be read: {said}") from error


def model_inputs(
    model: onnx.ModelProto, path: Path | str, batch_size: int, given: GivenInputs = NOTHING_GIVEN
) -> ModelInputs:
    """The inputs of a model: from the file, from what is given, from the batch size, and for images `IMAGE_SIZE`.

    Args:
        model: whose inputs are read.
        path: of the model, for messages.
        batch_size: for an input's first size where that is open, and for other sizes of its name; 1 by default.
        given: on the inputs.

    Raises:
        InputError: what is given doesn't fit the model.
        InvalidModelError: an open size isn't given, or the batch is fixed at another one.
    """
    infos = real_inputs(model.graph)
    declared = {info.name: _declared(info, path) for info in infos}
    types = {info.name: info.type.tensor_type.elem_type for info in infos}
    for name in given.values:
        if name not in declared:
            raise InputError(f"--input: {unknown_name(f'input of {path}', name, declared)}")
    values = {name: _typed(name, array, types[name], path) for name, array in given.values.items()}
    fixed = dict(given.shapes)
    for name, array in values.items():
        if (array.ndim or not declared[name]) and fixed.setdefault(name, array.shape) != array.shape:
            raise InputError(f"--input {name} has the sizes {array.shape}, --shape says {fixed[name]}")
    options = {name: "--shape" if name in given.shapes else "--input of the sizes" for name in fixed}
    names = _named(declared, path, fixed, options)
    batch_size = _batch(declared, path, batch_size, fixed)
    names |= {shape[0]: batch_size for shape in declared.values() if shape and isinstance(shape[0], str)}
    names |= _named(declared, path, fixed, options)
    shapes: dict[str, tuple[int, ...]] = {}
    notes: list[str] = []
    missing: list[str] = []
    for info in infos:
        shape = declared[info.name]
        if info.name in fixed:
            shapes[info.name] = fixed[info.name]
            continue
        if shape is None:
            missing.append(f"input {info.name!r} has no shape (--shape {info.name}=SIZES)")
            continue
        sizes = [_known(size, axis, names, batch_size) for axis, size in enumerate(shape)]
        filled = _as_image(info, sizes)
        if None in filled:
            missing.append(f"{_open(info.name, shape, sizes)} (--shape {_example(info.name, shape, sizes)})")
        elif None in sizes:
            guess = " and ".join(str(new) for old, new in zip(sizes, filled, strict=True) if old is None)
            option = f"--shape {_example(info.name, shape, sizes)}"
            notes.append(f"{_open(info.name, shape, sizes)}: taken as {guess}; {option} gives others")
        shapes[info.name] = tuple(size or 0 for size in filled)
        names |= {said: size for said, size in zip(shape, filled, strict=True) if isinstance(said, str) and size}
    if missing:
        raise InvalidModelError(str(path), f"it has open sizes, which have to be given: {'; '.join(missing)}")
    arrays = {name: array if array.ndim else np.full(shapes[name], array) for name, array in values.items()}
    only_batch = not given and not notes
    notes += [
        f"the lengths of sequences in input {name!r} are made up as 0, with which nothing is computed for them;"
        f" --input {name}=VALUE gives others"
        for name in _lengths(model.graph)
        if name in shapes and name not in arrays
    ]
    return ModelInputs(shapes, batch_size, names, only_batch, tuple(notes), types, arrays, str(path))


def _lengths(graph: onnx.GraphProto) -> list[str]:
    """Names of the values that recurrent nodes read the lengths of sequences from."""
    places = ((node, SEQUENCE_LENGTHS.get(node.op_type)) for node in graph.node)
    return list(dict.fromkeys(node.input[at] for node, at in places if at is not None and at < len(node.input)))


def _declared(info: onnx.ValueInfoProto, path: Path | str) -> Declared | None:
    if not info.type.HasField("tensor_type"):
        kind = info.type.WhichOneof("value") or "nothing"
        raise InvalidModelError(str(path), f"input {info.name!r} is no tensor ({kind}); such inputs can't be given")
    return declared_shape(info)


def _typed(name: str, array: np.ndarray, elem_type: int, path: Path | str) -> np.ndarray:
    """The array in the input's type, as far as that can hold its numbers."""
    try:
        timer.check_input_type(type_text(elem_type))
    except timer.RefusedError as refused:
        raise InputError(f"{path}: input {name!r}: {refused.reason}") from refused
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    if array.dtype.kind not in "biuf":
        said = "text" if array.dtype.kind in "US" else array.dtype
        raise InputError(f"--input {name}: {said} can't be given for an input of type {dtype}")
    with np.errstate(all="ignore"):
        typed = array.astype(dtype)
    fits = np.array_equal(typed.astype(array.dtype), array) if dtype.kind in "biu" else _still_finite(array, typed)
    if not fits:
        raise InputError(f"--input {name}: its numbers don't fit the input's type, {dtype}")
    return typed


def _still_finite(given: np.ndarray, typed: np.ndarray) -> bool:
    """Whether no number became infinite in a narrower type of floats."""
    return bool(np.array_equal(np.isinf(typed), np.isinf(given)))


def _named(
    declared: Mapping[str, Declared | None],
    path: Path | str,
    given: Mapping[str, tuple[int, ...]],
    options: Mapping[str, str],
) -> dict[str, int]:
    """The given sizes of the names of open ones; `options` says for messages by what they were given."""
    named: dict[str, int] = {}
    for name, sizes in given.items():
        if name not in declared:
            raise InputError(f"--shape: {unknown_name(f'input of {path}', name, declared)}")
        shape = declared[name]
        if shape is None:
            continue
        fits = len(shape) == len(sizes) and all(
            named.setdefault(said, size) == size if isinstance(said, str) else said in (None, size)
            for said, size in zip(shape, sizes, strict=True)
        )
        if not fits:
            wanted = ",".join("?" if size is None else str(size) for size in shape) or "a single number"
            given_as = f"{options[name]} {name}={','.join(map(str, sizes))}"
            raise InputError(f"{given_as} doesn't fit {path}, which has {wanted} there")
    return named


def _batch(
    declared: Mapping[str, Declared | None], path: Path | str, batch_size: int, given: Mapping[str, tuple[int, ...]]
) -> int:
    firsts = {name: shape[0] for name, shape in declared.items() if shape}
    fixed = [first for first in firsts.values() if isinstance(first, int)]
    if batch_size > 1 and len(fixed) == len(firsts) > 0 and batch_size not in fixed:
        only = fixed[0]
        raise InvalidModelError(
            str(path), f"its batch is fixed at {only}; it can't be run with {batch_size} (--batch-size {only} fits)"
        )
    asked = {given[name][0] for name, first in firsts.items() if name in given and not isinstance(first, int)}
    if batch_size > 1 and asked - {batch_size}:
        raise InputError(f"--shape says a batch of {min(asked)}, the batch size is {batch_size}; leave one of them out")
    return min(asked, default=batch_size)


def _known(size: int | str | None, axis: int, names: Mapping[str, int], batch_size: int) -> int | None:
    if isinstance(size, int):
        return size
    return names.get(size or "", batch_size if axis == 0 else None)


def _as_image(info: onnx.ValueInfoProto, sizes: Sequence[int | None]) -> list[int | None]:
    """The sizes with height and width filled, for images: (batch, channels, h, w), or channels last."""
    filled = list(sizes)
    if len(sizes) != _IMAGE_RANK or info.type.tensor_type.elem_type not in _IMAGE_TYPES:
        return filled
    for channels, spatial in ((1, (2, 3)), (3, (1, 2))):
        if filled[channels] in _IMAGE_CHANNELS:
            side = next((size for axis in spatial if (size := filled[axis]) is not None), IMAGE_SIZE)
            for axis in spatial:
                filled[axis] = side if filled[axis] is None else filled[axis]
            break
    return filled


def _open(name: str, shape: Declared, sizes: Sequence[int | None]) -> str:
    pairs = enumerate(zip(shape, sizes, strict=True))
    axes = [f"{said!r} (axis {axis})" if said else f"axis {axis}" for axis, (said, size) in pairs if size is None]
    return f"{', '.join(axes)} of input {name!r}"


def _example(name: str, shape: Declared, sizes: Sequence[int | None]) -> str:
    """An example of --shape, with the names of open sizes in capitals."""
    pairs = enumerate(zip(shape, sizes, strict=True))
    shown = [_capitals(said, axis) if size is None else str(size) for axis, (said, size) in pairs]
    return f"{name}={','.join(shown)}"


def _capitals(said: int | str | None, axis: int) -> str:
    text = str(said or "")
    return text.upper() if text.isidentifier() else f"SIZE{axis}"
