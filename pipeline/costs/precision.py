"""What becomes of a network on a device of another precision: its file, its images for calibration, its accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from export.checks import accuracy
from export.quantization.quantize import QuantizationError, float_reasons, is_quantized, quantize_like
from latency_models.graph.external_data import load_with_external_data
from latency_models.graph.model_file import parse
from pipeline.errors import HwnasError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from latency_models.graph.model_inputs import ModelInputs
    from pipeline.data import DataSet

    Quantizer = Callable[[bytes], bytes]

INT8 = "int8"
_CALIBRATION_IMAGES = 256


def quantizer_for(precision: str) -> Quantizer:
    """A function from a float model to one of that precision, for costs alone: its ranges are made up."""
    return quantize_like if precision == INT8 else _unchanged


def _unchanged(model: bytes) -> bytes:
    return model


def int8_file(path: Path, inputs: ModelInputs | None = None) -> tuple[bytes | Path, list[str]]:
    """An ONNX file as an INT8 device runs it, with notes for the reader of its costs.

    A quantised file is taken as it is; a float one is quantised with made-up ranges. `inputs` gives the sizes that the
    file leaves open; they are fixed in the quantised one.

    Raises:
        CostError: it is no model.
        HwnasError: it can't be quantised.
    """
    if is_quantized(parse(path)):
        return path, []
    model, _ = load_with_external_data(path)
    if inputs is not None and not inputs.only_batch:
        inputs.written_into(model)
    try:
        content = quantize_like(model.SerializeToString(), feeds=inputs.arrays() if inputs is not None else None)
    except (ValueError, QuantizationError) as error:
        raise HwnasError(f"{path}: {error}; --precision fp32 measures it as it is") from error
    return content, [
        f"{path.name} is a float model: these are the costs of its INT8 form, with made-up ranges, which cost the "
        "same as calibrated ones",
        *(f"stays float: {reason}" for reason in dict.fromkeys(float_reasons(onnx.load_from_string(content)).values())),
    ]


def calibration_images(data: DataSet) -> npt.NDArray[np.float32]:
    """Up to 256 training images, evenly taken from all of them, as network inputs (N, C, H, W)."""
    count = len(data.train.images)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _CALIBRATION_IMAGES)).astype(np.int64))
    return data.preprocessing.apply(data.train.images[chosen])


def validation_accuracy(model: bytes, data: DataSet, threads: int = 1) -> float:
    """Accuracy of an ONNX model on the validation images through ONNX Runtime, 0 to 1."""
    return accuracy(model, data.preprocessing.apply(data.validation.images), data.validation.labels, threads=threads)
