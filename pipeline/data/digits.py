"""The loader of scikit-learn's handwritten digits: 8×8 images with 17 grey levels, installed with a dependency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from export.preprocessing import Preprocessing
from pipeline.data.dataset import DataSet, Split, channel_statistics, stratified

if TYPE_CHECKING:
    from pydantic import BaseModel

_SPLIT_SEED = 0
_TEST, _VALIDATION = 360, 360
_LEVELS = 16


def load(options: BaseModel) -> DataSet:
    """Load 1,077 training, 360 validation and 360 test images, stratified by class."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    size = cast("Any", options).image_size or raw.images.shape[1]
    images = raw.images.astype(np.uint8)[..., np.newaxis]
    labels = raw.target.astype(np.int64)
    test, rest = stratified(labels, _TEST, None, _SPLIT_SEED)
    validation_of_rest, train_of_rest = stratified(labels[rest], _VALIDATION, None, _SPLIT_SEED)
    train, validation = rest[train_of_rest], rest[validation_of_rest]
    scale = 1 / _LEVELS
    mean, std = channel_statistics(images[train], scale)
    return DataSet(
        name="digits",
        classes=tuple(str(name) for name in raw.target_names),
        train=Split(images[train], labels[train]),
        validation=Split(images[validation], labels[validation]),
        preprocessing=Preprocessing(channels=1, height=size, width=size, scale=scale, mean=mean, std=std),
        load_test=lambda: Split(images[test], labels[test]),
    )
