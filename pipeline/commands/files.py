"""The commands on files: profile, compare, predict and optimize an ONNX model, verify a bundle, list what there is."""

from __future__ import annotations

import importlib
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.results import ComparisonRow, LatencyPrediction, ModelProfile, Optimization, Verification
from pipeline.errors import HwnasError, UnknownNameError
from pipeline.trials.reporter import Reporter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from latency_models.devices.device import Device


def profile(
    model: str | Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    seconds: float = 2.0,
    per_node: bool = False,
) -> ModelProfile:
    """Measure the latency, memory and energy of an ONNX file on a device, and count its work.

    Args:
        model: an ONNX file. At precision int8 a float one is quantised for it, with made-up ranges.
        device: a name of `hwnas list devices`.
        threads: of one inference; the device's own, or 1.
        batch_size: images of one inference; the device's own, or 1.
        precision: fp32 or int8; the device's own, or fp32.
        seconds: for the latency; energy takes some more.
        per_node: whether to tell where the time goes, too, by module, activation and operator.

    Raises:
        CostError: no loadable model, or one that the device can't run.
        HwnasError: it can't be quantised.
    """
    from latency_models.model_profile import profile as measure

    path = Path(model)
    found = _device(device, threads, batch_size, precision)
    content, notes = _as_deployed(path, found)
    result: dict[str, Any] = measure(content, found, budget_s=seconds, footprint=True).as_dict()
    if per_node:
        from export.lowering.recognition import activations_by_output
        from latency_models.node_profile import node_profile

        nodes = node_profile(
            content,
            found,
            recognise=activations_by_output,
            latency_ms=result["latency_ms"],
            budget_s=max(seconds, 1.0),
        )
        result["per_node"] = nodes.as_dict()
    return ModelProfile.of({**result, "model": str(path), "warnings": [*notes, *result["warnings"]]})


def compare(
    *models: str | Path,
    device: str = "cpu",
    threads: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    seconds: float = 4.0,
) -> tuple[ComparisonRow, ...]:
    """Time ONNX files in alternation, and set each against the first.

    Args:
        *models: two ONNX files or more.
        device: as for `profile`.
        threads: as for `profile`.
        batch_size: as for `profile`.
        precision: as for `profile`.
        seconds: for all latencies together.

    Raises:
        CostError: one of them is no loadable model, or can't be run.
        HwnasError: fewer than two files.
    """
    if len(models) < 2:
        raise HwnasError(f"compare takes two ONNX files or more, found {len(models)}")
    from latency_models.comparison import compare as measure

    paths = [Path(model) for model in models]
    found = _device(device, threads, batch_size, precision)
    deployed = [_as_deployed(path, found) for path in paths]
    rows = measure([content for content, _ in deployed], found, budget_s=seconds)
    results = []
    for row, path, (_, notes) in zip(rows, paths, deployed, strict=True):
        result: dict[str, Any] = row.as_dict()
        results.append(ComparisonRow.of({**result, "model": str(path), "warnings": [*notes, *result["warnings"]]}))
    return tuple(results)


def predict(
    model: str | Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    rebuild: bool = False,
    reporter: Reporter | None = None,
) -> LatencyPrediction:
    """Predict the latency of an ONNX file without running it.

    Operators are timed once for a device, which takes about 90 s, and kept in the user's data folder.

    Args:
        model: an ONNX file.
        device: as for `profile`.
        threads: as for `profile`.
        batch_size: as for `profile`.
        precision: as for `profile`.
        rebuild: whether to time the operators again.
        reporter: is told the progress.

    Raises:
        CostError: no such file, or nothing can be said about it on this device.
    """
    from latency_models.file_predictor import PredictorStore
    from latency_models.graph.model_file import check_readable

    path, reporter = Path(model), reporter or Reporter()
    check_readable(path)
    found = _device(device, threads, batch_size, precision)
    content, notes = _as_deployed(path, found)
    store = PredictorStore()

    def progress(done: int, of: int) -> None:
        if done == 0:
            reporter.stage(f"Timing {of} micro-benchmarks, once for this machine")
        elif done % 100 == 0 or done == of:
            reporter.note(f"{done} of {of}")

    with closing(reporter):
        predictor = store.predictor(found, rebuild=rebuild, progress=progress)
        result: dict[str, Any] = predictor.predict(content).as_dict()
    warnings = [*notes, *store.warnings, *result["warnings"]]
    return LatencyPrediction.of({**result, "file": str(path), "device": found.as_dict(), "warnings": warnings})


