"""The config's section `data`, for each name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field

from pipeline.config.base import Count, Section

ImageSize = Annotated[int, Field(ge=8, le=224)]


class DigitsOptions(Section):
    """Options of `digits`: 1,797 grey 8×8 images that come with scikit-learn."""

    name: Literal["digits"]
    image_size: ImageSize | None = None


class TorchvisionOptions(Section):
    """Options of torchvision's data sets, read from a local root; nothing is downloaded."""

    name: Literal["fashion_mnist", "cifar10"]
    root: str
    train_samples: Count | None = None
    validation_samples: Count = 5000
    image_size: ImageSize | None = None

    def resolved(self, *, trials: int, pick: str) -> Self:
        """The section with an absolute root, so that a run and a bundle can be used from any directory."""
        return self.model_copy(update={"root": str(Path(self.root).expanduser().absolute())})
