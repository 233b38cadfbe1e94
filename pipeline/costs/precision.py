"""What a network becomes on a device of a precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.checks import accuracy
from export.quantization.quantize import QuantizationError, is_quantized, quantize_like
from latency_models.graph.model_file import parse
from pipeline.costs.external_data import whole_model
from pipeline.errors import HwnasError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from pipeline.data import DataSet

    Prepare = Callable[[bytes], bytes]


INT8 = "int8"


_CALIBRATION_IMAGES = 256


def quantizer_for(precision: str) -> Prepare:
    """What turns a float model, whole or a block of one, into what a device of that precision runs.

    The numbers in it are made up: it is for costs alone. A plain function, which another process can be sent.
    """
    return quantize_like if precision == INT8 else _as_it_is


def _as_it_is(model: bytes) -> bytes:
    return model


def prepared_file(path: Path) -> tuple[bytes | Path, list[str]]:
    """An ONNX file as an INT8 device runs it, and what a reader of its costs has to know.

    A file that is quantised is taken as it is; a float one is quantised with made-up ranges.

    Raises:
        CostError: it is no model.
        HwnasError: it can't be quantised.
    """
    if is_quantized(parse(path)):
        return path, []
    model, _ = whole_model(path)
    try:
        content = quantize_like(model.SerializeToString())
    except (ValueError, QuantizationError) as error:
        raise HwnasError(f"{path}: {error}; --precision fp32 measures it as it is") from error
    return content, [
        f"{path.name} is a float model: these are the costs of its INT8 form, with made-up ranges, which cost the "
        "same as calibrated ones"
    ]


def calibration(data: DataSet) -> npt.NDArray[np.float32]:
    """Training images, evenly taken from all of them, as the network's inputs."""
    count = len(data.train.images)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _CALIBRATION_IMAGES)).astype(np.int64))
    return data.preprocessing.apply(data.train.images[chosen])


def quantized_accuracy(model: bytes, data: DataSet, threads: int = 1) -> float:
    """Validation accuracy through ONNX Runtime, 0 to 1."""
    return accuracy(model, data.preprocessing.apply(data.validation.images), data.validation.labels, threads=threads)
