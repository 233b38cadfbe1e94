"""INT8: static quantisation of an exported model, calibrated on real inputs; no torch."""

from __future__ import annotations

import logging
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from export.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

_BATCH = 32


class QuantizationError(ExportError):
    """ONNX Runtime's quantiser can't handle the model."""


def quantize_int8(model: onnx.ModelProto, calibration: npt.NDArray[np.float32]) -> onnx.ModelProto:
    """Quantise weights (signed, per channel) and activations (unsigned) as QDQ pairs, by minimum and maximum.

    u8s8 per channel is the form that ONNX Runtime's CPU kernels are fastest with.

    Args:
        model: one input, batch first, embedded weights.
        calibration: real inputs, (N, C, H, W).

    Raises:
        QuantizationError: the quantiser refuses the model.
    """
    name = model.graph.input[0].name
    copy = onnx.ModelProto()  # the quantiser moves the weights of what it is given into a file of its own
    copy.CopyFrom(model)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        target = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                copy,
                target,
                _Inputs(name, calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        except (ValueError, RuntimeError, AssertionError) as error:
            raise QuantizationError(f"the model can't be quantised: {error}") from error
        quantized = onnx.load(target)
    quantized.metadata_props.extend(p for p in model.metadata_props if p not in quantized.metadata_props)
    quantized.producer_name = model.producer_name
    return quantized


class _Inputs(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Feeds the calibration images in batches."""

    def __init__(self, name: str, images: npt.NDArray[np.float32]) -> None:
        self._batches = iter([{name: images[i : i + _BATCH]} for i in range(0, len(images), _BATCH)])

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        """The next batch, None at the end."""
        return next(self._batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises on the root logger what this module has decided already."""

    def drop(record: logging.LogRecord) -> bool:
        return "pre-processing" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(drop)
    try:
        yield
    finally:
        root.removeFilter(drop)
