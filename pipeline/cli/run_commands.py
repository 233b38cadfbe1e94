"""What the commands do, without their terminal: each takes checked arguments and returns plain data."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.config.file import load_config
from pipeline.errors import HwnasError, Interrupted
from pipeline.files import locked
from pipeline.run import RunDirectory, default_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.data import DataSet
    from pipeline.spaces.base import SearchSpace
    from pipeline.trials.journal import TrialRecord
    from pipeline.trials.reporter import Reporter
from typing import TYPE_CHECKING

from export.bundle.manifest import read_manifest
from pipeline.references.records import read
from pipeline.references.verdict import rows, verdict
from pipeline.report.page import write_report

if TYPE_CHECKING:
    from pipeline.data import DataSet
    from pipeline.trials.journal import TrialRecord
    from pipeline.trials.reporter import Reporter


def search(
    config_path: Path, overrides: list[str], run_dir: Path | None, reporter: Reporter, *, references: bool = False
) -> dict[str, Any]:
    """The whole job: a new run from a config to a bundle and a report; with reference points where asked for."""
    from pipeline.references.training import check_names
    from pipeline.search import check_costs, load_inputs

    config = load_config(config_path, overrides)
    prepared = load_inputs(config, str(config_path))  # what is wrong is told before a directory is made
    check_costs(config, *prepared, str(config_path))
    if references:
        check_names(config)
    run = RunDirectory.create(run_dir or default_path(config.name), config)
    return _search_and_finish(run, prepared, reporter, references)


def resume(path: Path, reporter: Reporter, *, references: bool = False) -> dict[str, Any]:
    """Go on with a run wherever it stopped; a finished one is left as it is, but for reference points."""
    run = RunDirectory.open(path)
    return _search_and_finish(run, None, reporter, references)


def export(path: Path, pick: str | None, reporter: Reporter) -> dict[str, Any]:
    """A bundle of one of the run's trials, without searching any further."""
    run = RunDirectory.open(path)
    with _held(run, reporter):
        data, space = _prepared(run)
        records = _records(run)
        result = _finish(run, data, space, records, run.config.final.pick if pick is None else pick, reporter)
        return {**result, **beside_references(run, data, records, reporter, train=False)}


def _search_and_finish(
    run: RunDirectory, prepared: tuple[DataSet, SearchSpace] | None, reporter: Reporter, references: bool
) -> dict[str, Any]:
    with _held(run, reporter):
        from pipeline.references.records import ask, read
        from pipeline.search import run_search

        if references:
            ask(run)
        data, space = prepared or _prepared(run)
        journal = run.open_journal()
        try:
            before = len(journal.trials())
            if run.config.cost_model == "predict":
                from pipeline.costs.calibration import ensure_cost_model

                ensure_cost_model(run.config, data, space, reporter)
            reporter.stage("Searching")
            run_search(run, journal, data, space, reporter)
            records = journal.trials()
        finally:
            journal.close()
        if len(records) == before and (manifest := _finished(run)) is not None:
            left = "nothing is left to do" if read(run) is None else "but for its reference points"
            reporter.note(f"the run is finished, {left}; `hwnas export` makes another bundle")
            result = _result(run, manifest)
        else:
            result = _finish(run, data, space, records, run.config.final.pick, reporter)
        return {**result, **beside_references(run, data, records, reporter, train=True)}


def _finish(
    run: RunDirectory, data: DataSet, space: SearchSpace, records: list[TrialRecord], pick: str, reporter: Reporter
) -> dict[str, Any]:
    from pipeline.report.page import write_report
    from pipeline.winner.bundle_builder import BundleBuilder

    try:
        manifest = BundleBuilder(run, data, space, reporter).finish(records, pick)
    finally:
        write_report(run, records)
    return _result(run, manifest)


def _finished(run: RunDirectory) -> dict[str, Any] | None:
    """The manifest of the run's bundle, where that is whole and made as the config asks now."""
    from export.bundle.manifest import read_manifest
    from export.bundle.verify import verify_bundle
    from export.errors import BundleError
    from pipeline.winner.bundle_builder import asked

    try:
        manifest = read_manifest(run.bundle)
    except BundleError:
        return None
    same_run = manifest.get("run", {}).get("config_sha256") == run.digest()
    if not same_run or manifest.get("asked") != asked(run.config):
        return None
    whole = all(check.ok is not False for check in verify_bundle(run.bundle))
    return manifest if whole and run.report.is_file() else None


def _result(run: RunDirectory, manifest: dict[str, Any]) -> dict[str, Any]:
    return {
        "run_dir": str(run.path),
        "bundle_dir": str(run.bundle),
        "report": str(run.report),
        "picked": manifest["architecture_id"],
        "objectives": manifest["won"],
        "limits": manifest["limits"],
        "metrics": manifest["metrics"],
        "int8": manifest["int8"],
    }


