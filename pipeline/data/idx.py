"""Fashion-MNIST's four files (Xiao, Rasul and Vollgraf, 2017), read without torch: a bundle is verified without it."""

from __future__ import annotations

import gzip
import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np

from latency_models.files import read_file
from pipeline.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

LABEL = "Fashion-MNIST"
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# Name → the published MD5.
FILES = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}


def read_fashion_mnist(root: Path, *, train: bool) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Read images (N, 28, 28) and labels (N,) of one split; all four files have to be there and whole.

    Raises:
        DataError: one is missing or damaged.
        OSError: one can't be read.
    """
    folder = root / "FashionMNIST" / "raw"
    files = [_content(folder / name, digest) for name, digest in FILES.items()]
    images, labels = (path for path in files if path.name.startswith("train" if train else "t10k"))
    return _array(images), _array(labels)


def check_published(label: str, path: Path, digest: str) -> None:
    """Check that a file is the published one.

    Raises:
        DataError: it is missing, or its MD5 is another.
        OSError: it can't be read.
    """
    if not path.is_file():
        raise DataError(f"{label} isn't at data.root: {path} is missing (nothing is downloaded)")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != digest:
        raise DataError(f"{label}: {path} is damaged (its MD5 is not the published one)")


def _content(archive: Path, digest: str) -> Path:
    """The checked archive or, where there is none, the unpacked file."""
    loose = archive.with_suffix("")
    if loose.is_file() and not archive.is_file():
        _array(loose)
        return loose
    check_published(LABEL, archive, digest)
    return archive


def _array(path: Path) -> npt.NDArray[np.uint8]:
    """Read an IDX file: two zero bytes, the type (8: uint8), the rank, each dimension as a big-endian uint32, values.

    An unpacked file has no published MD5, but its header gives its length.
    """
    content = gzip.decompress(read_file(path)) if path.suffix == ".gz" else read_file(path)
    rank = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    header = 4 + 4 * rank
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
    if rank not in (1, 3) or len(content) != header + math.prod(shape):
        raise DataError(f"{LABEL}: {path} is damaged (its header doesn't fit its content)")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
