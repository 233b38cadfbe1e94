"""Figures of a search after each trial: its share of the table's hypervolume, and its regret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.trials.objectives import excess, hypervolume, pareto_front

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from pipeline.evaluators.lookup import Lookup
    from pipeline.trials.journal import TrialRecord

ERROR_PERCENTILE = 90
COST_PERCENTILE = 99
Steps = list[tuple[int, float]]
"""A step function: (number of trials, value from there on) at each change; the first one is at 0 trials."""


@dataclass(frozen=True)
class Truth:
    """Figures of a whole table on one device, which searches are compared with.

    Attributes:
        objectives: the costs' names, the error's being first.
        reference: (objectives,): percentiles of the table's valid rows.
        hypervolume: of all valid rows.
        reachable: the share of it that the rows within the limits have.
        best_accuracy: of the rows within the limits; 0 where there are none.
        rows: how many are valid.
    """

    objectives: tuple[str, ...]
    reference: npt.NDArray[np.float64]
    hypervolume: float
    reachable: float
    best_accuracy: float
    rows: int

    @classmethod
    def of(cls, lookup: Lookup, objectives: Sequence[str], limits: Mapping[str, float]) -> Truth:
        """Figures of a table.

        Args:
            lookup: the table.
            objectives: of the search, accuracy among them.
            limits: metric → highest allowed value.
        """
        accuracy, costs = lookup.valid()
        metrics = list(lookup.known.metrics)
        chosen = [name for name in objectives if name != "accuracy"]
        losses = np.column_stack([1.0 - accuracy, *(costs[:, metrics.index(name)] for name in chosen)])
        shares = [ERROR_PERCENTILE] + [COST_PERCENTILE] * len(chosen)
        reference = np.array([np.percentile(column, share) for column, share in zip(losses.T, shares, strict=True)])
        allowed = np.array([not excess(dict(zip(metrics, row, strict=True)), limits) for row in costs.tolist()])
        whole, within = (hypervolume(rows[pareto_front(rows)], reference) for rows in (losses, losses[allowed]))
        best = float(accuracy[allowed].max()) if allowed.any() else 0.0
        return cls(("error", *chosen), reference, whole, within / whole if whole else 0.0, best, len(losses))

    def curves(self, records: Iterable[TrialRecord]) -> tuple[Steps, Steps]:
        """Share of the hypervolume and regret over the number of a search's trials.

        Trained and failed trials count. Those over a limit have no accuracy, cost no budget and add nothing.
        """
        front = np.empty((0, len(self.reference)))
        shares: Steps = [(0, 0.0)]
        regrets: Steps = [(0, self.best_accuracy)]
        trials = 0
        for record in records:
            trials += record.status != "infeasible"
            if record.status != "ok":
                continue
            regret = self.best_accuracy - record.objectives["accuracy"]
            if regret < regrets[-1][1]:
                regrets.append((trials, regret))
            loss = np.array([1.0 - record.objectives["accuracy"], *(record.objectives[n] for n in self.objectives[1:])])
            if not (loss < self.reference).all() or (front <= loss).all(axis=1).any():
                continue
            front = np.vstack([front[~(loss <= front).all(axis=1)], loss])
            shares.append((trials, hypervolume(front, self.reference) / self.hypervolume))
        return shares, regrets


def value_at(steps: Steps, trials: int) -> float:
    """A step function's value after a number of trials."""
    return float(values_at(steps, np.array([trials]))[0])


def values_at(steps: Steps, trials: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """A step function's values after several numbers of trials."""
    numbers = np.array([number for number, _ in steps])
    return np.array([value for _, value in steps])[np.searchsorted(numbers, trials, side="right") - 1]
