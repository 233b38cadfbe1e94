"""What each activation does to accuracy and latency, as far as a search's trials tell.

A Bayesian linear regression (MacKay, "Bayesian interpolation", 1992; scikit-learn's `BayesianRidge`) of what candidates
reached on their choices. A candidate differs from another in much besides its activations, so all its choices are in
the regression, and with them the logarithms of its operations and parameters. An activation counts twice: by the share
of the network's places that have it, and for itself at each place; so a place about which few trials speak leans on
the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.activations.facts import EVERYWHERE, Effect, Effects
from pipeline.spaces.base import activations_of
from pipeline.trials.result import is_stopped, scored_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.trials.journal import TrialRecord

BASELINE = "relu"
LEAST_TRIALS = 5
_COVERAGE = 0.9
_COUNTED = ("macs", "params")
# A priori a share's effect may be twice another choice's, and that twice an activation's at a single place: what is
# asked for should be shrunk little, but not take the credit for a width that always came with it.
_SHARE_SCALE = 4.0
_CHOICE_SCALE = 2.0
# For a quantity of standard deviation 1, coefficients of about 0.4 and noise of about 0.5, both held loosely. Flat
# priors let a few trials be explained without noise, or all effects be 0 for certain.
_PRIORS = {"alpha_1": 2.0, "alpha_2": 0.5, "lambda_1": 2.0, "lambda_2": 0.3}


def effects_of(records: Sequence[TrialRecord]) -> Effects:
    """The effects of the activations that were tried, everywhere and at each place; against relu where it was tried.

    Accuracies of trainings that were stopped early are left out: they are of fewer epochs; and so are scores of
    untrained networks, which are no accuracies.
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
    """The effects, and why there are none."""
    names = _tried(records)
    if len(records) < LEAST_TRIALS:
        return (), f"{len(records)} trials are too few to tell; {LEAST_TRIALS} are the least"
    if len(names) < 2:
        return (), f"all {len(records)} trials have the same activation" if names else "the space has no activations"
    if np.std(values) == 0.0:
        return (), f"all {len(records)} trials reached the same value"
    table = _Table.of(records, names)
    posterior = _Posterior.of(table.columns, np.array(values))
    found = []
    for place in (*([EVERYWHERE] if len(table.places) > 1 else []), *table.places):
        against = {name: table.contrast(name, place) for name in names}
        base = against[baseline] if baseline else np.mean(list(against.values()), axis=0)
        for name in names:
            trials = table.trials(name, place)
            if name != baseline and trials > 0:
                found.append(Effect(name, place, trials, *posterior.interval(against[name] - base)))
    return tuple(found), ""


@dataclass(frozen=True)
class _Table:
    """Trials as rows of numbers.

    Attributes:
        columns: (trials, columns): other choices and counts; then each activation's share; then, place by place,
            whether each activation stands there.
        first_share: where the shares begin.
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
        shares = [[_SHARE_SCALE * _share(each, name) for name in names] for each in activations]
        stands = [[float(each.get(place) == name) for place in places for name in names] for each in activations]
        columns = np.hstack([others, np.array(shares), np.array(stands)])
        return cls(names, places, activations, columns, others.shape[1])

    def contrast(self, name: str, place: str) -> np.ndarray:
        """(columns,): how the columns change when a network gets the activation at that place, or everywhere."""
        found = np.zeros(self.columns.shape[1])
        at = self.names.index(name)
        present = [len(each) for each in self.activations if place in each]
        found[self.first_share + at] = _SHARE_SCALE if place == EVERYWHERE else _SHARE_SCALE / float(np.mean(present))
        for n, other in enumerate(self.places):
            column = self.first_share + len(self.names) * (n + 1) + at
            if place == EVERYWHERE:  # as in the average trial: not every network has every place
                found[column] = float(np.mean([other in each for each in self.activations]))
            elif other == place:
                found[column] = 1.0
        return found

    def trials(self, name: str, place: str) -> int:
        """How many trials have the activation there."""
        if place == EVERYWHERE:
            return sum(name in each.values() for each in self.activations)
        return sum(each.get(place) == name for each in self.activations)


@dataclass(frozen=True)
class _Posterior:
    """The coefficients' distribution, normal given what the data say of noise and size.

    Attributes:
        mean: (columns,).
        covariance: (columns, columns).
        scale: what multiplies both: the quantity was divided by it.
        quantile: of the interval's ends, in standard deviations.
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
        # Its own `sigma_` leaves out what no trial varies, in releases before 1.6.
        centred = columns - columns.mean(axis=0)
        precision = fitted.alpha_ * centred.T @ centred + fitted.lambda_ * np.eye(columns.shape[1])
        # Student's quantile: the noise, too, is only known from so many trials.
        quantile = float(stats.t.ppf(0.5 + _COVERAGE / 2, len(values) - 1))
        return cls(fitted.coef_, np.linalg.inv(precision), scale, quantile)

    def interval(self, contrast: np.ndarray) -> tuple[float, float, float]:
        """The value of a sum of coefficients, and its interval's ends."""
        value = float(contrast @ self.mean) * self.scale
        reach = self.quantile * math.sqrt(float(contrast @ self.covariance @ contrast)) * self.scale
        return value, value - reach, value + reach


def _share(activations: dict[str, str], name: str) -> float:
    return sum(each == name for each in activations.values()) / max(1, len(activations))


def _others(records: Sequence[TrialRecord]) -> np.ndarray:
    """(trials, columns): the choices that are no activations, one-hot, and the logarithms of counted costs."""
    places = {label for r in records for label in r.architecture if label.endswith("activation")}
    chosen = dict.fromkeys(
        (label, value) for r in records for label, value in r.architecture.items() if label not in places
    )
    columns = [[float(r.architecture.get(label) == value) for r in records] for label, value in chosen]
    for name in _COUNTED:
        counts = [r.objectives.get(name, 0.0) for r in records]
        logs = np.log(counts) if min(counts) > 0.0 else np.zeros(len(counts))
        columns.append(list((logs - logs.mean()) / (logs.std() or 1.0)))
    return _CHOICE_SCALE * np.array(columns).T


def _as_change(effect: Effect) -> Effect:
    """A difference of logarithms as a relative change."""
    value, low, high = (math.expm1(each) for each in (effect.value, effect.low, effect.high))
    return Effect(effect.activation, effect.place, effect.trials, value, low, high)
