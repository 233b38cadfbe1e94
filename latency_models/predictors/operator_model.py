"""A cost model that learns the times of operators from the times of the networks that consist of them.

The time of a network is the sum of its operators' times. Each kind's time is a roofline-like line over its amounts of
work (non-negative coefficients: more work never takes less time) times a smooth correction over its sizes, a Gaussian
process. A sum of Gaussian processes that is only observed as sums is one again, so the posterior is exact, whatever
was timed: one block between two convolutions, a chain of blocks or a whole network (additive kernels: Duvenaud et al.,
Additive Gaussian processes, 2011; the regression: Rasmussen & Williams, Gaussian processes for machine learning, 2006,
chapter 2).

A whole network takes a little more than the sum of parts that were timed alone, because its weights don't stay in the
inner caches. This common factor, and its growth with the time, is part of the process; it doesn't grow on beyond the
largest network that was timed.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize, nnls

from latency_models.predictors.operator_kernel import Hyper, covariance, covariance_of_few, gram_matrix
from latency_models.predictors.operators import Operator
from latency_models.predictors.prediction import Prediction, interval_width
from latency_models.predictors.stored import StoredOperatorModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_LEAST_MS = 1e-5
_RIDGE = 1e-3
_HYPER_ROWS = 200
_FOLDS = 6
_FEW = 150
# Prior relative standard deviations of whole networks' common factor, and of its growth with the log of the time.
_FACTOR_SD = 0.1
_GROWTH_SD = 0.03


@dataclass(frozen=True)
class Observation:
    """A network's operators and its measured time.

    `noise` is the time's relative standard deviation; `whole` says that it is a whole network, not a part of one.
    """

    operators: tuple[Operator, ...]
    ms: float
    noise: float
    whole: bool = False


@dataclass(frozen=True)
class Lines:
    """The prior mean: for each kind a line, the coefficients of its amounts of work and a constant."""

    coefficients: dict[str, np.ndarray]

    @classmethod
    def fit(cls, observations: Sequence[Observation]) -> Lines:
        """Non-negative least squares of the relative errors (Lawson & Hanson, Solving least squares problems, 1974)."""
        widths = {operator.kind: len(operator.work) + 1 for each in observations for operator in each.operators}
        offsets = dict(zip(widths, np.cumsum([0, *widths.values()]), strict=False))
        design = np.zeros((len(observations), sum(widths.values())))
        for row, each in enumerate(observations):
            for operator in each.operators:
                at = offsets[operator.kind]
                design[row, at : at + widths[operator.kind]] += (*operator.work, 1.0)
        design /= np.array([each.ms for each in observations])[:, None]
        scale = np.sqrt((design**2).mean(axis=0))
        scale[scale == 0.0] = 1.0  # an amount that is 0 everywhere
        ridge = _RIDGE * math.sqrt(len(design)) * np.eye(design.shape[1])
        rows = np.vstack([design / scale, ridge])
        solution = nnls(rows, np.r_[np.ones(len(design)), np.zeros(design.shape[1])])[0] / scale
        return cls({kind: solution[at : at + widths[kind]] for kind, at in offsets.items()})

    def ms(self, operator: Operator) -> float:
        """The line's time of an operator, above 0."""
        line = self.coefficients.get(operator.kind)
        if line is None:
            return _LEAST_MS
        return max(float(line[:-1] @ np.array(operator.work, float)) + float(line[-1]), _LEAST_MS)


