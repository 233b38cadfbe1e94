"""The records of a run's `activations.json`, which tell what its activations cost and do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path  # noqa: TC003 - of a public signature
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from latency_models.files import read_file
from pipeline.errors import HwnasError
from pipeline.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 1
FILE = "activations.json"
EVERYWHERE = "everywhere"
_LARGEST = 1e30
"""Far above all that is written; numbers near a float's largest can't be drawn."""


class ActivationFileError(HwnasError):
    """An `activations.json` that can't be read, or belongs to another winner or config."""


@dataclass(frozen=True)
class Effect:
    """The effect of an activation against the baseline, with its 90 % interval.

    Attributes:
        activation: its name.
        place: as in an architecture's activations; `everywhere` for all of a network's places at once.
        trials: number of trials that had it there.
        value: a difference of validation accuracies (0 to 1), or a relative change of the latency (0.1: 10 % more).
    """

    activation: str
    place: str
    trials: int
    value: float
    low: float
    high: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True)
class Effects:
    """Effects estimated from the search's trials, with one regression for accuracy and one for latency.

    Attributes:
        baseline: the activation that effects are against; empty for the mean of all activations.
        trained: number of trials whose accuracy was used.
        timed: number of trials whose latency was used, including those that broke a limit.
        predicted: those of `timed` whose latency came from a cost model.
        accuracy: differences of validation accuracy; empty with a reason in `accuracy_missing`.
        latency: relative changes of the latency; empty with a reason in `latency_missing`.
    """

    baseline: str
    trained: int
    timed: int
    predicted: int
    accuracy: tuple[Effect, ...]
    latency: tuple[Effect, ...]
    accuracy_missing: str = ""
    latency_missing: str = ""


@dataclass(frozen=True)
class PlaceCost:
    """Latency that a place's activation costs more than relu there, with its 95 % interval.

    Attributes:
        ratio: the latency with relu at that place over the network's own.
        cost_ms: `(1 - ratio)` of the network's latency; negative where relu is slower.
        missing: the reason why there are no figures; empty where there are.
    """

    place: str
    activation: str
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    cost_ms: float | None = None
    cost_low_ms: float | None = None
    cost_high_ms: float | None = None
    missing: str = ""

    @property
    def is_significant(self) -> bool:
        """Whether the interval of the ratio leaves out 1."""
        low, high = self.ratio_low, self.ratio_high
        return low is not None and high is not None and not low <= 1.0 <= high


@dataclass(frozen=True)
class Costs:
    """Costs of the winner's activations on the device, all timed in one rotation.

    Attributes:
        latency_ms: of the winner's quick graph; None where nothing was measured.
        places: one for each place, and `everywhere` for all at once where there are several.
        missing: the reason why there are none; empty where there are.
    """

    latency_ms: float | None
    places: tuple[PlaceCost, ...]
    warnings: tuple[str, ...] = ()
    missing: str = ""


@dataclass(frozen=True)
class LearnedParameter:
    """A parameter of an activation before and after training: `count` values each.

    `start` and `learnt` are means over the values; `low` and `high` span the learnt ones.
    """

    name: str
    count: int
    start: float
    learnt: float
    low: float
    high: float


