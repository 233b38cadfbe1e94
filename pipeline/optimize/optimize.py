"""The work of `hwnas optimize`: an ONNX file with its activations and pools in the cheapest exact form for a device.

The new file is never slower, and its outputs are the same to 1e-5: they are compared with the old file's, and both are
timed in alternation. Where nothing is gained, the file is written unchanged.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from export import onnx_file
from export.errors import InvalidFileError
from export.lowering.form_choice import choose_forms
from export.lowering.lower import lower_with_report
from export.lowering.skipped import skipped_nodes
from latency_models.devices.resolve import resolve_device
from latency_models.errors import InvalidModelError
from latency_models.graph.external_data import load_with_external_data
from latency_models.graph.model_inputs import NOTHING_GIVEN, GivenInputs, model_inputs
from latency_models.runners.runner import session
from latency_models.timer import RefusedError
from latency_models.timing.meter import LatencyMeter
from pipeline.errors import HwnasError
from pipeline.files import check_writable, write_whole

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence
    from pathlib import Path

    from export.lowering.activation_sites import LoweredSite
    from export.lowering.lower import LoweringResult
    from latency_models.devices.device import Device
    from latency_models.graph.model_inputs import ModelInputs
    from latency_models.timing.statistics import Ratio
    from pipeline.trials.reporter import Reporter

TOLERANCE = 1e-5
"""Largest allowed difference of an output, as a share of the largest value in it."""
_VARIANT_SHARE = 0.5  # of the time given, for choosing forms
_REFUSALS: tuple[type[Exception], ...] = (*onnx_file.CHECKER_ERRORS, InvalidFileError)
_GELU_OPSET = 20  # of the first Gelu operator
_NOTHING = "nothing in it has a cheaper form"


@dataclass(frozen=True)
class _Candidate:
    content: bytes
    lowered: LoweringResult
    opset: int | None


def optimize(
    model: Path,
    output: Path,
    device: Device,
    *,
    given: GivenInputs = NOTHING_GIVEN,
    seconds: float,
    reporter: Reporter,
) -> dict[str, Any]:
    """Write the optimised file and return what was changed and gained.

    The user's mistakes are found before anything is timed.

    Args:
        model: an ONNX file.
        output: a file, which may exist already; neither the model nor its weights.
        device: that the model is timed on.
        given: sizes and values of the model's inputs; see `latency_models.graph.model_inputs`.
        seconds: of timing.
        reporter: hears the progress.

    Raises:
        HwnasError: the output can't be written there.
        CostError: no model, one with open sizes that aren't given, or one that the device can't run.
    """
    original, weights = load_with_external_data(model)
    _check_place(model, output, weights)
    inputs = model_inputs(original, model, device.batch_size, given)
    trial = _Trial(model, inputs, replace(device, batch_size=inputs.batch_size))
    result, content = _optimized(original, trial, seconds, reporter)
    write_whole(output.resolve(), content)
    return {"model": str(model), "output": str(output), **result}


@dataclass(frozen=True)
class _Trial:
    """The inputs and the device that a file's model is run with."""

    path: Path
    inputs: ModelInputs
    device: Device

    def feed(self, content: bytes) -> dict[str, np.ndarray]:
        """The inputs, with which the model has run.

        Raises:
            InvalidModelError: it can't be run with them.
        """
        cpu = resolve_device("cpu", 1, self.device.batch_size, "fp32")
        try:
            return session(content, cpu, self.inputs.arrays()).feed
        except RefusedError as refused:
            raise self.inputs.refused(InvalidModelError(str(self.path), refused.reason)) from refused


def _optimized(
    original: onnx.ModelProto, trial: _Trial, seconds: float, reporter: Reporter
) -> tuple[dict[str, Any], bytes]:
    """The document of the result, and the file's content."""
    before = original.SerializeToString()
    feed = trial.feed(before)
    reporter.stage("Looking for activations and pools")
    unseen = skipped_nodes(original)
    with LatencyMeter(trial.device) as meter:
        candidate = _best(original, trial, meter, seconds * _VARIANT_SHARE, reporter)
        left = seconds * (1 - _VARIANT_SHARE)
        reason, ratio, difference = _verdict(before, candidate, feed, trial, meter, left, reporter)
    if reason is _NOTHING and unseen:
        reason = "nothing that was looked at has a cheaper form"
    kept = reason is None
    result = {
        "changed": kept,
        "reason": reason or "faster, and the same",
        "ratio": ratio.ratio if ratio else None,
        "ratio_low": ratio.low if ratio else None,
        "ratio_high": ratio.high if ratio else None,
        "largest_difference": difference,
        "activations": _activation_rows(candidate.lowered.sites),
        "pools": candidate.lowered.pools,
        "not_looked_at": [asdict(each) for each in unseen],
        "opset": candidate.opset if kept else onnx_file.opset_of(original),
        "device": trial.device.as_dict(),
        "shapes": {name: list(shape) for name, shape in trial.inputs.shapes.items()},
        "notes": list(trial.inputs.notes),
    }
    return result, candidate.content if kept else before


