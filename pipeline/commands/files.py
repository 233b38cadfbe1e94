"""The commands on files: profile, compare, predict and optimize an ONNX model, verify a bundle, list what there is."""

from __future__ import annotations

import importlib
from contextlib import closing
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.results import ComparisonRow, LatencyPrediction, ModelProfile, Optimization, Verification
from pipeline.errors import HwnasError, UnknownNameError
from pipeline.trials.reporter import Reporter
from pipeline.trust import given_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import ArrayLike

    from latency_models.devices.device import Device
    from latency_models.graph.model_inputs import GivenInputs

    Shapes = Mapping[str, Sequence[int]]
    Values = Mapping[str, ArrayLike]


def profile(
    model: str | Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    shapes: Shapes | None = None,
    inputs: Values | None = None,
    seconds: float = 2.0,
    per_node: bool = False,
) -> ModelProfile:
    """Measure the latency, memory and energy of an ONNX file on a device, and count its work.

    Args:
        model: an ONNX file. At precision int8 a float one is quantised for it, with made-up ranges.
        device: a name of `hwnas list devices`.
        threads: of one inference; the device's own, or 1.
        batch_size: images of one inference; the device's own, or 1.
        precision: fp32 or int8; the file's own by default.
        shapes: input → all its sizes, where the file leaves some open.
        inputs: input → its array, or one number that fills it; the others are made up.
        seconds: for the latency; energy takes some more.
        per_node: whether to tell where the time goes, too, by module, activation and operator.

    Raises:
        CostError: no loadable model, or one that the device can't run.
        HwnasError: it can't be quantised.
    """
    from latency_models.model_profile import profile as measure

    path, given = Path(model), _given(shapes, inputs)
    found = _device(device, threads, batch_size, precision)
    content, found, notes = _as_deployed(path, found, precision, given)
    measured = measure(content, found, given=given, budget_s=seconds, footprint=True)
    result: dict[str, Any] = measured.as_dict()
    if per_node:
        from export.lowering.recognition import activations_by_output
        from latency_models.node_profile import node_profile

        nodes = node_profile(
            content,
            measured.device,
            given=given,
            recognise=activations_by_output,
            latency_ms=result["latency_ms"],
            budget_s=max(seconds, 1.0),
        )
        result["per_node"] = nodes.as_dict()
    warnings = list(dict.fromkeys([*notes, *result["warnings"]]))
    return ModelProfile.of({**result, "model": str(path), "warnings": warnings})


def compare(
    *models: str | Path,
    device: str = "cpu",
    threads: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    shapes: Shapes | None = None,
    inputs: Values | None = None,
    seconds: float = 4.0,
) -> tuple[ComparisonRow, ...]:
    """Time ONNX files in alternation, and set each against the first.

    Args:
        *models: two ONNX files or more.
        device: as for `profile`.
        threads: as for `profile`.
        batch_size: as for `profile`.
        precision: as for `profile`.
        shapes: as for `profile`, of every file that has an input of the name.
        inputs: likewise.
        seconds: for all latencies together.

    Raises:
        CostError: one of them is no loadable model, or can't be run.
        HwnasError: fewer than two files.
    """
    if len(models) < 2:
        raise HwnasError(f"compare takes two ONNX files or more, found {len(models)}")
    from latency_models.comparison import compare as measure

    paths, given = [Path(model) for model in models], _given(shapes, inputs)
    found = _device(device, threads, batch_size, precision)
    deployed = [_as_deployed(path, found, precision, given, every=False) for path in paths]
    rows = measure([content for content, _, _ in deployed], found, given=given, budget_s=seconds)
    results = []
    for row, path, (_, _, notes) in zip(rows, paths, deployed, strict=True):
        result: dict[str, Any] = row.as_dict()
        warnings = list(dict.fromkeys([*notes, *result["warnings"]]))
        results.append(ComparisonRow.of({**result, "model": str(path), "warnings": warnings}))
    return tuple(results)


