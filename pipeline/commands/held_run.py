"""A run that somebody gave: opened under its name, locked, with its data, space and trials."""

from __future__ import annotations

import shlex
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import Interrupted, RunGoneError, StorageError
from pipeline.files import locked
from pipeline.run import RunDirectory
from pipeline.storage import READ_ONLY, refusal
from pipeline.trust import check_device, given_folder, words_that_go_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.data import DataSet
    from pipeline.spaces.base import SearchSpace
    from pipeline.trials.journal import TrialRecord
    from pipeline.trials.reporter import Reporter


@contextmanager
def given_run(
    command: str, run_dir: str | Path, code: str | Path | None = None, trust_device: bool = False
) -> Iterator[RunDirectory]:
    """Open a run, which may be a stranger's, for a command that does no more with it than it may."""
    with given_folder(command, Path(run_dir), folder_of(code)):
        run = RunDirectory.open(Path(run_dir))
        check_device(command, run.config.device, trust_device)
        yield run


def folder_of(code: str | Path | None) -> Path | None:
    """The folder of the user's own modules, where one was given."""
    return None if code is None else Path(code).absolute()


def inputs_of(run: RunDirectory) -> tuple[DataSet, SearchSpace]:
    """Load a run's data and space, with all checks that come before a trial."""
    from pipeline.search import load_inputs

    return load_inputs(run.config, str(run.path / "config.yaml"))


def records_of(run: RunDirectory, *, read_only: bool = False) -> list[TrialRecord]:
    """Read the trials of a run's journal."""
    journal = run.open_journal(read_only=read_only)
    try:
        return journal.trials()
    finally:
        journal.close()


@contextmanager
def held(run: RunDirectory, reporter: Reporter) -> Iterator[None]:
    """Lock the run, send libraries' chatter to its log, and turn an interruption into the command that goes on."""
    try:
        with locked(run.path), closing(reporter), run.log_chatter():
            reporter.stage(f"Run directory: {run.path}")
            yield
            run.check_present()
    except KeyboardInterrupt:
        raise Interrupted(*words_that_go_on(run.path, run.config.device)) from None
    except RunGoneError:
        raise
    except Exception as error:
        run.check_present()  # where the folder is gone, that is the reason, whatever failed first
        if words := refusal(error):
            raise StorageError(_unwritten(run, words, error), words) from error
        raise


def _unwritten(run: RunDirectory, words: str, error: Exception) -> str:
    """Say what couldn't be written, and how the run goes on."""
    said = str(error).strip().partition("\n")[0]
    then = "it can be written" if words == READ_ONLY else "there is room again"
    return (
        f"{run.path}: {words} ({said}). Finished trials are in the journal. When {then}, go on with:"
        f" {shlex.join(('hwnas', *words_that_go_on(run.path, run.config.device)))}"
    )
