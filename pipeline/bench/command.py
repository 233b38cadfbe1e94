"""What `hwnas bench` does, without its terminal."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from latency_models.timer import usable_cores
from pipeline.bench.config import load_bench
from pipeline.bench.page import write_page
from pipeline.bench.pool import run_all
from pipeline.bench.results import PAGE, KeptResults
from pipeline.bench.run import Task, Workbench
from pipeline.bench.summary import Summary, truth_record
from pipeline.errors import Interrupted
from pipeline.files import locked
from pipeline.run import default_path
from pipeline.trials.reporter import duration
from pipeline.trust import given_config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.bench.config import BenchConfig
    from pipeline.bench.run import Result
    from pipeline.trials.reporter import Reporter


def bench(
    config_path: Path,
    overrides: list[str],
    output: Path | None,
    jobs: int | None,
    reporter: Reporter,
    code: Path | None = None,
) -> dict[str, Any]:
    """Run every strategy of a benchmark's config on each device with each seed, and write the page.

    Args:
        config_path: a YAML file.
        overrides: `key.path=value` texts.
        output: a directory, by default a new one; finished searches that it holds are used again.
        jobs: searches at a time, by default one a core; they change no result.
        reporter: shows progress.
        code: the folder of the user's own modules, by default the working folder.

    Returns:
        The document of `--json`.

    Raises:
        HwnasError: the config, the table or the directory can't be used, or a search failed.
        Interrupted: the user asked to stop.
    """
    with given_config("bench", config_path, code):
        config = load_bench(config_path, overrides)
        workbench = Workbench(config, str(config_path))
        workbench.check()
        path = output or default_path(f"{config.name}-bench")
        kept = KeptResults(path, config)
        with locked(kept.path), closing(reporter):
            reporter.stage(f"Results: {path}")
            try:
                tasks, at_a_time = tasks_of(config), jobs or usable_cores()
                results = run_searches(workbench, str(config_path), tasks, kept, at_a_time, reporter)
                return _write(workbench, results, path)
            except KeyboardInterrupt:
                changes = [word for text in overrides for word in ("--set", text)]
                own = () if code is None else ("--code", str(code))
                raise Interrupted("bench", str(config_path), *changes, *own, "--output", str(path)) from None


def tasks_of(config: BenchConfig) -> list[Task]:
    """All searches, seed by seed, so that finished ones are a fair comparison at any time."""
    strategies = range(len(config.strategies))
    return [Task(n, device, seed) for seed in range(config.seeds) for n in strategies for device in config.columns()]


def run_searches(
    workbench: Workbench, source: str, tasks: Sequence[Task], kept: KeptResults, jobs: int, reporter: Reporter
) -> dict[Task, Result]:
    """The results of searches: those that are kept, and those that are run now, each kept as soon as it is there.

    Raises:
        SearchError: a strategy raised, or a process died.
    """
    results = kept.read(tasks)
    if results:
        reporter.note(f"{len(results)} of {len(tasks)} searches are taken from {kept.path}")
    left = [task for task in tasks if task not in results]
    began = time.monotonic()
    with closing(run_all(workbench, source, left, jobs)) as coming:
        for number, (task, result) in enumerate(coming, 1):
            kept.add(task, result)
            results[task] = result
            rest = duration((time.monotonic() - began) / number * (len(left) - number))
            label = workbench.config.labels()[task.strategy]
            text = f"search {len(results)} of {len(tasks)} · {label} on {task.device} · time left about {rest}"
            reporter.progress(text, len(results) / len(tasks))
    return results


def _write(workbench: Workbench, results: dict[Task, Result], path: Path) -> dict[str, Any]:
    """Write the page; the document that it shows."""
    config = workbench.config
    summary = Summary(config, results)
    document = {
        "output": str(path),
        "page": str(path / PAGE),
        "report_at": config.report_at,
        "devices": [truth_record(each, workbench.truth(each), workbench.limits(each)) for each in config.columns()],
        "summary": summary.rows(),
        "comparisons": summary.comparisons(),
        "results": summary.results(),
    }
    write_page(path / PAGE, config, summary, document)
    return document
