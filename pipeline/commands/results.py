"""Results of the commands: frozen records with typed fields, each backed by the document that `--json` prints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, cast

from pydantic import TypeAdapter

from pipeline.config.run import RunConfig

_UNAVAILABLE = "_unavailable"


@dataclass(frozen=True, kw_only=True)
class Result:
    """Base of results: fields that programs use, taken from a document that may hold more.

    Attributes:
        document: what `--json` prints.
    """

    document: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Make the record of a document."""
        record: Any = cls
        return cast("Self", _adapter(record).validate_python({**document, "document": document}))

    def as_dict(self) -> dict[str, Any]:
        """Return the document as JSON takes it."""
        return dict(self.document)


@cache
def _adapter(record: Any) -> TypeAdapter[Any]:
    return TypeAdapter(record)


@dataclass(frozen=True, kw_only=True)
class ModelProfile(Result):
    """Costs of one ONNX file on a device.

    `latency_ms` is an undisturbed call's, `latency_low_ms` to `latency_high_ms` its 95 % interval; the percentiles are
    those of all calls, disturbances included. `peak_memory_bytes` are the activations at their peak, `footprint_bytes`
    a fresh process that loads and runs the model. A figure that can't be had is None, and `unavailable` says why.
    """

    model: str
    device: Mapping[str, Any]
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    latency_p50_ms: float
    latency_p99_ms: float
    peak_memory_bytes: int | None
    size_bytes: int
    macs: int | None
    params: int | None
    energy_mj: float | None
    gpu_memory_bytes: int | None
    footprint_bytes: int | None = None
    warnings: tuple[str, ...]
    environment: Mapping[str, Any]
    per_node: Mapping[str, Any] | None = None

    @property
    def unavailable(self) -> dict[str, str]:
        """Reasons for the figures that are None, by the figure's name."""
        reasons = {key: text for key, text in self.document.items() if key.endswith(_UNAVAILABLE)}
        return {key.removesuffix(_UNAVAILABLE): text for key, text in reasons.items()}


@dataclass(frozen=True, kw_only=True)
class ComparisonRow(ModelProfile):
    """Costs of one of several files that were timed in alternation, set against the first of them.

    `ratio` is this file's latency over the first one's, `ratio_low` to `ratio_high` its 95 % interval; `different` is
    true where the interval leaves out 1.
    """

    ratio: float
    ratio_low: float
    ratio_high: float
    different: bool


@dataclass(frozen=True, kw_only=True)
class LatencyPrediction(Result):
    """Predicted latency with its 90 % interval.

    Attributes:
        model: the cost model, and from how many measurements it was made.
        measured_ms: of an architecture that was measured in its run, that time.
    """

    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    model: str
    measured_ms: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Optimization(Result):
    """Outcome of rewriting a file's activations and pools.

    `output` is the new file. Where nothing was gained it holds the model as it was, `changed` is false, and `reason`
    says why. `ratio` is the new file's latency over the old one's with its 95 % interval, `largest_difference` that of
    an output as a share of the largest value in it; None where nothing was compared.
    """

    model: str
    output: Path
    changed: bool
    reason: str
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    largest_difference: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class CheckResult:
    """One check of a bundle: `ok` is None where it could not be made, and `detail` says why."""

    name: str
    ok: bool | None
    detail: str


@dataclass(frozen=True, kw_only=True)
class Verification(Result):
    """Outcome of checking a bundle: `ok` unless one of the checks failed."""

    ok: bool
    checks: tuple[CheckResult, ...]


@dataclass(frozen=True, kw_only=True)
class SearchResult(Result):
    """Outcome of a search: the places of its files, and the winner's figures.

    Attributes:
        picked: the winner's trial.
        objectives: the winner's objectives and limited metrics as finished, by name; None where one can't be had.
        limits: the limits that were asked for, by metric.
        metrics: all that was measured of the deployed file.
        int8: whether it is shipped as INT8, and the figures that decided.
        references: the published networks beside it, one mapping each; None where nobody asked for them.
        references_verdict: what they say of the winner.
    """

    run_dir: Path
    bundle_dir: Path
    report: Path
    picked: str
    objectives: Mapping[str, float | None]
    limits: Mapping[str, float]
    metrics: Mapping[str, Any]
    int8: Mapping[str, Any]
    references: tuple[Mapping[str, Any], ...] | None = None
    references_verdict: str | None = None


@dataclass(frozen=True, kw_only=True)
class Trial(Result):
    """One candidate of a run.

    Attributes:
        id: a hash of the architecture.
        architecture: label → choice.
        status: "infeasible" where a limit is broken, "failed" with the `error`.
        objectives: name → value, as far as they became known.
        on_front: whether no other feasible trial is at least as good in everything and better in something.
        started: ISO 8601, UTC.
        seconds: duration of the trial.
        score: the one number that the strategy was told.
        details: how the figures came about.
    """

    id: str
    architecture: Mapping[str, Any]
    status: Literal["ok", "infeasible", "failed"]
    objectives: Mapping[str, float]
    on_front: bool
    error: str | None
    started: str
    seconds: float
    score: float | None
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A run directory as it was read: its config with every default, and its trials in the order in which they ended.

    `bundle_dir` and `report` are None where there are none yet.
    """

    path: Path
    config: RunConfig
    trials: tuple[Trial, ...]
    bundle_dir: Path | None
    report: Path | None

    @property
    def front(self) -> tuple[Trial, ...]:
        """The trials on the Pareto front of the run's objectives."""
        return tuple(trial for trial in self.trials if trial.on_front)


@dataclass(frozen=True, kw_only=True)
class SupernetCheck(Result):
    """Agreement of inherited with trained accuracies.

    `all` and `best` (the best tenth) have, for `inherited`, `not_recalibrated` and each baseline, Spearman's and
    Kendall's correlations with their 95 % intervals, or None; `advantage_of_inherited` the difference of Spearman's.
    """

    ok: bool
    run_dir: str
    epochs: int
    rows: Sequence[Mapping[str, Any]]
    all: Mapping[str, Any]
    best: Mapping[str, Any]
    advantage_of_inherited: Mapping[str, Any]
