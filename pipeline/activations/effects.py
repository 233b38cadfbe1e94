"""The effect of each activation on accuracy and latency, estimated from a search's trials.

The estimate is a Bayesian linear regression on the candidates' choices (MacKay, "Bayesian interpolation", 1992;
scikit-learn's `BayesianRidge`). Candidates differ in much besides their activations, so all choices are in the
regression, and the logarithms of operations and parameters with them. An activation counts twice: by the share of the
network's places that have it, and for itself at each place; so a place with few trials leans on the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.activations.facts import EVERYWHERE, Effect, Effects
from pipeline.spaces.base import activation_place, activations_of
from pipeline.trials.result import is_stopped, scored_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.trials.journal import TrialRecord

BASELINE = "relu"
LEAST_TRIALS = 5
_COVERAGE = 0.9
_COUNTED = ("macs", "params")
# A priori a share's effect may be twice another choice's, and that twice an activation's at a single place: the effects
# in question should be shrunk little, but not take the credit for a width that always came with them.
_SHARE_SCALE = 4.0
_CHOICE_SCALE = 2.0
# For a quantity of standard deviation 1, coefficients of about 0.4 and noise of about 0.5, both held loosely. Flat
# priors let a few trials be explained without noise, or all effects be 0 for certain.
_PRIORS = {"alpha_1": 2.0, "alpha_2": 0.5, "lambda_1": 2.0, "lambda_2": 0.3}


def effects_of(records: Sequence[TrialRecord]) -> Effects:
    """The effects of the tried activations, everywhere and at each place; against relu where it was tried.

    Accuracies of trainings that were stopped early are left out, since they are of fewer epochs; and so are zero-cost
    scores, which are no accuracies.
    """
    whole = [r for r in records if not is_stopped(r.details) and not scored_by(r.details)]
    trained = [r for r in whole if r.status == "ok" and "accuracy" in r.objectives]
    timed = [r for r in records if r.objectives.get("latency_ms", 0.0) > 0.0]
    known = [group for group in (trained, timed) if len(group) >= LEAST_TRIALS]
    baseline = BASELINE if known and all(BASELINE in _tried(group) for group in known) else ""
    accuracy, no_accuracy = _effects(trained, [r.objectives["accuracy"] for r in trained], baseline)
    latency, no_latency = _effects(timed, [math.log(r.objectives["latency_ms"]) for r in timed], baseline)
    return Effects(
        baseline=baseline,
        trained=len(trained),
        timed=len(timed),
        predicted=sum(r.details.get("latency", {}).get("source") == "predicted" for r in timed),
        accuracy=accuracy,
        latency=tuple(_as_change(effect) for effect in latency),
        accuracy_missing=no_accuracy,
        latency_missing=no_latency,
    )


def _tried(records: Sequence[TrialRecord]) -> list[str]:
    return sorted({name for record in records for name in activations_of(record.architecture).values()})


def _effects(records: Sequence[TrialRecord], values: Sequence[float], baseline: str) -> tuple[tuple[Effect, ...], str]:
    """The effects, and the reason why there are none."""
    names = _tried(records)
    if len(records) < LEAST_TRIALS:
        return (), f"{len(records)} trials are too few to tell; {LEAST_TRIALS} are the least"
    if len(names) < 2:
        return (), f"all {len(records)} trials have the same activation" if names else "the space has no activations"
    if np.std(values) == 0.0:
        return (), f"all {len(records)} trials reached the same value"
    table = _Table.of(records, names)
    posterior = _Posterior.of(table.columns, np.array(values))
    effects = []
    for place in (*([EVERYWHERE] if len(table.places) > 1 else []), *table.places):
        against = {name: table.contrast(name, place) for name in names}
        base = against[baseline] if baseline else np.mean(list(against.values()), axis=0)
        for name in names:
            trials = table.trials(name, place)
            if name != baseline and trials > 0:
                effects.append(Effect(name, place, trials, *posterior.interval(against[name] - base)))
    return tuple(effects), ""


@dataclass(frozen=True)
class _Table:
    """The regression's design matrix.

    Attributes:
        columns: (trials, columns): other choices and counts; then each activation's share; then, place by place,
            whether each activation is there.
        first_share: the first column of a share.
    """

    names: list[str]
    places: list[str]
    activations: list[dict[str, str]]
    columns: np.ndarray
    first_share: int

    @classmethod
    def of(cls, records: Sequence[TrialRecord], names: list[str]) -> _Table:
        activations = [activations_of(record.architecture) for record in records]
        places = list(dict.fromkeys(place for each in activations for place in each))
        others = _others(records)
        shares = _rows((_SHARE_SCALE * _share(each, name) for each in activations for name in names), len(names))
        wanted = [(place, name) for place in places for name in names]
        present = _rows((each.get(place) == name for each in activations for place, name in wanted), len(wanted))
        columns = np.hstack([others, shares, present])
        return cls(names, places, activations, columns, others.shape[1])

    def contrast(self, name: str, place: str) -> np.ndarray:
        """The change of the columns (columns,) when a network gets the activation at that place, or everywhere."""
        change = np.zeros(self.columns.shape[1])
        at = self.names.index(name)
        present = [len(each) for each in self.activations if place in each]
        change[self.first_share + at] = _SHARE_SCALE if place == EVERYWHERE else _SHARE_SCALE / float(np.mean(present))
        for n, other in enumerate(self.places):
            column = self.first_share + len(self.names) * (n + 1) + at
            if place == EVERYWHERE:  # as in the average trial: not every network has every place
                change[column] = float(np.mean([other in each for each in self.activations]))
            elif other == place:
                change[column] = 1.0
        return change

    def trials(self, name: str, place: str) -> int:
        """Number of trials that have the activation there."""
        if place == EVERYWHERE:
            return sum(name in each.values() for each in self.activations)
        return sum(each.get(place) == name for each in self.activations)


@dataclass(frozen=True)
class _Posterior:
    """Normal posterior of the coefficients, given the noise and the size that were fitted.

    Attributes:
        mean: (columns,).
        covariance: (columns, columns).
        scale: the unit of both, by which the quantity was divided.
        quantile: half the width of the intervals, in standard deviations.
    """

    mean: np.ndarray
    covariance: np.ndarray
    scale: float
    quantile: float

    @classmethod
    def of(cls, columns: np.ndarray, values: np.ndarray) -> _Posterior:
        from scipy import stats
        from sklearn.linear_model import BayesianRidge

        scale = float(values.std())
        fitted: Any = BayesianRidge(max_iter=1000, **_PRIORS).fit(columns, values / scale)
        # scikit-learn's own `sigma_` leaves out columns that no trial varies, in releases before 1.6.
        centred = columns - columns.mean(axis=0)
        precision = fitted.alpha_ * centred.T @ centred + fitted.lambda_ * np.eye(columns.shape[1])
        # Student's quantile, since the noise is estimated from the same trials.
        quantile = float(stats.t.ppf(0.5 + _COVERAGE / 2, len(values) - 1))
        return cls(fitted.coef_, np.linalg.inv(precision), scale, quantile)

    def interval(self, contrast: np.ndarray) -> tuple[float, float, float]:
        """The value of a weighted sum of coefficients, and the ends of its interval."""
        value = float(contrast @ self.mean) * self.scale
        reach = self.quantile * math.sqrt(float(contrast @ self.covariance @ contrast)) * self.scale
        return value, value - reach, value + reach


def _share(activations: dict[str, str], name: str) -> float:
    return sum(each == name for each in activations.values()) / max(1, len(activations))


def _others(records: Sequence[TrialRecord]) -> np.ndarray:
    """Columns (trials, columns) of the choices that are no activations, one-hot, and of the logarithms of counts."""
    places = {label for r in records for label in r.architecture if activation_place(label)}
    chosen = dict.fromkeys(
        (label, value) for r in records for label, value in r.architecture.items() if label not in places
    )
    columns = np.empty((len(chosen) + len(_COUNTED), len(records)))
    for row, (label, value) in enumerate(chosen):
        columns[row] = np.fromiter((r.architecture.get(label) == value for r in records), bool, len(records))
    for row, name in enumerate(_COUNTED, len(chosen)):
        counts = [r.objectives.get(name, 0.0) for r in records]
        logs = np.log(counts) if min(counts) > 0.0 else np.zeros(len(counts))
        columns[row] = (logs - logs.mean()) / (logs.std() or 1.0)
    columns *= _CHOICE_SCALE
    return columns.T


def _rows(values: Iterable[float], width: int) -> np.ndarray:
    """Rows of as many values, shape (rows, width); a long search's would be large as lists."""
    return np.fromiter(values, float).reshape(-1, width)


def _as_change(effect: Effect) -> Effect:
    """Convert a difference of logarithms to a relative change."""
    value, low, high = (math.expm1(each) for each in (effect.value, effect.low, effect.high))
    return Effect(effect.activation, effect.place, effect.trials, value, low, high)
