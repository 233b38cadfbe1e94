"""The sizes that a model's inputs are run with, where the file leaves some open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from onnx import TensorProto

from latency_models.errors import InvalidModelError
from latency_models.graph.shapes import declared_shape, real_inputs
from pipeline.errors import HwnasError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnx

Declared: TypeAlias = "list[int | str | None]"  # sizes, or names of open ones; None for an open one without a name
IMAGE_SIZE = 224
"""The size assumed for an open height or width of an image."""
_IMAGE_RANK = 4
_IMAGE_CHANNELS = (1, 3, 4)
_IMAGE_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8)


@dataclass(frozen=True)
class InputSizes:
    """The sizes of a model's inputs.

    Attributes:
        shapes: input → its sizes, none of them open.
        batch_size: of the inputs whose first size is open.
        names: name of an open size → the size.
        only_batch: whether only the batch was open, and no input's sizes were given.
        notes: for the user, on assumed sizes.
    """

    shapes: dict[str, tuple[int, ...]]
    batch_size: int
    names: dict[str, int]
    only_batch: bool
    notes: tuple[str, ...] = ()

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
    """Parse texts such as "image=1,3,224,224" into input → sizes.

    Raises:
        HwnasError: another form, or one input twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        parts = [part.strip() for part in sizes.split(",")]
        if not equals or not name or not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise HwnasError(f"--shape {text!r} must be INPUT=SIZES, as in image=1,3,224,224")
        if name in shapes:
            raise HwnasError(f"--shape gives the sizes of {name!r} twice")
        shapes[name] = tuple(map(int, parts))
    return shapes


def input_sizes(
    model: onnx.ModelProto, path: Path, batch_size: int, given: Mapping[str, tuple[int, ...]]
) -> InputSizes:
    """The sizes of all inputs: from the file, from `given`, from the batch size, and for images from `IMAGE_SIZE`.

    Args:
        model: whose inputs are read.
        path: of the model, for messages.
        batch_size: for an input's first size where that is open, and for other sizes of its name; 1 by default.
        given: input → all its sizes.

    Raises:
        HwnasError: `given` doesn't fit the model.
        InvalidModelError: an open size isn't given, or the batch is fixed at another one.
    """
    infos = real_inputs(model.graph)
    declared = {info.name: declared_shape(info) for info in infos}
    names = _named(declared, path, given)
    batch_size = _batch(declared, path, batch_size, given)
    names |= {shape[0]: batch_size for shape in declared.values() if shape and isinstance(shape[0], str)}
    shapes: dict[str, tuple[int, ...]] = dict(given)
    notes: list[str] = []
    missing: list[str] = []
    for info in infos:
        if info.name in given:
            continue
        shape = declared[info.name]
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
    return InputSizes(shapes, batch_size, names, not given and not notes, tuple(notes))


def _named(declared: Mapping[str, Declared | None], path: Path, given: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The given sizes of the names of open ones."""
    named: dict[str, int] = {}
    for name, sizes in given.items():
        if name not in declared:
            raise UnknownNameError(f"input of {path}", name, declared)
        shape = declared[name]
        if shape is None:
            continue
        fits = len(shape) == len(sizes) and all(
            named.setdefault(said, size) == size if isinstance(said, str) else said in (None, size)
            for said, size in zip(shape, sizes, strict=True)
        )
        if not fits:
            wanted = ",".join("?" if size is None else str(size) for size in shape) or "a single number"
            raise HwnasError(f"--shape {name}={','.join(map(str, sizes))} doesn't fit {path}, which has {wanted} there")
    return named


def _batch(
    declared: Mapping[str, Declared | None], path: Path, batch_size: int, given: Mapping[str, tuple[int, ...]]
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
        raise HwnasError(f"--shape says a batch of {min(asked)}, the batch size is {batch_size}; leave one of them out")
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
