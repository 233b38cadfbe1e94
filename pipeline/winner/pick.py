"""Rules that pick the finished trial to become the bundle."""

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
    """Trials in the order in which they are to be finished, for the name of a rule or the id of a trial.

    A rule ranks the trials that were trained to the end, and behind these the ones that were stopped early: accuracies
    after different numbers of epochs can't be compared.

    Raises:
        UnknownTrialError: `pick` is neither a rule nor a finished, feasible trial.
        NothingFeasibleError: no trial keeps the limits; with the nearest miss.
    """
    if not any(record.status == "ok" for record in records):
        raise NothingFeasibleError(_nothing_feasible(records), run.path)
    records = sorted(records, key=lambda record: record.submitted)  # among equals the clock mustn't choose
    if pick in RULES:
        feasible = [record for record in records if record.status == "ok"]
        stopped = [record for record in feasible if is_stopped(record.details)]
        whole = [record for record in feasible if not is_stopped(record.details)]
        return [record for group in (whole, stopped) if group for record in RULES[pick](group, run.config)]
    named = [record for record in records if len(pick) >= 4 and record.id.startswith(pick)]
    if len(named) != 1:
        valid = [*RULES, *(r.id for r in front_of(records, run.config.objectives))]
        raise UnknownTrialError(
            f"no single trial {pick!r} in {run.path} (an id, or at least its first 4 characters){nearest(pick, valid)}"
        )
    if named[0].status != "ok":
        raise UnknownTrialError(f"trial {named[0].id} is {named[0].status} and can't be exported")
    return named


def check_pick(pick: str) -> None:
    """Check a config's pick before there are trials: the name of a rule, or a possible id.

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
"""Name → a rule, which orders trials of the front; the first is finished first."""


def _nothing_feasible(records: list[TrialRecord]) -> str:
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
