"""The loader of Fashion-MNIST and CIFAR-10 from a local folder; nothing is ever downloaded.

CIFAR-10's files are pickles, which torchvision reads. This module checks each against its published MD5 first, so that
no other file of that name is unpickled.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from export.preprocessing import Preprocessing
from pipeline.data import idx
from pipeline.data.dataset import DataSet, Split, channel_statistics, stratified
from pipeline.data.idx import check_published
from pipeline.errors import DataError
from pipeline.shims import import_torchvision

if TYPE_CHECKING:
    from pydantic import BaseModel

    from pipeline.config.data import TorchvisionOptions

_SPLIT_SEED = 0
_SCALE = 1 / 255


@dataclass(frozen=True)
class _Source:
    label: str
    training_labels: str
    test_labels: str


_SOURCES = {
    "fashion_mnist": _Source(
        "Fashion-MNIST",
        "FashionMNIST/raw/train-labels-idx1-ubyte",
        "FashionMNIST/raw/t10k-labels-idx1-ubyte",
    ),
    "cifar10": _Source("CIFAR-10", "cifar-10-batches-py", "cifar-10-batches-py/test_batch"),
}


def load(options: BaseModel) -> DataSet:
    """Load the set that the options name, with a stratified part of its training images for validation.

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


def _check_cifar(source: _Source, root: Path, cifar: Any) -> None:
    """Check that all files are the published ones, before the first is unpickled."""
    folder, meta = root / cifar.base_folder, cifar.meta
    for name, digest in (*cifar.train_list, *cifar.test_list, (meta["filename"], meta["md5"])):
        check_published(source.label, folder / name, digest)


def _read(source: _Source, root: Path, *, train: bool) -> tuple[Any, Any, tuple[str, ...]]:
    if not root.is_dir():
        raise DataError(f"data.root: there is no folder {root} to read {source.label} from")
    try:
        images, labels, classes = (_fashion_mnist if source.label == idx.LABEL else _cifar)(source, root, train)
    except (RuntimeError, ValueError, AssertionError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{source.label} at {root} can't be read: {error}") from error
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if len(labels) != len(images) or labels.min(initial=0) < 0 or labels.max(initial=0) >= len(classes):
        file = root / (source.training_labels if train else source.test_labels)
        raise DataError(f"{source.label}: {file} is damaged: its labels don't fit the images and classes")
    return images, labels, classes


def _fashion_mnist(source: _Source, root: Path, train: bool) -> tuple[Any, Any, tuple[str, ...]]:
    images, labels = idx.read_fashion_mnist(root, train=train)
    return images, labels.astype(np.int64), idx.CLASSES


def _cifar(source: _Source, root: Path, train: bool) -> tuple[Any, Any, tuple[str, ...]]:
    cifar = import_torchvision().datasets.CIFAR10
    _check_cifar(source, root, cifar)
    data = cifar(str(root), train=train, download=False)
    return np.asarray(data.data, dtype=np.uint8), np.asarray(data.targets, dtype=np.int64), tuple(data.classes)
