"""Whether the winner is shipped as INT8: the search for its best form, and the decision with its figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from export.quantization.quantize import QuantizationError
from pipeline.costs.precision import calibration_images
from pipeline.trials.reporter import Reporter
from pipeline.winner.int8_search import FLOAT, Int8Search

if TYPE_CHECKING:
    import onnx

    from latency_models.timing.meter import LatencyMeter
    from pipeline.data import DataSet
    from pipeline.winner.int8_search import Int8Outcome, OnProgress


_COMPARE_S = 2.0


@dataclass(frozen=True)
class Int8Decision:
    """Outcome of the INT8 decision.

    Attributes:
        model: the quantised file if it is shipped, else None.
        facts: for the manifest: `kept`, `reason`, and the figures that decided.
    """

    model: bytes | None
    facts: dict[str, Any] = field(default_factory=dict)


def search_int8(
    graph: onnx.ModelProto, data: DataSet, meter: LatencyMeter, max_loss: float, on_progress: OnProgress | None = None
) -> Int8Outcome:
    """Find the best INT8 form of a network: the fastest that loses no more than `max_loss`.

    Args:
        graph: the exported fp32 model.
        data: with training images for calibration, and validation images for accuracy.
        meter: of the run's device.
        max_loss: validation accuracy that may be lost, 0 to 1. Where every form loses more: the most accurate one.
        on_progress: called with what is being tried and the share of the work, 0 to 1, that is done.

    Raises:
        QuantizationError: it can't be quantised.
    """
    return Int8Search(graph, calibration_images(data), data, meter, max_loss, on_progress or Reporter().progress).run()


def int8_for_device(graph: onnx.ModelProto, outcome: Int8Outcome, meter: LatencyMeter) -> Int8Decision:
    """Decide for an INT8 device: the file is shipped in any case, with its distance from fp32.

    Args:
        graph: the exported fp32 model.
        outcome: of its search.
        meter: of the run's device.
    """
    facts = _facts(graph, outcome, meter)
    remark = "" if facts["latency_ratio_low"] < 1.0 else "; fp32 would not be slower on this device"
    reason = f"it is the precision asked for; {_summary(facts)}{remark}"
    return Int8Decision(outcome.model, {"kept": True, "reason": reason, **facts})


def try_int8(
    graph: onnx.ModelProto, data: DataSet, meter: LatencyMeter, max_loss: float, on_progress: OnProgress | None = None
) -> Int8Decision:
    """Decide for an fp32 device: the best INT8 form is shipped if it is faster beyond doubt and accurate enough.

    The search chose the form for its measured time, which flatters it: the time that decides is measured anew.

    Args:
        graph: the exported fp32 model.
        data: with training images for calibration, and validation images for accuracy.
        meter: of the run's device.
        max_loss: validation accuracy that may be lost, 0 to 1.
        on_progress: as for `search_int8`.
    """
    try:
        outcome = search_int8(graph, data, meter, max_loss, on_progress)
    except QuantizationError as error:
        return Int8Decision(None, {"kept": False, "reason": str(error)})
    facts = _facts(graph, outcome, meter)
    if reason := _objection(facts, outcome, max_loss):
        return Int8Decision(None, {"kept": False, "reason": reason, **facts})
    return Int8Decision(outcome.model, {"kept": True, "reason": _summary(facts), **facts})


def _objection(facts: dict[str, Any], outcome: Int8Outcome, max_loss: float) -> str:
    """The reason for not shipping the file, in words; empty where there is none."""
    reasons = []
    if not facts["latency_ratio_high"] < 1.0:
        reasons.append(f"isn't faster ({_time(facts)})")
    if not outcome.chosen.loss <= max_loss:
        reasons.append(f"loses {outcome.chosen.loss:.4f} of validation accuracy ({max_loss:g} may be lost)")
    if not reasons:
        return ""
    count = len(outcome.tried)
    which = f"the best of {count} attempts" if count > 1 else "the only attempt"
    return f"{which} {' and '.join(reasons)}; it had {_form(facts)}"


def _facts(graph: onnx.ModelProto, outcome: Int8Outcome, meter: LatencyMeter) -> dict[str, Any]:
    ratio = meter.compare(outcome.model, graph.SerializeToString(), budget_s=_COMPARE_S)
    return {
        "latency_ratio": ratio.ratio,
        "latency_ratio_low": ratio.low,
        "latency_ratio_high": ratio.high,
        "accuracy_validation": outcome.chosen.accuracy,
        "accuracy_validation_fp32": outcome.chosen.accuracy_fp32,
        "size_bytes": len(outcome.model),
        **outcome.as_dict(),
    }


def _summary(facts: dict[str, Any]) -> str:
    after, before = facts["accuracy_validation"], facts["accuracy_validation_fp32"]
    return f"{_time(facts)}; validation accuracy {after:.4f}, in fp32 {before:.4f}; it has {_form(facts)}"


def _time(facts: dict[str, Any]) -> str:
    ratio, low, high = (facts[f"latency_ratio{end}"] for end in ("", "_low", "_high"))
    return f"{ratio:.2f} times fp32's latency, 95 % interval {low:.2f} to {high:.2f}"


def _form(facts: dict[str, Any]) -> str:
    """The form in words, such as `stem, head in float, all else quantised, ranges by entropy`."""
    floats = facts["plan"].removeprefix(FLOAT)
    what = "everything quantised" if floats == facts["plan"] else f"{floats} in float, all else quantised"
    return f"{what}, ranges by {facts['method']}"
