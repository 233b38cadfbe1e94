"""Networks at INT8: what a candidate costs and knows on an INT8 device, and whether the winner is shipped as INT8."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from export.quantization.quantize import QuantizationError
from pipeline.costs.precision import calibration
from pipeline.winner.int8_search import FLOAT, Int8Search

if TYPE_CHECKING:
    import onnx

    from latency_models.timing.meter import LatencyMeter
    from pipeline.data import DataSet
    from pipeline.winner.int8_search import Int8Outcome, Say


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


def search_int8(
    graph: onnx.ModelProto, data: DataSet, meter: LatencyMeter, max_loss: float, say: Say | None = None
) -> Int8Outcome:
    """The best INT8 form of a network: the fastest that loses no more than `max_loss`.

    Args:
        graph: the exported fp32 model.
        data: calibrated on its training images, judged on its validation images.
        meter: of the run's device.
        max_loss: validation accuracy that may be lost, 0 to 1. Where every form loses more: the most accurate one.
        say: hears what is being tried, and which share (0 to 1) is done.

    Raises:
        QuantizationError: it can't be quantised.
    """
    return Int8Search(graph, calibration(data), data, meter, max_loss, say or _silent).run()


def _silent(text: str, share: float) -> None:
    """Nobody listens."""


def of_device(graph: onnx.ModelProto, found: Int8Outcome, meter: LatencyMeter) -> Int8:
    """The INT8 file of an INT8 device: kept in any case, with its distance from fp32.

    Args:
        graph: the exported fp32 model.
        found: of its search.
        meter: of the run's device.
    """
    facts = _facts(graph, found, meter)
    verdict = "" if facts["latency_ratio_low"] < 1.0 else "; fp32 would not be slower on this device"
    reason = f"it is the precision asked for; {_summary(facts)}{verdict}"
    return Int8(found.model, {"kept": True, "reason": reason, **facts})


def try_int8(
    graph: onnx.ModelProto, data: DataSet, meter: LatencyMeter, max_loss: float, say: Say | None = None
) -> Int8:
    """For an fp32 device: the best INT8 form, kept where it is faster beyond doubt and accurate enough.

    The form was chosen for its measured time, which flatters it: the time that decides is taken afresh.

    Args:
        graph: the exported fp32 model.
        data: calibrated on its training images, judged on its validation images.
        meter: of the run's device.
        max_loss: validation accuracy that may be lost, 0 to 1.
        say: hears what is being tried.
    """
    try:
        found = search_int8(graph, data, meter, max_loss, say)
    except QuantizationError as error:
        return Int8(None, {"kept": False, "reason": str(error)})
    facts = _facts(graph, found, meter)
    if reason := _against(facts, found, max_loss):
        return Int8(None, {"kept": False, "reason": reason, **facts})
    return Int8(found.model, {"kept": True, "reason": _summary(facts), **facts})


def _against(facts: dict[str, Any], found: Int8Outcome, max_loss: float) -> str:
    """Why it isn't shipped, as the rest of a sentence; nothing where it is."""
    reasons = []
    if not facts["latency_ratio_high"] < 1.0:
        reasons.append(f"isn't faster ({_time(facts)})")
    if not found.chosen.loss <= max_loss:
        reasons.append(f"loses {found.chosen.loss:.4f} of validation accuracy ({max_loss:g} may be lost)")
    if not reasons:
        return ""
    count = len(found.tried)
    which = f"the best of {count} attempts" if count > 1 else "the only attempt"
    return f"{which} {' and '.join(reasons)}; it had {_form(facts)}"


def _facts(graph: onnx.ModelProto, found: Int8Outcome, meter: LatencyMeter) -> dict[str, Any]:
    ratio = meter.compare(found.model, graph.SerializeToString(), budget_s=_COMPARE_S)
    return {
        "latency_ratio": ratio.ratio,
        "latency_ratio_low": ratio.low,
        "latency_ratio_high": ratio.high,
        "accuracy_validation": found.chosen.accuracy,
        "accuracy_validation_fp32": found.chosen.accuracy_fp32,
        "size_bytes": len(found.model),
        **found.as_dict(),
    }


def _summary(facts: dict[str, Any]) -> str:
    after, before = facts["accuracy_validation"], facts["accuracy_validation_fp32"]
    return f"{_time(facts)}; validation accuracy {after:.4f}, in fp32 {before:.4f}; it has {_form(facts)}"


def _time(facts: dict[str, Any]) -> str:
    ratio, low, high = (facts[f"latency_ratio{end}"] for end in ("", "_low", "_high"))
    return f"{ratio:.2f} times fp32's latency, 95 % interval {low:.2f} to {high:.2f}"


def _form(facts: dict[str, Any]) -> str:
    """As in: `stem, head in float, all else quantised, ranges by entropy`."""
    floats = facts["plan"].removeprefix(FLOAT)
    what = "everything quantised" if floats == facts["plan"] else f"{floats} in float, all else quantised"
    return f"{what}, ranges by {facts['method']}"
