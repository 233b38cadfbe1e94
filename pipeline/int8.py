"""Whether the winner is also shipped as INT8: only where that is measured faster and accurate enough."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from export.quantize import QuantizationError, quantize_int8
from export.verify import accuracy

if TYPE_CHECKING:
    import onnx

    from latency_models.timing import LatencyMeter
    from pipeline.data import DataSet

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


def try_int8(graph: onnx.ModelProto, data: DataSet, meter: LatencyMeter, max_loss: float) -> Int8:
    """Quantise, time both in alternation, compare their validation accuracies.

    Args:
        graph: the exported fp32 model.
        data: calibrated on its training images, judged on its validation images.
        meter: of the run's device.
        max_loss: validation accuracy that may be lost, 0 to 1.
    """
    apply = data.preprocessing.apply
    try:
        quantized = quantize_int8(graph, apply(data.train.images[:_CALIBRATION_IMAGES])).SerializeToString()
    except QuantizationError as error:
        return Int8(None, {"kept": False, "reason": str(error)})
    plain = graph.SerializeToString()
    ratio = meter.compare(quantized, plain, budget_s=_COMPARE_S)
    images, labels = apply(data.validation.images), data.validation.labels
    found, before = accuracy(quantized, images, labels), accuracy(plain, images, labels)
    facts = {
        "latency_ratio": ratio.ratio,
        "latency_ratio_low": ratio.low,
        "latency_ratio_high": ratio.high,
        "accuracy_validation": found,
        "accuracy_validation_fp32": before,
        "size_bytes": len(quantized),
    }
    reasons = []
    if ratio.high >= 1.0:
        reasons.append(f"it isn't faster: {ratio.ratio:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) times fp32's latency")
    if before - found > max_loss:
        reasons.append(f"it loses {before - found:.4f} validation accuracy, more than {max_loss:g}")
    if reasons:
        return Int8(None, {"kept": False, "reason": "; ".join(reasons), **facts})
    reason = f"{ratio.ratio:.2f} times fp32's latency, validation accuracy {found:.4f} against {before:.4f}"
    return Int8(quantized, {"kept": True, "reason": reason, **facts})
