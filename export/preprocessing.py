"""The preprocessing from an image to a network's input: one record for training, export and deployment."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from export.errors import PreprocessingError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

_KEYS = ("resize", "channels", "scale", "mean", "std", "layout")


@dataclass(frozen=True)
class Preprocessing:
    """The steps from images to inputs: resize if needed, then `(x * scale - mean) / std` per channel.

    Args:
        channels: of the images and of the network's input; there is no colour conversion.
        height: of the network's input, in pixels.
        width: of the network's input, in pixels.
        scale: factor on the raw uint8 values.
        mean: one number a channel, in scaled units.
        std: one number a channel, in scaled units.
        layout: of the network's input; only "NCHW" is known.

    Raises:
        PreprocessingError: a field has a value that can't be applied.
    """

    channels: int
    height: int
    width: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: str = "NCHW"

    def __post_init__(self) -> None:
        for name in ("channels", "height", "width"):
            value = getattr(self, name)
            if not _is_integer(value) or value < 1:
                raise PreprocessingError(f"preprocessing.{name} is {value!r}, not a positive whole number")
        for name in ("mean", "std"):
            values = tuple(_finite(name, value) for value in getattr(self, name))
            if len(values) != self.channels:
                raise PreprocessingError(f"preprocessing.{name} has {len(values)} numbers for {self.channels} channels")
            object.__setattr__(self, name, values)
        object.__setattr__(self, "scale", _finite("scale", self.scale))
        if self.scale <= 0 or min(self.std) <= 0:
            raise PreprocessingError("preprocessing.scale and preprocessing.std must be above 0")
        if self.layout != "NCHW":
            raise PreprocessingError(f"preprocessing.layout is {self.layout!r}; valid is 'NCHW'")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one input of the network: (channels, height, width)."""
        return self.channels, self.height, self.width

    def apply(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Turn images (uint8; N, H, W, C) into a batch (float32; N, C, height, width).

        Images of another size are resized with Pillow's bilinear filter.

        Raises:
            PreprocessingError: wrong type, rank or number of channels.
        """
        scaled = self.resize(images).astype(np.float32) * np.float32(self.scale)
        normalised = (scaled - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        # A copy, so that the strides are those of N,C,H,W also with one channel, where a view would do.
        return np.array(normalised.transpose(0, 3, 1, 2), dtype=np.float32, order="C", copy=True)

    def resize(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Bring images (uint8; N, H, W, C) to the network's size: (N, height, width, C), still uint8.

        Raises:
            PreprocessingError: wrong type, rank or number of channels.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != self.channels:
            raise PreprocessingError(
                f"images are {images.dtype} of shape {images.shape}, not uint8 of (N, H, W, {self.channels})"
            )
        if images.shape[1:3] == (self.height, self.width):
            return images
        return _resize(images, self.height, self.width)

    def as_dict(self) -> dict[str, Any]:
        """The record as it stands in a bundle's manifest (JSON types only)."""
        return {
            "resize": [self.height, self.width],
            "channels": self.channels,
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "layout": self.layout,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Preprocessing:
        """Read a record that `as_dict` wrote.

        Raises:
            PreprocessingError: a key is missing, unknown, or has a wrong value.
        """
        if set(record) != set(_KEYS):
            found, valid = ", ".join(sorted(map(str, record))), ", ".join(_KEYS)
            raise PreprocessingError(f"preprocessing has the keys {found or '(none)'}; needed are exactly {valid}")
        resize = record["resize"]
        if not isinstance(resize, list | tuple) or len(resize) != 2:
            raise PreprocessingError(f"preprocessing.resize is {resize!r}, not [height, width]")
        for name in ("mean", "std"):
            if not isinstance(record[name], list | tuple):
                raise PreprocessingError(f"preprocessing.{name} is {record[name]!r}, not a list of numbers")
        rest = {field.name: record[field.name] for field in fields(cls) if field.name not in ("height", "width")}
        return cls(height=resize[0], width=resize[1], **rest)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        raise PreprocessingError(f"preprocessing.{name} holds a number beyond any finite float") from None
    if not math.isfinite(number):
        raise PreprocessingError(f"preprocessing.{name} holds {value!r}, not a finite number")
    return number


def _resize(images: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    # Pillow is imported late: sizes match in the common case, and a deployment may go without it.
    from PIL import Image

    # One channel at a time: Pillow has no mode for any number of channels, and filters each alone anyway.
    resized = np.empty((len(images), height, width, images.shape[-1]), np.uint8)
    for index, image in enumerate(images):
        for channel in range(images.shape[-1]):
            plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
            resized[index, ..., channel] = np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR))
    return resized
