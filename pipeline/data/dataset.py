"""The data set of a run: labelled images and one preprocessing record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError
from pipeline.registry import make
from pipeline.tables import DATA

if TYPE_CHECKING:
    from collections.abc import Callable

    from export.preprocessing import Preprocessing
    from pipeline.config.base import Section


@dataclass(frozen=True)
class Split:
    """Labelled images of one split.

    Attributes:
        images: uint8, (N, H, W, C), as they come from the source.
        labels: int64, (N,), indices into the classes.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 (N, H, W, C), not {self.images.dtype} {self.images.shape}")
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"{len(self.images)} images have {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DataSet:
    """A data set, split once and for all by its own fixed seed, not by the run's.

    Attributes:
        classes: readable names, in the order of the network's outputs.
        preprocessing: from a raw image to the network's input; training, calibration and bundle share it.
        load_test: reads the test split; a function, since test data is read only for a finished bundle.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    preprocessing: Preprocessing
    load_test: Callable[[], Split]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the network's input."""
        p = self.preprocessing
        return p.channels, p.height, p.width


def load_data(options: Section) -> DataSet:
    """The data set that a config's `data` section names.

    Raises:
        DataError: it is missing, incomplete or damaged.
    """
    data = make("data", options.name, DATA, options)
    if not isinstance(data, DataSet):
        raise DataError(f"data {options.name!r} gave a {type(data).__name__}, not a pipeline.data.DataSet")
    return data


def channel_statistics(images: npt.NDArray[np.uint8], scale: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 (N, H, W, C) images, after scaling."""
    values = images.astype(np.float64) * scale
    mean, std = values.mean(axis=(0, 1, 2)), values.std(axis=(0, 1, 2))
    return tuple(round(float(m), 6) for m in mean), tuple(round(max(float(s), 1e-3), 6) for s in std)


def stratified(
    labels: npt.NDArray[np.int64], first: int, second: int | None, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Two disjoint index sets of the given sizes (the second: all the rest when None) with equal class shares.

    Raises:
        ValueError: a size is smaller than the number of classes, or too large.
    """
    from sklearn.model_selection import train_test_split

    index = np.arange(len(labels))
    one, rest = train_test_split(index, train_size=first, stratify=labels, random_state=seed)
    if second is None or second == len(rest):
        return np.sort(one), np.sort(rest)
    # The rest may be too few for equal shares.
    left = len(rest) - second
    shares = labels[rest] if left >= len(np.unique(labels)) else None
    two, _ = train_test_split(rest, train_size=second, stratify=shares, random_state=seed)
    return np.sort(one), np.sort(two)