def optimize(
    model: str | Path,
    output: str | Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    batch_size: int | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seconds: float = 6.0,
    reporter: Reporter | None = None,
) -> Optimization:
    """Write a model's activations and pools in the cheapest form that gives the same outputs; never a slower file.

    Args:
        model: an ONNX file.
        output: the new file.
        device: as for `profile`.
        threads: as for `profile`.
        batch_size: as for `profile`.
        shapes: input → all its sizes, where the file leaves some open.
        seconds: for timing.
        reporter: is told the progress.

    Raises:
        CostError: no loadable model, or one that the device can't run.
        HwnasError: the output can't be written there, or the shapes don't fit.
    """
    from pipeline.optimize.optimize import optimize as rewrite

    found = _device(device, threads, batch_size, "fp32")
    sizes = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    with closing(reporter or Reporter()) as listener:
        return Optimization.of(
            rewrite(Path(model), Path(output), found, shapes=sizes, seconds=seconds, reporter=listener)
        )


def verify(bundle: str | Path, *, memory_mb: int = 300) -> Verification:
    """Check a bundle again: hashes, form, parity, accuracy on the test set, limits measured on this machine.

    Args:
        bundle: its folder.
        memory_mb: that checking may take. Files of any size are hashed in less; a model that would need more isn't
            loaded, and the checks that need it are skipped with the reason.

    Raises:
        HwnasError: there is no bundle at this place.
    """
    from export.bundle.manifest import MANIFEST_FILE, MODEL_FILE
    from export.bundle.verify import verify_bundle
    from pipeline.winner.verify import evaluate, measure, most_model_bytes

    path = Path(bundle)
    if not path.is_dir():
        raise HwnasError(f"there is no bundle directory {path}")
    if not any((path / name).exists() for name in (MANIFEST_FILE, MODEL_FILE)):
        raise HwnasError(f"{path} is no bundle: it has neither {MANIFEST_FILE} nor {MODEL_FILE}")
    most = most_model_bytes(memory_mb)
    checks = verify_bundle(path, measure=measure, evaluate=evaluate, most_model_bytes=most)
    return Verification.of(
        {
            "ok": all(check.ok is not False for check in checks),
            "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks],
        }
    )


def _device(name: str, threads: int | None, batch_size: int | None, precision: str | None) -> Device:
    from latency_models.devices.resolve import resolve_device

    return resolve_device(name, threads, batch_size, precision)


def _as_deployed(model: Path, device: Device) -> tuple[bytes | Path, list[str]]:
    """Return the file as the device runs it, and notes for readers of its costs."""
    from pipeline.costs.precision import INT8, int8_file

    return int8_file(model) if device.precision == INT8 else (model, [])


def listing(kind: str) -> dict[str, str]:
    """Return the names of one table, each with its line of text.

    Raises:
        UnknownNameError: there is no such table.
    """
    if kind not in LISTED:
        raise UnknownNameError("list", kind, LISTED)
    module, _, attribute = LISTED[kind].partition(":")
    table = getattr(importlib.import_module(module), attribute)
    if kind == "devices":
        from latency_models.devices.device_file import defined_devices

        table = {**table, **defined_devices()}
    return {name: row.description for name, row in table.items()}


LISTED = {
    "spaces": "pipeline.tables:SPACES",
    "strategies": "pipeline.tables:STRATEGIES",
    "activations": "export.activations.table:ACTIVATIONS",
    "data": "pipeline.tables:DATA",
    "devices": "latency_models.devices.device:DEVICES",
    "evaluators": "pipeline.tables:EVALUATORS",
    "engines": "pipeline.tables:ENGINES",
    "references": "pipeline.tables:REFERENCES",
}
"""What `hwnas list` lists: name → where its table is."""