def predict(
    model: str | Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    shapes: Shapes | None = None,
    inputs: Values | None = None,
    rebuild: bool = False,
    reporter: Reporter | None = None,
) -> LatencyPrediction:
    """Predict the latency of an ONNX file without timing it.

    It is run once, for the sizes of its values. Operators are timed once for a device, which takes about two
    minutes, and kept in the user's data folder.

    Args:
        model: an ONNX file.
        device: as for `profile`.
        threads: as for `profile`.
        batch_size: as for `profile`.
        precision: as for `profile`.
        shapes: as for `profile`.
        inputs: as for `profile`.
        rebuild: whether to time the operators again.
        reporter: is told the progress.

    Raises:
        CostError: no such file, or nothing can be said about it on this device.
    """
    from latency_models.file_predictor import PredictorStore
    from latency_models.graph.model_file import check_readable
    from latency_models.kernels.kernel_values import NotPredictableError
    from latency_models.kernels.optimised_graph import optimised_graph

    path, reporter, given = Path(model), reporter or Reporter(), _given(shapes, inputs)
    check_readable(path)
    found = _device(device, threads, batch_size, precision)
    content, found, notes = _as_deployed(path, found, precision, given)
    graph = optimised_graph(content, found, given)  # a file that can't be run costs nobody the micro-benchmarks
    store = PredictorStore()

    def progress(done: int, of: int) -> None:
        if done == 0:
            reporter.stage(f"Timing {of} micro-benchmarks, once for this machine")
        elif done % 100 == 0 or done == of:
            reporter.note(f"{done} of {of}")

    with closing(reporter):
        predictor = store.predictor(found, rebuild=rebuild, progress=progress)
        try:
            result: dict[str, Any] = predictor.predict_graph(graph).as_dict()
        except NotPredictableError as error:
            raise NotPredictableError(f"{path}: {error}") from error
    warnings = [*notes, *store.warnings, *result["warnings"]]
    return LatencyPrediction.of({"device": found.as_dict(), **result, "file": str(path), "warnings": warnings})


def optimize(
    model: str | Path,
    output: str | Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    batch_size: int | None = None,
    shapes: Shapes | None = None,
    inputs: Values | None = None,
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
        shapes: as for `profile`.
        inputs: as for `profile`.
        seconds: for timing.
        reporter: is told the progress.

    Raises:
        CostError: no loadable model, or one that the device can't run.
        HwnasError: the output can't be written there.
    """
    from pipeline.optimize.optimize import optimize as rewrite

    found = _device(device, threads, batch_size, "fp32")
    given = _given(shapes, inputs)
    with closing(reporter or Reporter()) as listener:
        return Optimization.of(
            rewrite(Path(model), Path(output), found, given=given, seconds=seconds, reporter=listener)
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
    with given_folder("verify", path):
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


def _given(shapes: Shapes | None, inputs: Values | None) -> GivenInputs:
    from latency_models.graph.model_inputs import GivenInputs

    return GivenInputs(
        {name: _sizes(name, sizes) for name, sizes in (shapes or {}).items()},
        {name: _array(name, value) for name, value in (inputs or {}).items()},
    )


def _sizes(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    try:
        found = tuple(index(size) for size in sizes)
    except TypeError:
        found = (-1,)
    if any(size < 0 for size in found):
        raise HwnasError(f"the sizes of input {name!r} must be whole numbers from 0 on, as in (1, 3, 224, 224)")
    return found


def _array(name: str, value: ArrayLike) -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        return np.asarray(value)
    except ValueError as error:
        raise HwnasError(f"the value of input {name!r} is no number, and no array of numbers: {error}") from error


def _as_deployed(
    model: Path, device: Device, asked: str | None, given: GivenInputs, *, every: bool = True
) -> tuple[bytes | Path, Device, list[str]]:
    """Return the file as the device runs it, the device at the file's precision, and notes for readers of its costs.

    Args:
        model: an ONNX file.
        device: that runs it.
        asked: the precision that the user named, if any.
        given: on inputs.
        every: whether the file must have every input that something is given for.
    """
    from latency_models.graph.element_types import precision_of
    from latency_models.graph.external_data import openable
    from latency_models.graph.model_file import parse
    from latency_models.graph.model_inputs import model_inputs
    from latency_models.graph.shapes import real_inputs
    from pipeline.costs.precision import INT8, int8_file

    proto = parse(model)
    own = precision_of(proto)
    said = given if every else given.only(info.name for info in real_inputs(proto.graph))
    inputs = model_inputs(proto, model, device.batch_size, said)
    device = replace(device, batch_size=inputs.batch_size)
    if own == INT8:
        if asked not in (None, INT8):
            raise HwnasError(f"{model} is an INT8 file and can't be run at {asked}; leave --precision out")
        return openable(model), replace(device, precision=INT8), list(inputs.notes)
    if device.precision != INT8:
        return openable(model), device, list(inputs.notes)
    content, notes = int8_file(model, inputs)
    return content, device, [*inputs.notes, *notes]


def listing(kind: str) -> dict[str, str]:
    """Return the names of one table, each with its line of text.

    Raises:
        UnknownNameError: there is no such table.
    """
    if kind not in LISTED:
        raise UnknownNameError("list", kind, LISTED)
    module, _, attribute = LISTED[kind].partition(":")
    table = getattr(importlib.import_module(module), attribute)
    lines = {name: str(row.description) for name, row in table.items()}
    if kind == "devices":
        from latency_models.devices.device_file import described_devices

        lines |= described_devices()
    return lines


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
