"""The commands on shared weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.commands.held_run import given_run, held, inputs_of
from pipeline.commands.results import SupernetCheck
from pipeline.thread_settings import with_calm_threads
from pipeline.trials.reporter import Reporter

if TYPE_CHECKING:
    from pathlib import Path


@with_calm_threads
def supernet_check(
    run_dir: str | Path,
    *,
    networks: int = 40,
    epochs: int = 3,
    code: str | Path | None = None,
    trust_device: bool = False,
    reporter: Reporter | None = None,
) -> SupernetCheck:
    """Train some networks alone, and compare their accuracies with those of a run's shared weights.

    Args:
        run_dir: a run directory whose evaluator is `supernet`.
        networks: number of networks that are trained alone.
        epochs: of each of these trainings.
        code: as for `resume`.
        trust_device: as for `resume`.
        reporter: is told the progress.

    Raises:
        RunDirectoryError: there is no run at this place, or it is in use.
        HwnasError: the run has no trained shared weights.
    """
    from pipeline.supernet_check import check_supernet

    reporter = reporter or Reporter()
    with given_run("supernet-check", run_dir, code, trust_device) as run, held(run, reporter):
        data, space = inputs_of(run)
        found = check_supernet(run, data, space, reporter, networks=networks, epochs=epochs)
        return SupernetCheck.of({"ok": True, "run_dir": str(run.path), **found})
