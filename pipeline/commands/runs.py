"""The commands on runs: search, resume, export, look at the trials, calibrate, write the report again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pipeline.commands.held_run import folder_of, given_run, held, inputs_of, records_of
from pipeline.commands.results import LatencyPrediction, Run, SearchResult, Trial
from pipeline.config.file import load_config
from pipeline.errors import HwnasError
from pipeline.run import RunDirectory, default_path
from pipeline.thread_settings import with_calm_threads
from pipeline.trials.reporter import Reporter
from pipeline.trust import check_device, given_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.costs.calibration import Calibration
    from pipeline.data import DataSet
    from pipeline.spaces.base import SearchSpace
    from pipeline.trials.journal import TrialRecord

    Overrides = Mapping[str, object] | Sequence[str]


@with_calm_threads
def search(
    config: str | Path,
    *,
    overrides: Overrides = (),
    run_dir: str | Path | None = None,
    references: bool = False,
    code: str | Path | None = None,
    reporter: Reporter | None = None,
) -> SearchResult:
    """Do the whole job: search from a config, train the winner to the end, export, check and pack it.

    Args:
        config: a YAML file.
        overrides: keys of the config that are changed: `{"budget.trials": 10}`, or texts like `budget.trials=10`.
        run_dir: where the run goes; `runs/<name>-<time>` by default.
        references: whether published networks are trained the same way, to set the winner against.
        code: the folder of your own modules that the config names, by default the working folder.
        reporter: is told the progress.

    Raises:
        ConfigError: the config can't be used.
        NothingFeasibleError: no candidate keeps the limits.
        HwnasError: data, space, device or somebody else's code can't be had.
    """
    from pipeline.costs.width_step import as_file, asks_device, own_step, with_any_step
    from pipeline.references.training import check_names
    from pipeline.search import check_costs, check_weights, load_inputs

    path = Path(config)
    with given_config("search", path, folder_of(code)) as of_run:
        read = load_config(path, _as_texts(overrides))
        check_device("search", read.device, trusted=not of_run)
        reporter, source, blocks = reporter or Reporter(), str(path), None
        place = Path(run_dir) if run_dir is not None else default_path(read.name)
        data, space = load_inputs(with_any_step(read), source)  # mistakes are found before anything is timed or made
        if asks_device(read):
            RunDirectory.check_new(place)
            own = own_step(read, data, reporter)
            read, space, blocks = own.config, own.space, own.blocks
        check_costs(read, data, space, source)
        check_weights(read, space, source)
        if references:
            check_names(read)
        run = RunDirectory.create(place, read, None if blocks is None else as_file(blocks))
        return _search_and_finish(run, (data, space), reporter, references)


@with_calm_threads
def resume(
    run_dir: str | Path,
    *,
    references: bool = False,
    code: str | Path | None = None,
    trust_device: bool = False,
    reporter: Reporter | None = None,
) -> SearchResult:
    """Go on with a run wherever it stopped; a finished one is left as it is, but for references that are asked for.

    Args:
        run_dir: a run directory.
        references: as for `search`.
        code: as for `search`; nothing is imported from the run's own folder.
        trust_device: whether the run's device is used as the run describes it, also where that is another host.
        reporter: is told the progress.

    Raises:
        RunDirectoryError: there is no run at this place, or it is in use.
        HwnasError: as for `search`.
    """
    with given_run("resume", run_dir, code, trust_device) as run:
        return _search_and_finish(run, None, reporter or Reporter(), references)


@with_calm_threads
def export(
    run_dir: str | Path,
    *,
    pick: str | None = None,
    code: str | Path | None = None,
    trust_device: bool = False,
    reporter: Reporter | None = None,
) -> SearchResult:
    """Make a bundle of one of the run's trials, without searching any further.

    Args:
        run_dir: a run directory.
        pick: knee, fastest, most-accurate, or a trial's id; as configured by default.
        code: as for `resume`.
        trust_device: as for `resume`.
        reporter: is told the progress.

    Raises:
        RunDirectoryError: there is no run at this place, or it is in use.
        UnknownTrialError, NothingFeasibleError: there is no such trial, or none that keeps the limits.
    """
    reporter = reporter or Reporter()
    with given_run("export", run_dir, code, trust_device) as run, held(run, reporter):
        data, space = inputs_of(run)
        records = records_of(run)
        result = _finish(run, data, space, records, run.config.final.pick if pick is None else pick, reporter)
        return SearchResult.of({**result, **_beside_references(run, data, records, reporter, train=False)})


def load_run(run_dir: str | Path) -> Run:
    """Read a run directory: its config and all of its trials. Nothing in it is run or changed.

    Raises:
        RunDirectoryError: there is no run at this place.
        JournalError: its journal is damaged.
    """
    from pipeline.winner.pick import front_of

    with given_run("trials", run_dir) as run:
        records = records_of(run, read_only=True)
    front = {record.id for record in front_of(records, run.config.objectives)}
    return Run(
        path=run.path,
        config=run.config,
        trials=tuple(Trial.of(_trial(record, record.id in front)) for record in records),
        bundle_dir=run.bundle if run.bundle.is_dir() else None,
        report=run.report if run.report.is_file() else None,
    )


def _as_texts(overrides: Overrides) -> list[str]:
    """Overrides as `key.path=value` texts, the values written as YAML."""
    if isinstance(overrides, str):
        raise HwnasError(f"overrides are a mapping or a list of texts, not the text {overrides!r}")
    if not isinstance(overrides, Mapping):
        return list(overrides)
    values = {key: yaml.safe_dump([value], default_flow_style=True, width=10**6) for key, value in overrides.items()}
    return [f"{key}={text.strip()[1:-1]}" for key, text in values.items()]  # a list's only item, without its brackets


def _search_and_finish(
    run: RunDirectory, inputs: tuple[DataSet, SearchSpace] | None, reporter: Reporter, references: bool
) -> SearchResult:
    with held(run, reporter):
        from pipeline.references.records import ask, read
        from pipeline.search import run_search

        if references:
            ask(run)
        data, space = inputs or inputs_of(run)
        journal = run.open_journal()
        try:
            before = len(journal.trials())
            if run.config.cost_model == "predict":
                from pipeline.costs.calibration import ensure_cost_model
                from pipeline.costs.width_step import read_blocks

                ensure_cost_model(run.config, data, space, reporter, read_blocks(run.channel_blocks))
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
        return SearchResult.of({**result, **_beside_references(run, data, records, reporter, train=True)})


def _finish(
    run: RunDirectory, data: DataSet, space: SearchSpace, records: list[TrialRecord], pick: str, reporter: Reporter
) -> dict[str, Any]:
    from pipeline.report.page import write_report
    from pipeline.winner.bundle_builder import BundleBuilder

    try:
        manifest = BundleBuilder(run, data, space, reporter).finish(records, pick)
    finally:
        run.check_present()
        write_report(run, records)
    return _result(run, manifest)


def _finished(run: RunDirectory) -> dict[str, Any] | None:
    """The manifest of the run's bundle, where that is whole and made as the config asks now."""
    from export.bundle.verify import verify_bundle
    from export.errors import BundleError
    from pipeline.winner.finished import read_finished
    from pipeline.winner.manifest import bundle_settings

    try:
        manifest = read_finished(run.bundle)
    except BundleError:
        return None
    same_run = manifest["run"]["config_sha256"] == run.digest()
    if not same_run or manifest.get("asked") != bundle_settings(run.config):
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


