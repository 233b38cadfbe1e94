"""Fashion-MNIST and CIFAR-10 through torchvision, from a local root; nothing is ever downloaded.

CIFAR-10's files are pickles. torchvision checks each against its published MD5 before it is read, and so does
this module: no other file of that name is ever unpickled.
"""

from __future__ import annotations

import gzip
import math
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from export.preprocessing import Preprocessing
from pipeline.compat import import_torchvision
from pipeline.data.dataset import DataSet, Split, channel_statistics, stratified
from pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from pipeline.config import TorchvisionOptions

_SPLIT_SEED = 0
_SCALE = 1 / 255


@dataclass(frozen=True)
class _Source:
    class_name: str
    label: str
    training_labels: str
    test_labels: str


_SOURCES = {
    "fashion_mnist": _Source(
        "FashionMNIST",
        "Fashion-MNIST",
        "FashionMNIST/raw/train-labels-idx1-ubyte",
        "FashionMNIST/raw/t10k-labels-idx1-ubyte",
    ),
    "cifar10": _Source("CIFAR10", "CIFAR-10", "cifar-10-batches-py", "cifar-10-batches-py/test_batch"),
}


def load(options: BaseModel) -> DataSet:
    """The set that the options name, with a stratified part of its training images for validation.

    Raises:
        DataError: files are missing or damaged, or fewer images exist than asked for.
    """
    section = cast("TorchvisionOptions", options)
    source = _SOURCES[section.name]
    root = Path(section.root).expanduser()
    images, labels, classes = _read(source, root, train=True)
    train, validation = _indices(source, section, labels)
    size = section.image_size or images.shape[1]
    mean, std = channel_statistics(images[train], _SCALE)
    return DataSet(
        name=section.name,
        classes=classes,
        train=Split(images[train], labels[train]),
        validation=Split(images[validation], labels[validation]),
        preprocessing=Preprocessing(
            channels=images.shape[3], height=size, width=size, scale=_SCALE, mean=mean, std=std
        ),
        load_test=lambda: Split(*_read(source, root, train=False)[:2]),
    )


def _indices(source: _Source, section: TorchvisionOptions, labels: Any) -> tuple[Any, Any]:
    wanted = section.validation_samples + (section.train_samples or 1)
    if wanted > len(labels):
        raise DataError(
            f"{source.label} has {len(labels)} training images: too few for data.train_samples"
            f" {section.train_samples} and data.validation_samples {section.validation_samples}"
        )
    try:
        validation, train = stratified(labels, section.validation_samples, section.train_samples, _SPLIT_SEED)
    except ValueError as error:
        raise DataError(
            f"data.train_samples {section.train_samples} and data.validation_samples {section.validation_samples}"
            f" don't fit the {len(labels)} training images of {source.label}: {error}"
        ) from error
    return train, validation


@contextmanager
def _readable(source: _Source, root: Path) -> Iterator[Path]:
    """A root that torchvision reads: every file there and the published one; the given folder is left as it is."""
    datasets = import_torchvision().datasets
    check = datasets.utils.check_integrity
    if not root.is_dir():
        raise DataError(f"data.root: there is no folder {root} to read {source.label} from")
    if source.class_name == "CIFAR10":
        folder, meta = root / datasets.CIFAR10.base_folder, datasets.CIFAR10.meta
        files = [*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list, (meta["filename"], meta["md5"])]
        for name, digest in files:
            _check(source, folder / name, digest, check)
        yield root
        return
    with tempfile.TemporaryDirectory() as unpacked:
        place = Path(unpacked) / "FashionMNIST" / "raw"
        place.mkdir(parents=True)
        for name, digest in datasets.FashionMNIST.resources:
            _unpack(source, root / "FashionMNIST" / "raw" / name, digest, check, place)
        yield Path(unpacked)


def _unpack(source: _Source, archive: Path, digest: str, check: Any, place: Path) -> None:
    """Put an archive's file into a folder, or the file that lies unpacked where the archive should be."""
    loose = archive.with_suffix("")
    if archive.is_file() or not loose.is_file():
        _check(source, archive, digest, check)
        with gzip.open(archive) as packed, (place / loose.name).open("wb") as target:
            shutil.copyfileobj(packed, target)
    else:
        _check_idx(source, loose)
        (place / loose.name).symlink_to(loose.absolute())


def _check_idx(source: _Source, path: Path) -> None:
    """An unpacked file has no published MD5, but a header that says how long it must be.

    IDX: two zero bytes, the type (8: uint8), the number of dimensions, each dimension as a big-endian uint32.
    """
    content = path.read_bytes()
    rank = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    header = 4 + 4 * rank
    expected = header + math.prod(int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4))
    if rank not in (1, 3) or len(content) != expected:
        raise DataError(f"{source.label}: {path} is damaged (its header doesn't fit its content)")


def _check(source: _Source, path: Path, digest: str, check: Any) -> None:
    if not path.is_file():
        raise DataError(f"{source.label} isn't at data.root: {path} is missing (nothing is downloaded)")
    if not check(str(path), digest):
        raise DataError(f"{source.label}: {path} is damaged (its MD5 is not the published one)")


def _read(source: _Source, root: Path, *, train: bool) -> tuple[Any, Any, tuple[str, ...]]:
    datasets = import_torchvision().datasets
    try:
        with _readable(source, root) as readable:
            data = getattr(datasets, source.class_name)(str(readable), train=train, download=False)
    except (RuntimeError, ValueError, AssertionError, OSError) as error:
        raise DataError(f"{source.label} at {root} can't be read: {error}") from error
    images = np.asarray(data.data, dtype=np.uint8)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    labels = np.asarray(data.targets, dtype=np.int64)
    classes = tuple(data.classes)
    if len(labels) != len(images) or labels.min(initial=0) < 0 or labels.max(initial=0) >= len(classes):
        file = root / (source.training_labels if train else source.test_labels)
        raise DataError(f"{source.label}: {file} is damaged: its labels don't fit the images and classes")
    return images, labels, classes
