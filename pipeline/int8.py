"""Networks at INT8: what a candidate costs and knows on an INT8 device, and whether the winner is shipped as INT8."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from export.quantize import QuantizationError, is_quantized, quantize_int8, quantize_like
from export.verify import accuracy
from latency_models.profile import parse
from pipeline.errors import HwnasError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from latency_models.timing import LatencyMeter, Ratio
    from pipeline.data import DataSet

    Prepare = Callable[[bytes], bytes]

INT8 = "int8"
_CALIBRATION_IMAGES = 256
_COMPARE_S = 2.0


@dataclass(frozen=True)
class Int8:
    """What came of it.

    Attributes:
        model: the quantised file where it is kept; None otherwise.
        facts: for the manifest: `kept`, `reason`, and the figures that decided.
    """

    model: bytes | None
    facts: dict[str, Any] = field(default_factory=dict)


def prepare_of(precision: str) -> Prepare:
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
    model = parse(path)
    if is_quantized(model):
        return path, []
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        for tensor in model.graph.initializer:
            tensor.ClearField("data_location")
        content = quantize_like(model.SerializeToString())
    except (OSError, ValueError, onnx.checker.ValidationError, QuantizationError) as error:
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


def of_device(graph: onnx.ModelProto, quantized: bytes, data: DataSet, meter: LatencyMeter) -> Int8:
    """The INT8 file of an INT8 device: kept in any case, with its distance from fp32.

    Args:
        graph: the exported fp32 model.
        quantized: what `quantize_int8` made of it.
        data: judged on its validation images.
        meter: of the run's device.
    """
    plain = graph.SerializeToString()
    ratio = meter.compare(quantized, plain, budget_s=_COMPARE_S)
    facts = _facts(quantized, plain, ratio, data)
    verdict = "" if ratio.low < 1.0 else "; fp32 would not be slower on this device"
    return Int8(quantized, {"kept": True, "reason": f"the device's precision; {_summary(facts)}{verdict}", **facts})


def _facts(quantized: bytes, plain: bytes, ratio: Ratio, data: DataSet) -> dict[str, Any]:
    return {
        "latency_ratio": ratio.ratio,
        "latency_ratio_low": ratio.low,
        "latency_ratio_high": ratio.high,
        "accuracy_validation": quantized_accuracy(quantized, data),
        "accuracy_validation_fp32": quantized_accuracy(plain, data),
        "size_bytes": len(quantized),
    }


def _summary(facts: dict[str, Any]) -> str:
    found, before = facts["accuracy_validation"], facts["accuracy_validation_fp32"]
    return f"{facts['latency_ratio']:.2f} times fp32's latency, validation accuracy {found:.4f} against {before:.4f}"


def try_int8(graph: onnx.ModelProto, data: DataSet, meter: LatencyMeter, max_loss: float) -> Int8:
    """For an fp32 device: quantise, time both in alternation, compare their validation accuracies.

    Args:
        graph: the exported fp32 model.
        data: calibrated on its training images, judged on its validation images.
        meter: of the run's device.
        max_loss: validation accuracy that may be lost, 0 to 1.
    """
    try:
        quantized = quantize_int8(graph, calibration(data)).SerializeToString()
    except QuantizationError as error:
        return Int8(None, {"kept": False, "reason": str(error)})
    plain = graph.SerializeToString()
    ratio = meter.compare(quantized, plain, budget_s=_COMPARE_S)
    facts = _facts(quantized, plain, ratio, data)
    loss = facts["accuracy_validation_fp32"] - facts["accuracy_validation"]
    reasons = []
    if ratio.high >= 1.0:
        reasons.append(f"it isn't faster: {ratio.ratio:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) times fp32's latency")
    if loss > max_loss:
        reasons.append(f"it loses {loss:.4f} validation accuracy, more than {max_loss:g}")
    if reasons:
        return Int8(None, {"kept": False, "reason": "; ".join(reasons), **facts})
    return Int8(quantized, {"kept": True, "reason": _summary(facts), **facts})
