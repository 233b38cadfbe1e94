"""`hwnas optimize`: any ONNX file with its activations and pools in the cheapest exact form for a device.

What comes out is never slower and never different: the new file's outputs are compared with the old one's, and both
are timed in alternation; where nothing is gained, the file is written as it was.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from export import onnx_file
from export.errors import InvalidFileError
from export.form_choice import choose_forms
from export.lowering import lower_and_tell
from latency_models.profile import parse
from latency_models.runner import check_readable, session
from latency_models.timing import LatencyMeter
from pipeline.errors import HwnasError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from export.activation_lowering import Site
    from export.lowering import Lowered
    from latency_models.device import Device
    from latency_models.statistics import Ratio
    from pipeline.console import Reporter

TOLERANCE = 1e-5
"""Largest difference of an output, as a share of the largest value in it."""
_VARIANT_SHARE = 0.5  # of the time given, for choosing forms
_GELU_OPSET = 20  # of the first Gelu operator
_LARGEST_BYTES = 2**31 - 1  # of one protobuf


@dataclass(frozen=True)
class _Candidate:
    content: bytes
    lowered: Lowered
    opset: int | None


def optimize(model: Path, output: Path, device: Device, *, seconds: float, reporter: Reporter) -> dict[str, Any]:
    """Write `output`, and tell what was changed and gained; `seconds` are spent on timing.

    Raises:
        HwnasError: the output can't be written there, or the model is too large for one file.
        CostError: no model, or one that the device can't run.
    """
    check_readable(model)
    _check_place(model, output)
    original = _whole(model)
    before = original.SerializeToString()
    with LatencyMeter(device) as meter:
        reporter.stage("Looking for activations and pools")
        candidate = _best(original, device, meter, seconds * _VARIANT_SHARE, reporter)
        reason, ratio, difference = _verdict(before, candidate, device, meter, seconds * (1 - _VARIANT_SHARE), reporter)
    kept = reason is None
    _write(output, candidate.content if kept else before)
    return {
        "model": str(model),
        "output": str(output),
        "changed": kept,
        "reason": reason or "faster, and the same",
        "ratio": ratio.ratio if ratio else None,
        "ratio_low": ratio.low if ratio else None,
        "ratio_high": ratio.high if ratio else None,
        "largest_difference": difference,
        "activations": _told(candidate.lowered.sites),
        "pools": candidate.lowered.pools,
        "opset": candidate.opset if kept else onnx_file.opset_of(original),
        "device": device.as_dict(),
    }


def _best(
    original: onnx.ModelProto, device: Device, meter: LatencyMeter, seconds: float, reporter: Reporter
) -> _Candidate:
    source = _raised(original) or original

    def measure(models: Sequence[bytes]) -> list[tuple[float, float]]:
        reporter.stage(f"Timing {len(models)} ways to write its activations")
        return [(each.ratio, each.high) for each in meter.together(models, budget_s=seconds).ratios]

    lowered = lower_and_tell(source, choose_forms(source, measure))
    return _Candidate(lowered.model.SerializeToString(), lowered, onnx_file.opset_of(source))


def _raised(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """At the opset that has Gelu, where the model has one in another form and can be brought there."""
    if not any(site.activation == "gelu_tanh" for site in lower_and_tell(model).sites):
        return None
    if (onnx_file.opset_of(model) or 0) >= _GELU_OPSET:
        return None
    try:
        raised = onnx.version_converter.convert_version(model, _GELU_OPSET)
        onnx_file.check_model(raised.SerializeToString())
    except (RuntimeError, ValueError, onnx.checker.ValidationError, InvalidFileError):
        return None
    return raised


def _verdict(
    before: bytes, candidate: _Candidate, device: Device, meter: LatencyMeter, seconds: float, reporter: Reporter
) -> tuple[str | None, Ratio | None, float | None]:
    """Why the file is left as it was (None where it isn't), the times' ratio, and the largest difference."""
    changed = candidate.lowered.pools or any(site.before != site.after for site in candidate.lowered.sites)
    if not changed:
        return "nothing in it has a cheaper form", None, None
    try:
        difference = _difference(before, candidate.content, device)
    except InvalidFileError as error:
        return f"the new file can't be run: {error.reason}", None, None
    if difference > TOLERANCE:
        return f"its outputs would differ by {difference:.2g} of the largest", None, difference
    reporter.stage("Timing the new file beside the old one")
    ratio = meter.compare(candidate.content, before, budget_s=seconds)
    if ratio.high >= 1.0:
        return (
            f"it wouldn't be faster: {ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f}) of its time",
            ratio,
            difference,
        )
    return None, ratio, difference


def _difference(before: bytes, after: bytes, device: Device) -> float:
    """The largest difference of an output on made-up inputs, as a share of the output's largest value."""
    old, new = onnx_file.open_session(before), onnx_file.open_session(after)
    largest = 0.0
    for feed in _feeds(before, device):
        pairs = zip(old.run(None, feed), new.run(None, feed), strict=True)
        for expected, found in pairs:
            if np.asarray(expected).dtype.kind != "f" or not np.size(expected):
                largest = max(largest, 0.0 if np.array_equal(expected, found) else np.inf)
                continue
            if not np.array_equal(np.isfinite(expected), np.isfinite(found)):
                return float("inf")
            with np.errstate(invalid="ignore"):
                apart = np.nanmax(np.abs(np.where(np.isfinite(expected), expected - found, 0.0)))
                size = np.nanmax(np.abs(np.where(np.isfinite(expected), expected, 0.0)))
            largest = max(largest, float(apart / size) if size else float(apart))
    return largest


def _feeds(model: bytes, device: Device) -> Iterator[dict[str, np.ndarray]]:
    """Inputs from 0 to 1, as the ones that are timed, and such as are spread around 0, some widely."""
    feed = session(model, device, None).feed
    random = np.random.default_rng(0)
    yield feed
    for spread in (1.0, 4.0):
        yield {
            name: (spread * random.standard_normal(array.shape)).astype(array.dtype)
            if array.dtype.kind == "f"
            else array
            for name, array in feed.items()
        }


def _told(sites: Sequence[Site]) -> list[dict[str, Any]]:
    """Alike sites as one row."""
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


def _whole(path: Path) -> onnx.ModelProto:
    """The model with its weights in it."""
    model = parse(path)
    try:
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise HwnasError(f"{path}: its external data can't be read: {error}") from error
    for tensor in onnx_file.all_tensors(model):
        tensor.ClearField("data_location")
    if model.ByteSize() > _LARGEST_BYTES:
        raise HwnasError(f"{path}: with its weights it is larger than the 2 GB that one ONNX file can be")
    return model


def _check_place(model: Path, output: Path) -> None:
    if output.exists() and output.samefile(model):
        raise HwnasError(f"{output} is the model itself; name another file")
    if output.is_dir():
        raise HwnasError(f"{output} is a directory; name a file in it")
    if not output.parent.is_dir():
        raise HwnasError(f"there is no directory {output.parent}")


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(path)
