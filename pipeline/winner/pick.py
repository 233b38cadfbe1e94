"""Which finished trial becomes the product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import NothingFeasibleError, UnknownTrialError, nearest
from pipeline.trials.objectives import as_losses, knee, pareto_front
from pipeline.trials.result import is_stopped

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.run import RunDirectory
    from pipeline.trials.journal import TrialRecord

_Rule = Callable[[list["TrialRecord"], "RunConfig"], list["TrialRecord"]]


def front_of(records: Sequence[TrialRecord], objectives: Sequence[str]) -> list[TrialRecord]:
    """The feasible trials that no other dominates, best accuracy first."""
    feasible = [record for record in records if record.status == "ok"]
    losses = as_losses([record.objectives for record in feasible], objectives)
    front = [feasible[i] for i in pareto_front(losses)]
    return sorted(front, key=lambda record: -record.objectives["accuracy"])


def ranked(run: RunDirectory, records: list[TrialRecord], pick: str) -> list[TrialRecord]:
    """Trials in the order in which they are to be tried, for a rule's name or a trial's id.

    A rule looks at those that were trained to the end, and only behind all that it takes of them at those that were
    stopped early: after fewer epochs an accuracy is another thing.

    Raises:
        UnknownTrialError: `pick` is neither a rule nor a finished, feasible trial.
        NothingFeasibleError: no trial keeps the limits; tells the nearest miss.
    """
    if not any(record.status == "ok" for record in records):
        raise NothingFeasibleError(_why_nothing(records), run.path)
    if pick in RULES:
        feasible = [record for record in records if record.status == "ok"]
        stopped = [record for record in feasible if is_stopped(record.details)]
        whole = [record for record in feasible if not is_stopped(record.details)]
        return [record for group in (whole, stopped) if group for record in RULES[pick](group, run.config)]
    found = [record for record in records if len(pick) >= 4 and record.id.startswith(pick)]
    if len(found) != 1:
        valid = [*RULES, *(r.id for r in front_of(records, run.config.objectives))]
        raise UnknownTrialError(
            f"no single trial {pick!r} in {run.path} (an id, or at least its first 4 characters){nearest(pick, valid)}"
        )
    if found[0].status != "ok":
        raise UnknownTrialError(f"trial {found[0].id} is {found[0].status} and can't be exported")
    return found


def check_pick(pick: str) -> None:
    """A pick of a config, before there are trials: a rule's name, or something that can be an id.

    Raises:
        UnknownTrialError: it can be neither.
    """
    is_id = 4 <= len(pick) <= 12 and all(c in "0123456789abcdef" for c in pick)
    if pick not in RULES and not is_id:
        raise UnknownTrialError(f"found {pick!r}{nearest(pick, RULES)}, or a trial's id")


def _knee(records: list[TrialRecord], config: RunConfig) -> list[TrialRecord]:
    feasible = [record for record in records if record.status == "ok"]
    losses = as_losses([record.objectives for record in feasible], config.objectives)
    return [feasible[i] for i in knee(losses, pareto_front(losses))]


def _fastest(records: list[TrialRecord], config: RunConfig) -> list[TrialRecord]:
    return sorted(front_of(records, config.objectives), key=lambda record: record.objectives["latency_ms"])


def _most_accurate(records: list[TrialRecord], config: RunConfig) -> list[TrialRecord]:
    return front_of(records, config.objectives)


RULES: dict[str, _Rule] = {"knee": _knee, "fastest": _fastest, "most-accurate": _most_accurate}
"""Rule → trials of the front in the order in which they are tried."""


def _why_nothing(records: list[TrialRecord]) -> str:
    infeasible = [record for record in records if record.status == "infeasible"]
    if infeasible:
        closest = max(infeasible, key=lambda record: record.score)
        missed = ", ".join(
            f"{name} {closest.objectives[name]:.6g} ({share:.0%} over)"
            for name, share in closest.details["excess"].items()
        )
        return f"none of {len(records)} candidates keeps the limits; the nearest miss, {closest.id}, has {missed}"
    failed = [record for record in records if record.status == "failed"]
    if failed:
        return f"all {len(failed)} candidates failed; the last with: {failed[-1].error}"
    return "the budget ended before the first candidate was judged"