@dataclass(frozen=True)
class ActivationCurve:
    """The curve of a trained activation over the inputs seen at its site.

    Attributes:
        x: ascending, (n,).
        y: outputs, the mean over the channels, (n,).
        y_low: the smallest over the channels, (n,); `y_high` the largest.
        slope: the derivative, the mean over the channels, (n,).
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    y_low: tuple[float, ...]
    y_high: tuple[float, ...]
    slope: tuple[float, ...]


@dataclass(frozen=True)
class ActivationSite:
    """One activation module of the trained network on real images.

    Attributes:
        path: of the module.
        place: the decision of the architecture that it belongs to; empty for one that the space fixes.
        activation: its name in the table, else that of its type.
        kind: type and options; sites of one kind without parameters are the same function.
        units: number of channels, or of features after a linear layer.
        mean: of the inputs, as are `std` and the percentiles.
        saturated: share of the inputs where the derivative's magnitude is below 0.01; None with `missing`.
        dead: units that are saturated on all images at all positions.
        gradient: RMS of the loss's gradient at the output.
        gain: RMS of the gradient at the input over that at the output; None where no gradient reaches it.
        edges: of the inputs' histogram, (bins + 1,), without outliers (0.5 % at either end).
        shares: of the inputs in each bin, (bins,).
        learnt: the module's parameters.
        curve: None with `missing`.
        missing: the reason why there is no curve and no saturation; empty where there are.
    """

    path: str
    place: str
    activation: str
    kind: str
    units: int
    mean: float
    std: float
    percentile_1: float
    percentile_50: float
    percentile_99: float
    saturated: float | None
    dead: int | None
    gradient: float
    gain: float | None
    edges: tuple[float, ...]
    shares: tuple[float, ...]
    learnt: tuple[LearnedParameter, ...]
    curve: ActivationCurve | None
    missing: str = ""


@dataclass(frozen=True)
class Sites:
    """All activation sites in the order in which they run.

    Attributes:
        images: number of validation images that they saw.
        missing: the reason why there are none; empty where there are.
    """

    images: int
    sites: tuple[ActivationSite, ...]
    missing: str = ""


@dataclass(frozen=True)
class ActivationFacts:
    """The document `activations.json`.

    Attributes:
        format: of the document; readers refuse another.
        hwnas: the version that wrote it.
        architecture_id: the winner that costs and sites are of.
        config_sha256: of the run's config.
    """

    format: int
    hwnas: str
    architecture_id: str
    config_sha256: str
    effects: Effects
    costs: Costs
    sites: Sites


_ADAPTER: TypeAdapter[ActivationFacts] = TypeAdapter(ActivationFacts)


def write(run: Path, facts: ActivationFacts) -> None:
    """Write the run's `activations.json`, whole or not at all."""
    write_whole(run / FILE, _ADAPTER.dump_json(facts))


def read(run: Path, architecture_id: str, config_sha256: str) -> ActivationFacts:
    """Read the run's `activations.json` of this winner and config.

    Raises:
        ActivationFileError: there is none, it is damaged, of another format, or of another winner or config.
    """
    path = run / FILE
    try:
        facts = _ADAPTER.validate_json(read_file(path))
    except FileNotFoundError:
        raise ActivationFileError(f"there is no {FILE}; `hwnas export` makes it together with a bundle") from None
    except (OSError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise ActivationFileError(f"{FILE} is damaged ({first}); `hwnas export` makes it again") from error
    if facts.format != FORMAT:
        raise ActivationFileError(f"{FILE} has format {facts.format}; this hwnas reads format {FORMAT}")
    if fault := _contradiction(facts):
        raise ActivationFileError(f"{FILE} is damaged ({fault}); `hwnas export` makes it again")
    if (facts.architecture_id, facts.config_sha256) != (architecture_id, config_sha256):
        raise ActivationFileError(f"{FILE} is of {facts.architecture_id}, not of this winner")
    return facts


def _contradiction(facts: ActivationFacts) -> str:
    """A contradiction within the document, whose types are right; empty where there is none."""
    if any(not abs(number) < _LARGEST for number in _numbers(asdict(facts))):
        return "a number that is none, or far too large"
    for effect in (*facts.effects.accuracy, *facts.effects.latency):
        if not effect.low <= effect.value <= effect.high:
            return f"the effect of {effect.activation} lies outside its interval"
    for site in facts.sites.sites:
        if len(site.edges) != len(site.shares) + 1 or len(site.edges) < 2:
            return f"{site.path}: a histogram with {len(site.edges)} edges and {len(site.shares)} shares"
        if not all(low <= high for low, high in pairwise(site.edges)) or min(site.shares) < 0.0:
            return f"{site.path}: a histogram whose edges descend, or with a negative share"
        lengths = set(map(len, asdict(site.curve).values())) if site.curve else {1}
        if len(lengths) > 1 or 0 in lengths:
            return f"{site.path}: a curve whose lists are empty or of different lengths"
    return ""


def _numbers(value: Any) -> Iterator[float]:
    """Yield the numbers of a document, at any depth."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float):
        yield value