def _prepared(run: RunDirectory) -> tuple[DataSet, SearchSpace]:
    from pipeline.search import load_inputs

    return load_inputs(run.config, str(run.path / "config.yaml"))


def _records(run: RunDirectory, *, read_only: bool = False) -> list[TrialRecord]:
    journal = run.open_journal(read_only=read_only)
    try:
        return journal.trials()
    finally:
        journal.close()


@contextmanager
def _held(run: RunDirectory, reporter: Reporter) -> Iterator[None]:
    """The run locked, its libraries' chatter in its log, and an interruption told with the way to go on."""
    with locked(run.path), closing(reporter):
        run.log_chatter()
        reporter.stage(f"Run directory: {run.path}")
        try:
            yield
        except KeyboardInterrupt:
            raise Interrupted("resume", str(run.path)) from None


def trials(path: Path) -> list[dict[str, Any]]:
    """The journal's trials with the fields that outside tools read."""
    from pipeline.winner.pick import front_of

    run = RunDirectory.open(path)
    records = _records(run, read_only=True)
    front = {record.id for record in front_of(records, run.config.objectives)}
    return [_trial(record, record.id in front) for record in records]


def _trial(record: TrialRecord, on_front: bool) -> dict[str, Any]:
    return {
        "id": record.id,
        "architecture": record.architecture,
        "status": record.status,
        "objectives": record.objectives,
        "on_front": on_front,
        "error": record.error,
        "started": record.started,
        "seconds": record.seconds,
        "score": record.score,
        "details": record.details,
    }


def predict_trial(path: Path, identity: str) -> dict[str, Any]:
    """The predicted latency of one of a run's architectures, from all that the run knows.

    Raises:
        HwnasError: no such trial, or too little is known.
    """
    from latency_models.timing.meter import LatencyMeter
    from pipeline.config.device import device_of
    from pipeline.costs.latency_source import LatencySource, history_of
    from pipeline.errors import nearest

    run = RunDirectory.open(path)
    data, space = _prepared(run)
    records = {record.id: record for record in _records(run, read_only=True)}
    if identity not in records:
        raise HwnasError(f"{path}: there is no trial {identity!r}{nearest(identity, records)}")
    record = records[identity]
    with LatencyMeter(device_of(run.config.device)) as meter:
        source = LatencySource(run.config, data, space, meter)
    source.restore(history_of(records.values()))
    found, model = source.prediction(record.architecture, record.objectives)
    latency = record.details.get("latency", {})
    return {
        "latency_ms": found.latency_ms,
        "latency_low_ms": found.low_ms,
        "latency_high_ms": found.high_ms,
        "model": model,
        "architecture": record.architecture,
        "measured_ms": record.objectives["latency_ms"] if latency.get("source") == "measured" else None,
    }


def report(path: Path) -> Path:
    """Write the run's page again."""
    from pipeline.report.page import write_report

    run = RunDirectory.open(path)
    write_report(run, _records(run, read_only=True))
    return run.report


def calibrate(
    config_path: Path,
    overrides: list[str],
    *,
    device: str | None,
    output: Path | None,
    seconds: float | None,
    nets: int | None,
    reporter: Reporter,
) -> dict[str, Any]:
    """Build and save the cost model of a config's space on its device, or on another one."""
    from pipeline.costs.calibration import Calibrator
    from pipeline.search import load_inputs

    if device is not None:
        overrides = [*overrides, f"device.name={device}"]
    # The file that the config names may be the one that is to be made.
    config = load_config(config_path, overrides).model_copy(update={"cost_model": "auto"})
    with closing(reporter):
        data, space = load_inputs(config, str(config_path))
        reporter.stage(f"Building a cost model of the space {config.space.name} on the device {config.device.name}")  # type: ignore[attr-defined]  # every section has a name
        return Calibrator(config, data, space, reporter).run(seconds=seconds, nets=nets, output=output).as_dict()


def beside_references(
    run: RunDirectory, data: DataSet, records: list[TrialRecord], reporter: Reporter, *, train: bool
) -> dict[str, Any]:
    """Make what is missing, set all against the bundle's winner, and write the report again.

    Args:
        run: locked by the caller, with a bundle.
        data: of the run's config.
        records: the run's trials.
        reporter: hears of the progress.
        train: whether missing ones are trained; if not, those that are there are compared alone.

    Returns:
        `references` and `references_verdict` of a command's result; nothing where nobody asked for references.
    """
    if read(run) is None:
        return {}
    from pipeline.references.training import ReferencePoints

    points = ReferencePoints(run, data, reporter)
    try:
        if train:
            points.train()
        manifest = read_manifest(run.bundle)
        points.compare(manifest)
    finally:
        write_report(run, records)
    found = rows(points.known, manifest)
    return {"references": found, "references_verdict": verdict(found, manifest)}
