"""What the commands do, without their terminal: each takes checked arguments and returns plain data."""

from __future__ import annotations

import importlib
import signal
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.config_file import load_config
from pipeline.errors import HwnasError, Interrupted, UnknownNameError
from pipeline.run import RunDirectory, default_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.console import Reporter
    from pipeline.journal import TrialRecord


def search(config_path: Path, overrides: list[str], run_dir: Path | None, reporter: Reporter) -> dict[str, Any]:
    """The whole job: a new run from a config to a bundle and a report."""
    from pipeline.search import prepare

    config = load_config(config_path, overrides)
    prepare(config, str(config_path))  # what is wrong with data, space or device is told before a directory is made
    run = RunDirectory.create(run_dir or default_path(config), config)
    return _go_on(run, config.final.pick, reporter)


def resume(path: Path, reporter: Reporter) -> dict[str, Any]:
    """Go on with a run wherever it stopped."""
    run = RunDirectory.open(path)
    return _go_on(run, run.config.final.pick, reporter)


def export(path: Path, pick: str | None, reporter: Reporter) -> dict[str, Any]:
    """A bundle of one of the run's trials, without searching any further."""
    run = RunDirectory.open(path)
    return _go_on(run, pick or run.config.final.pick, reporter, with_search=False)


def _go_on(run: RunDirectory, pick: str, reporter: Reporter, *, with_search: bool = True) -> dict[str, Any]:
    with run.locked(), closing(reporter), _interruptible(run):
        run.log_chatter()
        from pipeline.finish import Finisher
        from pipeline.report.page import write_report
        from pipeline.search import prepare, run_search

        reporter.stage(f"Run directory: {run.path}")
        data, space = prepare(run.config, str(run.path / "config.yaml"))
        journal = run.open_journal()
        try:
            if with_search:
                reporter.stage("Searching")
                run_search(run, journal, space, reporter)
            records = journal.trials()
        finally:
            journal.close()
        try:
            outcome = Finisher(run, data, space, reporter).finish(records, pick)
        finally:
            write_report(run, records)
    return {
        "run_dir": str(run.path),
        "bundle_dir": str(run.bundle),
        "report": str(run.report),
        "picked": outcome.picked,
        "objectives": outcome.objectives,
        "limits": outcome.limits,
        "metrics": outcome.manifest["metrics"],
        "int8": outcome.manifest["int8"],
    }


@contextmanager
def _interruptible(run: RunDirectory) -> Iterator[None]:
    """SIGTERM stops like Ctrl-C: in good order, with the command to go on."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(run.path) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def trials(path: Path) -> list[dict[str, Any]]:
    """The journal's trials with the fields that outside tools read."""
    from pipeline.picks import front_of

    run = RunDirectory.open(path)
    journal = run.open_journal(read_only=True)
    try:
        records = journal.trials()
    finally:
        journal.close()
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


def report(path: Path) -> Path:
    """Write the run's page again."""
    from pipeline.report.page import write_report

    run = RunDirectory.open(path)
    journal = run.open_journal(read_only=True)
    try:
        write_report(run, journal.trials())
    finally:
        journal.close()
    return run.report


def profile(
    model: Path, *, device: str, threads: int, batch_size: int, precision: str, budget_s: float
) -> dict[str, Any]:
    """Latency, memory and energy of any ONNX file."""
    from latency_models.device import resolve_device
    from latency_models.profile import profile as measure

    return measure(model, resolve_device(device, threads, batch_size, precision), budget_s=budget_s).as_dict()


def verify(bundle: Path) -> dict[str, Any]:
    """Check a bundle again: hashes, form, parity, accuracy on the test set, limits measured on this machine."""
    from export.verify import verify_bundle
    from pipeline.recheck import evaluate, measure

    if not bundle.is_dir():
        raise HwnasError(f"there is no bundle directory {bundle}")
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
    return {name: row.description for name, row in table.items()}


LISTED = {
    "spaces": "pipeline.spaces.table:SPACES",
    "strategies": "pipeline.strategies.table:STRATEGIES",
    "activations": "export.activations:ACTIVATIONS",
    "data": "pipeline.data.table:DATA",
    "devices": "latency_models.device:DEVICES",
    "evaluators": "pipeline.evaluators.table:EVALUATORS",
    "engines": "pipeline.engines.table:ENGINES",
}
"""What `hwnas list` lists: name → where its table is."""