@with_calm_threads
def predict_trial(
    run_dir: str | Path, architecture: str, *, code: str | Path | None = None, trust_device: bool = False
) -> LatencyPrediction:
    """Predict the latency of one of a run's architectures from all that the run knows.

    Args:
        run_dir: a run directory.
        architecture: a trial's id.
        code: as for `resume`.
        trust_device: as for `resume`.

    Raises:
        HwnasError: no such trial, or too little is known.
    """
    from latency_models.timing.meter import LatencyMeter
    from pipeline.config.device import device_of
    from pipeline.costs.latency_source import LatencySource, history_of
    from pipeline.errors import config_errors_at, nearest
    from pipeline.search import load_data_and_space

    with given_run("predict --run", run_dir, code, trust_device) as run:
        source = str(run.path / "config.yaml")
        records = {record.id: record for record in records_of(run, read_only=True)}
        if architecture not in records:
            raise HwnasError(f"{run.path}: there is no trial {architecture!r}{nearest(architecture, records)}")
        record = records[architecture]
        data, space = load_data_and_space(run.config, source)
        with config_errors_at(source, "device"):
            device = device_of(run.config.device)
        with LatencyMeter(device) as meter:
            latencies = LatencySource(run.config, data, space, meter)
        latencies.learn(history_of(records.values()))
        found, model = latencies.prediction(record.architecture, record.objectives)
    latency = record.details.get("latency", {})
    return LatencyPrediction.of(
        {
            "latency_ms": found.latency_ms,
            "latency_low_ms": found.low_ms,
            "latency_high_ms": found.high_ms,
            "model": model,
            "architecture": record.architecture,
            "measured_ms": record.objectives["latency_ms"] if latency.get("source") == "measured" else None,
        }
    )