@dataclass(frozen=True)
class _Rows:
    """The observations as arrays (n,): `whole` is 1 or 0, `prior_ms` the sum of the operators' lines."""

    times: np.ndarray
    noise: np.ndarray
    whole: np.ndarray
    prior_ms: np.ndarray

    def common(self, ms: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """Covariances (n, m) of the common factor with that of networks of prior times `ms` (m,)."""
        growth = _GROWTH_SD**2 * np.outer(np.log(self.prior_ms), np.log(ms))
        return np.outer(self.whole * self.prior_ms, whole * ms) * (_FACTOR_SD**2 + growth)


@dataclass(frozen=True)
class _OperatorPosterior:
    """An operator's time: `line_ms` by its line, `learnt_ms` more by the observations.

    `half` (n,) are its covariances with the observations, multiplied by the inverse of the Cholesky factor.
    """

    kind: str
    log_sizes: np.ndarray
    line_ms: float
    half: np.ndarray
    learnt_ms: float


class OperatorModel:
    """Predicts the time of any multiset of operators; made by `fit`.

    The posterior of each operator is kept: the first prediction of an operator takes a fraction of a millisecond.
    `width` is half of a 90 % interval in standard deviations.
    """

    def __init__(self, observations: Sequence[Observation], hyper: Hyper, lines: Lines) -> None:
        self.observations, self.hyper, self.lines = tuple(observations), hyper, lines
        self._operators, self._counts = _counted(observations)
        self._prior_ms = np.array([lines.ms(each) for each in self._operators])
        self._rows = _Rows(
            times=np.array([each.ms for each in observations]),
            noise=np.array([each.noise for each in observations]),
            whole=np.array([float(each.whole) for each in observations]),
            prior_ms=self._counts @ self._prior_ms,
        )
        rows, prior = self._rows, self._prior_ms
        gram = gram_matrix(self._operators, self._counts, prior, hyper) + rows.common(rows.prior_ms, rows.whole)
        gram[np.diag_indices(len(gram))] += rows.times**2 * (hyper.misfit**2 + rows.noise**2)
        self._factor = cholesky(gram, lower=True)
        # A column of covariances is only ever needed through the factor's inverse.
        self._half_residual = self._half(rows.times - rows.prior_ms)
        self._half_factor = self._half(rows.whole * rows.prior_ms)
        self._half_growth = self._half(rows.whole * rows.prior_ms * np.log(rows.prior_ms))
        largest = rows.prior_ms[rows.whole > 0].max(initial=0.0) or rows.prior_ms.max()
        self._log_largest = math.log(largest)
        self._learnt_factor = _FACTOR_SD**2 * float(self._half_factor @ self._half_residual)
        self._learnt_growth = _GROWTH_SD**2 * float(self._half_growth @ self._half_residual)
        self._known: dict[Operator, _OperatorPosterior] = {}
        errors, deviations = self.leave_one_out(np.flatnonzero(rows.whole) if rows.whole.any() else None)
        self.width = interval_width(errors / deviations)

    @classmethod
    def fit(cls, observations: Sequence[Observation], hyper: Hyper | None = None) -> OperatorModel:
        """Fit to measured networks, with hyperparameters by marginal likelihood unless they are given.

        Raises:
            ValueError: fewer than two observations, or a time that is not above 0.
        """
        if len(observations) < 2 or any(each.ms <= 0 for each in observations):
            raise ValueError("a cost model needs two or more networks with times above 0")
        lines = Lines.fit(observations)
        model = cls(observations, hyper or _most_likely(_spread(observations), lines), lines)
        if _FOLDS <= len(observations) <= _FEW:
            # The lines alone fit few networks: only networks that they were not fitted to show how good they are.
            _, scores = cls._cross_validated(model.observations, model.hyper)
            model.width = interval_width(scores)
        return model

    def held_out_errors(self) -> np.ndarray | None:
        """Relative errors (n,) of the observations, each predicted without itself; None for fewer than 12."""
        if len(self.observations) > _FEW:
            return self.leave_one_out()[0]
        if len(self.observations) < 2 * _FOLDS:
            return None
        return self._cross_validated(self.observations, self.hyper)[0]

    @classmethod
    def _cross_validated(cls, observations: Sequence[Observation], hyper: Hyper) -> tuple[np.ndarray, np.ndarray]:
        """Held-out residuals of all networks in six folds: relative (n,), and in standard deviations (n,)."""
        errors, scores = np.zeros(len(observations)), np.zeros(len(observations))
        for fold in range(_FOLDS):
            known = [each for at, each in enumerate(observations) if at % _FOLDS != fold]
            model = cls(known, hyper, Lines.fit(known))
            for at in range(fold, len(observations), _FOLDS):
                each = observations[at]
                ms, deviation = model.predict_ms(each.operators, whole=each.whole)
                errors[at] = ms / each.ms - 1.0
                scores[at] = (ms - each.ms) / math.hypot(deviation, each.noise * each.ms)
        return errors, scores

    def predict_ms(self, operators: Iterable[Operator], *, whole: bool = True) -> tuple[float, float]:
        """A network's time and its standard deviation in ms, with its misfit to the sum."""
        amounts = Counter(operators)
        known = [self._of(operator) for operator in amounts]
        counts = np.array(list(amounts.values()), float)
        line_ms = np.array([each.line_ms for each in known])
        total = float(counts @ line_ms)
        ms = self._expected(total, float(counts @ [each.learnt_ms for each in known]), whole=whole)
        half = counts @ np.array([each.half for each in known])
        sizes = [each.log_sizes for each in known]
        covariances = covariance_of_few([each.kind for each in known], sizes, line_ms, self.hyper)
        variance = float(counts @ covariances @ counts)
        if whole:
            log_total = self._log_growing(total)
            half = half + total * (_FACTOR_SD**2 * self._half_factor + _GROWTH_SD**2 * log_total * self._half_growth)
            variance += total**2 * (_FACTOR_SD**2 + _GROWTH_SD**2 * log_total**2)
        left = max(variance - float(half @ half), 0.0)
        return ms, math.sqrt(left + (self.hyper.misfit * ms) ** 2)

    def expected_ms(self, operators: Iterable[Operator]) -> float:
        """A whole network's time in ms as `predict_ms` gives it, without its deviation: for thousands of networks."""
        known = [self._of(operator) for operator in operators]
        return self._expected(sum(each.line_ms for each in known), sum(each.learnt_ms for each in known), whole=True)

    def _expected(self, line_ms: float, learnt_ms: float, *, whole: bool) -> float:
        factor = self._learnt_factor + self._learnt_growth * self._log_growing(line_ms) if whole else 0.0
        return max(line_ms * (1.0 + factor) + learnt_ms, _LEAST_MS)

    def _log_growing(self, line_ms: float) -> float:
        """The logarithm by which the common factor grows: not beyond the largest network that it was learnt from."""
        return min(math.log(line_ms), self._log_largest)

    def predict(self, operators: Iterable[Operator]) -> Prediction:
        """A whole network's time with its 90 % interval."""
        ms, deviation = self.predict_ms(operators)
        reach = self.width * deviation
        return Prediction(ms, max(ms - reach, 0.0), ms + reach)

    def operator_ms(self, operator: Operator) -> float:
        """One operator's share of a network's time in ms."""
        known = self._of(operator)
        return known.line_ms + known.learnt_ms

    def leave_one_out(self, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Relative errors (n,) of observations predicted from all others, and their standard deviations (n,).

        `rows` selects observations; by default all. Rasmussen & Williams, section 5.4.2.
        """
        rows = np.arange(len(self._factor)) if rows is None else rows
        halves = self._half(np.eye(len(self._factor))[:, rows])
        precision = (halves**2).sum(axis=0)
        times = self._rows.times[rows]
        return halves.T @ self._half_residual / precision / times, 1.0 / np.sqrt(precision) / times

    def _of(self, operator: Operator) -> _OperatorPosterior:
        if operator not in self._known:
            line_ms = self.lines.ms(operator)
            own = covariance(self._operators, [operator], self._prior_ms, np.array([line_ms]), self.hyper)[:, 0]
            sizes = np.log(np.array(operator.sizes, float))
            half = self._half(self._counts @ own)
            learnt_ms = float(half @ self._half_residual)
            self._known[operator] = _OperatorPosterior(operator.kind, sizes, line_ms, half, learnt_ms)
        return self._known[operator]

    def _half(self, column: np.ndarray) -> np.ndarray:
        return np.asarray(solve_triangular(self._factor, column, lower=True, check_finite=False))

    def as_dict(self) -> dict[str, Any]:
        """The observations and hyperparameters as JSON takes them; all else follows from these."""
        operators, _ = _counted(self.observations)
        index = {operator: at for at, operator in enumerate(operators)}
        return {
            "hyper": {name: float(value) for name, value in vars(self.hyper).items()},
            "operators": [[each.kind, list(each.sizes), list(each.work)] for each in operators],
            "observations": [
                {
                    "operators": [index[o] for o in each.operators],
                    "ms": each.ms,
                    "noise": each.noise,
                    "whole": each.whole,
                }
                for each in self.observations
            ],
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> OperatorModel:
        """The model of an `as_dict`.

        Raises:
            ValueError: the document is not one of `as_dict`; pydantic's error says where it isn't.
        """
        stored = StoredOperatorModel.model_validate(document)
        operators = [Operator(kind, tuple(sizes), tuple(work)) for kind, sizes, work in stored.operators]
        observations = [
            Observation(tuple(operators[at] for at in row.operators), row.ms, row.noise, row.whole)
            for row in stored.observations
        ]
        return cls.fit(observations, Hyper(**stored.hyper.model_dump()))


def _counted(observations: Sequence[Observation]) -> tuple[list[Operator], np.ndarray]:
    """The distinct operators, and their counts (networks, operators)."""
    index: dict[Operator, int] = {}
    for each in observations:
        for operator in each.operators:
            index.setdefault(operator, len(index))
    counts = np.zeros((len(observations), len(index)))
    for row, each in enumerate(observations):
        for operator, count in Counter(each.operators).items():
            counts[row, index[operator]] = count
    return list(index), counts


def _spread(observations: Sequence[Observation]) -> Sequence[Observation]:
    """At most about 200 observations, evenly spread: many fits are made to them."""
    step = max(1, len(observations) // _HYPER_ROWS)
    return observations[::step]


def _most_likely(observations: Sequence[Observation], lines: Lines) -> Hyper:
    """Hyperparameters of the highest posterior density, with broad log-normal priors around the defaults."""
    operators, counts = _counted(observations)
    times = np.array([each.ms for each in observations])
    prior_ms = np.array([lines.ms(each) for each in operators])
    noise = np.array([each.noise for each in observations]) ** 2
    scaled = counts / times[:, None]
    residual = 1.0 - scaled @ prior_ms
    whole = np.array([float(each.whole) for each in observations])
    rows = _Rows(times, noise, whole, counts @ prior_ms)
    common = rows.common(rows.prior_ms, whole) / np.outer(times, times)
    start = Hyper().logs()

    def loss(logs: np.ndarray) -> float:
        hyper = Hyper(*np.exp(logs))
        gram = gram_matrix(operators, scaled, prior_ms, hyper) + common
        gram[np.diag_indices(len(times))] += hyper.misfit**2 + noise
        factor = cholesky(gram, lower=True)
        half = solve_triangular(factor, residual, lower=True)
        return float(0.5 * half @ half + np.log(np.diag(factor)).sum() + 0.5 * ((logs - start) ** 2).sum() / 1.5**2)

    found = minimize(loss, start, method="L-BFGS-B", options={"maxiter": 10})
    return Hyper(*(float(value) for value in np.exp(found.x)))
