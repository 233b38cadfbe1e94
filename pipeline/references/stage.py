"""The last stage of a run: the winner beside its reference points, where they were asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from export.manifest import read_manifest
from pipeline.references.records import read
from pipeline.references.verdict import rows, verdict
from pipeline.report.page import write_report

if TYPE_CHECKING:
    from pipeline.console import Reporter
    from pipeline.data import DataSet
    from pipeline.journal import TrialRecord
    from pipeline.run import RunDirectory


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
