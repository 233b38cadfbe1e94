"""What the commands on files do, without their terminal."""

from __future__ import annotations

import importlib
from contextlib import closing
from typing import TYPE_CHECKING, Any

from pipeline.errors import HwnasError, UnknownNameError

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.trials.reporter import Reporter


def predict(
    model: Path,
    *,
    device: str,
    threads: int | None,
    batch_size: int | None,
    precision: str | None,
    rebuild: bool,
    reporter: Reporter,
) -> dict[str, Any]:
    """The predicted latency of any ONNX file; at INT8 a float one is quantised for it. The file isn't run.

    Raises:
        CostError: no such file, or nothing can be said about it on this device.
    """
    from latency_models.devices.resolve import resolve_device
    from latency_models.file_predictor import PredictorStore
    from latency_models.graph.model_file import check_readable
    from pipeline.costs.precision import INT8, prepared_file

    check_readable(model)
    found = resolve_device(device, threads, batch_size, precision)
    content, notes = prepared_file(model) if found.precision == INT8 else (model, [])
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
    return {**result, "file": str(model), "device": found.as_dict(), "warnings": warnings}


def optimize(
    model: Path,
    output: Path,
    *,
    device: str,
    threads: int | None,
    batch_size: int | None,
    shapes: list[str],
    seconds: float,
    reporter: Reporter,
) -> dict[str, Any]:
    """A model's activations and pools in their cheapest exact form; see `pipeline.optimize.optimize`."""
    from latency_models.devices.resolve import resolve_device
    from pipeline.optimize.input_sizes import parse_shapes
    from pipeline.optimize.optimize import optimize as rewrite

    sizes = parse_shapes(shapes)
    found = resolve_device(device, threads, batch_size, "fp32")
    with closing(reporter):
        return rewrite(model, output, found, shapes=sizes, seconds=seconds, reporter=reporter)


def profile(
    model: Path,
    *,
    device: str,
    threads: int | None,
    batch_size: int | None,
    precision: str | None,
    budget_s: float,
    per_node: bool = False,
) -> dict[str, Any]:
    """Latency, memory and energy of any ONNX file; at INT8 a float one is quantised for it.

    With `per_node` the result says where the time goes, too.
    """
    from latency_models.devices.resolve import resolve_device
    from latency_models.model_profile import profile as measure
    from pipeline.costs.precision import INT8, prepared_file

    found = resolve_device(device, threads, batch_size, precision)
    content, notes = prepared_file(model) if found.precision == INT8 else (model, [])
    result: dict[str, Any] = measure(content, found, budget_s=budget_s, footprint=True).as_dict()
    if per_node:
        from latency_models.node_profile import node_profile

        nodes = node_profile(content, found, latency_ms=result["latency_ms"], budget_s=max(budget_s, 1.0))
        result["per_node"] = nodes.as_dict()
    return {**result, "model": str(model), "warnings": [*notes, *result["warnings"]]}


def compare(
    models: list[Path],
    *,
    device: str,
    threads: int | None,
    batch_size: int | None,
    precision: str | None,
    budget_s: float,
) -> list[dict[str, Any]]:
    """Each file's costs and the ratio of its latency to the first one's; at INT8 float ones are quantised for it.

    Raises:
        HwnasError: fewer than two files.
    """
    if len(models) < 2:
        raise HwnasError(f"compare takes two ONNX files or more, found {len(models)}")
    from latency_models.comparison import compare as measure
    from latency_models.devices.resolve import resolve_device
    from pipeline.costs.precision import INT8, prepared_file

    found = resolve_device(device, threads, batch_size, precision)
    prepared = [prepared_file(model) if found.precision == INT8 else (model, []) for model in models]
    rows = measure([content for content, _ in prepared], found, budget_s=budget_s)
    return [
        {**(result := row.as_dict()), "model": str(model), "warnings": [*notes, *result["warnings"]]}  # type: ignore[misc]
        for row, model, (_, notes) in zip(rows, models, prepared, strict=True)
    ]


def verify(bundle: Path) -> dict[str, Any]:
    """Check a bundle again: hashes, form, parity, accuracy on the test set, limits measured on this machine."""
    from export.bundle.manifest import MANIFEST_FILE, MODEL_FILE
    from export.bundle.verify import verify_bundle
    from pipeline.winner.verify import evaluate, measure

    if not bundle.is_dir():
        raise HwnasError(f"there is no bundle directory {bundle}")
    if not any((bundle / name).exists() for name in (MANIFEST_FILE, MODEL_FILE)):
        raise HwnasError(f"{bundle} is no bundle: it has neither {MANIFEST_FILE} nor {MODEL_FILE}")
    checks = verify_bundle(bundle, measure=measure, evaluate=evaluate)
    return {
        "ok": all(check.ok is not False for check in checks),
        "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks],
    }


def listing(kind: str) -> dict[str, str]:
    """Name → one line, of one of the tables.

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
