"""The preprocessing record: what it computes, and what it refuses."""

import json

import numpy as np
import pytest

from export.errors import PreprocessingError
from export.preprocessing import Preprocessing
from helpers.nets import PREPROCESSING, digits_like

RGB = Preprocessing(channels=3, height=2, width=4, scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 1.0))


def test_values_by_hand():
    images = np.zeros((1, 2, 4, 3), np.uint8)
    images[0, 1, 2] = (255, 102, 0)
    batch = RGB.apply(images)
    assert batch.shape == (1, 3, 2, 4)
    assert batch.dtype == np.float32
    np.testing.assert_allclose(batch[0, :, 1, 2], [2.0, 0.0, -0.3], atol=1e-6)
    np.testing.assert_allclose(batch[0, :, 0, 0], [-2.0, -0.8, -0.3], atol=1e-6)
    assert RGB.input_shape == (3, 2, 4)


def test_other_sizes_are_resized_bilinearly():
    images = np.full((2, 8, 8, 3), 51, np.uint8)
    images[1, :, 4:] = 255  # black and white halves
    images[1, :, :4] = 0
    batch = Preprocessing(3, 4, 4, 1 / 255, (0.0,) * 3, (1.0,) * 3).apply(images)
    assert batch.shape == (2, 3, 4, 4)
    np.testing.assert_allclose(batch[0], 0.2, atol=1e-6)
    assert (np.diff(batch[1, 0, 0]) >= 0).all()
    assert 0 < batch[1, 0, 0, 1] < 0.5 < batch[1, 0, 0, 2] < 1


def test_the_record_survives_json():
    assert Preprocessing.from_dict(json.loads(json.dumps(RGB.as_dict()))) == RGB
    assert set(RGB.as_dict()) == {"resize", "channels", "scale", "mean", "std", "layout"}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"mean": [0.1]}, "1 numbers for 3 channels"),
        ({"std": [1.0, 0.0, 1.0]}, "above 0"),
        ({"scale": -1.0}, "above 0"),
        ({"scale": float("nan")}, "finite"),
        ({"scale": 10**400}, "finite"),
        ({"mean": [0, 10**30, 0], "std": [1, 10**9999, 1]}, "finite"),
        ({"mean": "abc"}, "list"),
        ({"mean": [0.1, "0.2", 0.3]}, "finite"),
        ({"layout": "NHWC"}, "NCHW"),
        ({"resize": None}, "height"),
        ({"resize": [0, 4]}, "height"),
        ({"resize": [2.5, 4]}, "height"),
        ({"channels": True}, "channels"),
        ({"gamma": 2.2}, "gamma"),
    ],
)
def test_wrong_records_are_refused(change, what):
    with pytest.raises(PreprocessingError, match=what):
        Preprocessing.from_dict(RGB.as_dict() | change)


def test_a_missing_key_is_named_by_what_is_needed():
    with pytest.raises(PreprocessingError, match="layout"):
        Preprocessing.from_dict({"channels": 3})


@pytest.mark.parametrize(
    "images",
    [digits_like(2).astype(np.float32), digits_like(2)[0], np.zeros((2, 8, 8, 3), np.uint8)],
    ids=["float", "one image", "three channels"],
)
def test_wrong_images_are_refused(images):
    with pytest.raises(PreprocessingError, match=r"uint8 of \(N, H, W, 1\)"):
        PREPROCESSING.apply(images)