def _best(
    original: onnx.ModelProto, trial: _Trial, meter: LatencyMeter, seconds: float, reporter: Reporter
) -> _Candidate:
    source = _raised(original) or original

    def measure(models: Sequence[bytes]) -> list[tuple[float, float]]:
        reporter.stage(f"Timing {len(models)} ways to write its activations")
        together = meter.measure_together(models, budget_s=seconds, inputs=[trial.inputs.fed()] * len(models))
        return [(each.ratio, each.high) for each in together.ratios]

    lowered = lower_with_report(source, choose_forms(source, measure))
    return _Candidate(lowered.model.SerializeToString(), lowered, onnx_file.opset_of(source))


def _raised(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The model at the opset that has Gelu, if it has a decomposed one and can be converted; else None."""
    if not any(site.activation == "gelu_tanh" for site in lower_with_report(model).sites):
        return None
    if (onnx_file.opset_of(model) or 0) >= _GELU_OPSET:
        return None
    try:
        raised = onnx.version_converter.convert_version(model, _GELU_OPSET)
        onnx_file.check_model(raised.SerializeToString())
    except _REFUSALS:
        return None
    return raised


def _verdict(
    before: bytes,
    candidate: _Candidate,
    feed: dict[str, np.ndarray],
    trial: _Trial,
    meter: LatencyMeter,
    seconds: float,
    reporter: Reporter,
) -> tuple[str | None, Ratio | None, float | None]:
    """The reason for leaving the file as it is (None for changing it), the times' ratio, and the largest difference."""
    changed = candidate.lowered.pools or any(site.before != site.after for site in candidate.lowered.sites)
    if not changed:
        return _NOTHING, None, None
    try:
        difference = _difference(before, candidate.content, _feeds(feed, trial.inputs.values))
    except InvalidFileError as error:
        return f"the new file can't be run: {error.reason}", None, None
    if difference > TOLERANCE:
        return f"its outputs would differ by {difference:.2g} of the largest", None, difference
    reporter.stage("Timing the new file beside the old one")
    ratio = meter.compare(candidate.content, before, budget_s=seconds, inputs=trial.inputs.fed())
    if ratio.high >= 1.0:
        return (
            f"it wouldn't be faster: {ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f}) of its time",
            ratio,
            difference,
        )
    return None, ratio, difference


def _difference(before: bytes, after: bytes, feeds: Iterable[dict[str, np.ndarray]]) -> float:
    """The largest difference of an output on the inputs, as a share of the output's largest value."""
    old, new = onnx_file.open_session(before), onnx_file.open_session(after)
    largest = 0.0
    for each in feeds:
        pairs = zip(old.run(None, each), new.run(None, each), strict=True)
        for expected, actual in pairs:
            if np.asarray(expected).dtype.kind != "f" or not np.size(expected):
                largest = max(largest, 0.0 if np.array_equal(expected, actual) else np.inf)
                continue
            if not np.array_equal(np.isfinite(expected), np.isfinite(actual)):
                return float("inf")
            with np.errstate(invalid="ignore"):
                difference = np.nanmax(np.abs(np.where(np.isfinite(expected), expected - actual, 0.0)))
                size = np.nanmax(np.abs(np.where(np.isfinite(expected), expected, 0.0)))
            largest = max(largest, float(difference / size) if size else float(difference))
    return largest


def _feeds(feed: dict[str, np.ndarray], given: Container[str]) -> Iterator[dict[str, np.ndarray]]:
    """Yield the inputs that are timed, and normal ones with standard deviations 1 and 4 in place of made-up floats."""
    random = np.random.default_rng(0)
    yield feed
    for spread in (1.0, 4.0):
        yield {
            name: (spread * random.standard_normal(array.shape)).astype(array.dtype)
            if array.dtype.kind == "f" and name not in given
            else array
            for name, array in feed.items()
        }


def _activation_rows(sites: Sequence[LoweredSite]) -> list[dict[str, Any]]:
    """Rows of the result's `activations`, one for all sites that are alike."""
    rows = Counter(
        (site.name, site.form, site.folded, " ".join(site.before), " ".join(site.after), site.deviations)
        for site in sites
    )
    return [
        {
            "activation": activation,
            "sites": count,
            "before": before,
            "after": after,
            "form": form,
            "scales_folded": folded,
            "deviations": list(deviations),
        }
        for (activation, form, folded, before, after, deviations), count in rows.most_common()
    ]


def _check_place(model: Path, output: Path, weights: Iterable[Path]) -> None:
    """Check that the new file can be written, and replaces neither the model nor its weights."""
    if output.is_dir():
        raise HwnasError(f"{output} is a directory; name a file in it")
    if not output.parent.is_dir():
        raise HwnasError(f"there is no directory {output.parent}")
    if output.exists():
        if not output.is_file():
            raise HwnasError(f"{output} is no regular file; name another one")
        if output.samefile(model):
            raise HwnasError(f"{output} is the model itself; name another file")
        if any(output.samefile(each) for each in weights):
            raise HwnasError(f"{output} has the model's weights in it; name another file")
    try:
        check_writable(output.resolve())
    except OSError as error:
        raise HwnasError(f"{output.resolve()} can't be written: {error.strerror or error}") from error