def report(run_dir: str | Path) -> Path:
    """Write the run's HTML page again, and return its place."""
    from pipeline.report.page import write_report

    with given_run("report", run_dir) as run:
        write_report(run, records_of(run, read_only=True))
        return run.report


@with_calm_threads
def calibrate(
    config: str | Path,
    *,
    overrides: Overrides = (),
    device: str | None = None,
    output: str | Path | None = None,
    seconds: float | None = None,
    nets: int | None = None,
    code: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Calibration:
    """Build and save the cost model of a config's space on its device, or on another one.

    Args:
        config: a YAML file.
        overrides: as for `search`.
        device: another device than the config's.
        output: a .json file; by default it lies where searches find it.
        seconds: for the blocks; 60, or 180 at INT8, by default.
        nets: number of whole networks that are timed; 5, or 60 where blocks can't be timed, by default.
        code: as for `search`.
        reporter: is told the progress.

    Raises:
        HwnasError: the config, the device or the file's place can't be used.
    """
    from pipeline.costs.calibration import Calibrator
    from pipeline.costs.width_step import asks_device, own_step, with_any_step
    from pipeline.search import load_inputs

    path, reporter, texts = Path(config), reporter or Reporter(), _as_texts(overrides)
    if device is not None:
        texts.append(f"device.name={device}")
    with given_config("calibrate", path, folder_of(code)) as of_run, closing(reporter):
        # The file that the config names may be the one that is to be made.
        read = load_config(path, texts).model_copy(update={"cost_model": "auto"})
        check_device("calibrate", read.device, trusted=not of_run)
        data, space = load_inputs(with_any_step(read), str(path))
        blocks = None
        if asks_device(read):
            own = own_step(read, data, reporter)
            read, space, blocks = own.config, own.space, own.blocks
        reporter.stage(f"Building a cost model of the space {read.space.name} on the device {read.device.name}")
        place = Path(output) if output is not None else None
        calibrator = Calibrator(read, data, space, reporter)
        return calibrator.run(seconds=seconds, nets=nets, output=place, channel_blocks=blocks)


def _beside_references(
    run: RunDirectory, data: DataSet, records: list[TrialRecord], reporter: Reporter, *, train: bool
) -> dict[str, Any]:
    """Train missing references, set all of them against the winner, and write the report again.

    Args:
        run: locked by the caller, with a bundle.
        data: of the run's config.
        records: the run's trials.
        reporter: hears of the progress.
        train: whether missing ones are trained; if not, those that are there are compared alone.

    Returns:
        `references` and `references_verdict` of a command's result; nothing where nobody asked for references.
    """
    from pipeline.references.records import read

    if read(run) is None:
        return {}
    from pipeline.references.training import ReferencePoints
    from pipeline.references.verdict import rows, verdict
    from pipeline.report.page import write_report
    from pipeline.winner.finished import read_finished

    points = ReferencePoints(run, data, reporter)
    try:
        if train:
            points.train()
        manifest = read_finished(run.bundle)
        points.compare(manifest)
    finally:
        write_report(run, records)
    found = rows(points.known, manifest)
    return {"references": found, "references_verdict": verdict(found, manifest)}
