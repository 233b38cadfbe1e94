"""Ranges for quantising activations, by several methods, from statistics over calibration images; no torch.

A first pass over the images finds minimum and maximum, a second one counts histograms; activations are never kept.
The methods read nothing but these, so that all of them cost little more than one.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import onnx

from export import onnx_file
from export.errors import InvalidFileError, QuantizationError, UnknownMethodError
from export.quantization.qdq import unsigned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from export.quantization.qdq_plan import Plan, Range

    Method = Callable[["Histogram"], Range]

MIN_MAX = "minmax"
_BINS = 4096
_LEVELS = 256
_BATCH = 8  # more at a time leave the processor's caches
# Of one tensor of one batch, evenly taken: more change the histogram of 256 images by nothing that matters.
_COUNTED_AT_MOST = 1 << 18
_SHRUNK_TO = _LEVELS / _BINS  # of the full range, by no search further: a level holds a bin at least
_STEPS = 40
_ERRORS: tuple[type[Exception], ...] = (InvalidFileError, *onnx_file.RUN_ERRORS)


@dataclass(frozen=True)
class Histogram:
    """Distribution of a tensor's values over the calibration images.

    Attributes:
        low: the minimum, at most 0.
        high: the maximum, at least 0.
        counts: (bins,) of equal width from `low` to `high`; exact zeros are not among them, since 0 is exact at any
            scale and many an activation is mostly 0.
        zeros: how many values are exactly 0.
    """

    low: float
    high: float
    counts: npt.NDArray[np.int64]
    zeros: int = 0

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Edges of the bins, shape (bins + 1,)."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """Centres of the bins, shape (bins,)."""
        edges = self.edges
        centres: npt.NDArray[np.float64] = (edges[1:] + edges[:-1]) / 2
        return centres


def min_max(histogram: Histogram) -> Range:
    """The full range, in which nothing is clipped."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram, share: float) -> Range:
    """The range that holds `share` (0 to 1) of all values; half of the others is clipped at each end."""
    counts = np.append(histogram.counts, 0)
    at_zero = int(np.clip(np.searchsorted(histogram.edges, 0.0, side="right") - 1, 0, len(histogram.counts) - 1))
    counts[at_zero] += histogram.zeros
    below = np.cumsum(counts)[:-1]
    cut = (1.0 - share) / 2.0 * below[-1]
    edges = histogram.edges
    low = edges[np.searchsorted(below, cut, side="right")]
    high = edges[np.searchsorted(below, below[-1] - cut, side="left") + 1]
    return min(float(low), 0.0), max(float(high), 0.0)


def least_squares(histogram: Histogram) -> Range:
    """The range with the least mean squared error: rounding inside, clipping outside.

    Both ends are moved in turn until neither gains (the criterion of Banner et al., "Post training 4-bit quantization
    of convolutional networks for rapid-deployment", 2019, without their assumption of a distribution).
    """
    low, high = histogram.low, histogram.high
    shares = np.geomspace(1.0, _SHRUNK_TO, _STEPS)
    for _ in range(3):
        before = low, high
        high = min((histogram.high * share for share in shares), key=lambda end: _squared_error(histogram, (low, end)))
        low = min((histogram.low * share for share in shares), key=lambda end: _squared_error(histogram, (end, high)))
        if (low, high) == before:
            break
    return low, high


def _squared_error(histogram: Histogram, bounds: Range) -> float:
    scale, zero_point = unsigned(bounds)
    centres = histogram.centres
    levels = np.clip(np.rint(centres / scale) + zero_point, 0, _LEVELS - 1)
    return float(histogram.counts @ (centres - (levels - zero_point) * scale) ** 2)


def entropy(histogram: Histogram) -> Range:
    """The range whose 256 levels have the least Kullback-Leibler divergence from the values.

    Both ends are drawn in by the same share (Migacz, "8-bit inference with TensorRT", 2017, for ranges that needn't be
    symmetric).
    """
    bins = len(histogram.counts)
    origin = bins * -histogram.low / (histogram.high - histogram.low)
    shares = np.geomspace(1.0, _SHRUNK_TO, _STEPS)
    found = []
    for share in shares:
        first = round(origin * (1 - share))
        first = min(first, bins - _LEVELS)
        last = max(first + _LEVELS, round(origin + (bins - origin) * share))
        found.append(_divergence(histogram.counts, first, last))
    share = float(shares[int(np.argmin(found))])
    return histogram.low * share, histogram.high * share


def _divergence(counts: npt.NDArray[np.int64], first: int, last: int) -> float:
    """Kullback-Leibler divergence of bins `first` to `last`, clipped at both ends, from the same in 256 levels."""
    within = counts[first:last].astype(np.float64)
    clipped = within.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    starts = np.arange(_LEVELS) * len(within) // _LEVELS
    filled = clipped > 0
    widths = np.maximum(np.add.reduceat(filled.astype(np.float64), starts), 1.0)
    means = np.add.reduceat(within, starts) / widths
    levels = np.repeat(means, np.diff(np.append(starts, len(within)))) * filled
    if not levels.any():
        return np.inf
    p, q = clipped[filled] / clipped.sum(), levels[filled] / levels.sum()
    return float(np.sum(p * np.log(p / np.maximum(q, 1.0 / clipped.sum()))))  # an empty level counts as one value


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        MIN_MAX: min_max,
        "percentile_99.99": lambda histogram: percentile(histogram, 0.9999),
        "percentile_99.9": lambda histogram: percentile(histogram, 0.999),
        "entropy": entropy,
        "mse": least_squares,
    }
)


class Statistics:
    """Statistics of a model's values over the calibration images, gathered for each value when first needed.

    Args:
        model: one input, float.
        images: real inputs, (N, C, H, W).
        threads: to run the model with.
    """

    def __init__(self, model: onnx.ModelProto, images: npt.NDArray[np.float32], *, threads: int = 1) -> None:
        self._model, self._images, self._threads = model, images, threads
        self._extremes: dict[str, Range] = {}
        self._histograms: dict[str, Histogram] = {}

    def ranges(self, names: Sequence[str], method: str = MIN_MAX) -> dict[str, Range]:
        """Compute the values' ranges by a method.

        Raises:
            QuantizationError: no images, more than one input, the model can't be run on them, or no finite range.
            UnknownMethodError: no such method.
        """
        self.require_method(method)
        self._find_extremes(names)
        if method == MIN_MAX:
            return {name: self._extremes[name] for name in names}
        self._count(names)
        found = {name: METHODS[method](self._histograms[name]) for name in names if name in self._histograms}
        _require_finite(found, f"by the method {method}")
        return {name: found.get(name, self._extremes[name]) for name in names}

    @staticmethod
    def require_method(method: str) -> None:
        """Check a method's name.

        Raises:
            UnknownMethodError: no such method.
        """
        if method not in METHODS:
            raise UnknownMethodError(method, METHODS)

    def _find_extremes(self, names: Iterable[str]) -> None:
        missing = [name for name in names if name not in self._extremes]
        found: dict[str, Range] = {}
        for name, values in self._values(missing):
            low, high = found.get(name, (np.inf, -np.inf))
            found[name] = (float(np.minimum(low, values.min())), float(np.maximum(high, values.max())))  # keeps NaN
        _require_finite(found, "on the calibration images")
        self._extremes.update(found)

    def _count(self, names: Iterable[str]) -> None:
        """Count histograms of the values that aren't 0 throughout."""
        ends = {name: (min(self._extremes[name][0], 0.0), max(self._extremes[name][1], 0.0)) for name in names}
        missing = [name for name, (low, high) in ends.items() if low < high and name not in self._histograms]
        counts = {name: np.zeros(_BINS, np.int64) for name in missing}
        zeros = dict.fromkeys(missing, 0)
        for name, values in self._values(missing):
            taken = values.ravel()[:: -(-values.size // _COUNTED_AT_MOST)]
            other = taken[taken != 0]
            counts[name] += np.histogram(other, _BINS, ends[name])[0]
            zeros[name] += taken.size - other.size
        self._histograms.update((name, Histogram(*ends[name], counts[name], zeros[name])) for name in missing)

    def _values(self, names: Sequence[str]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        """Yield name and array of each value, for one batch of images after the other."""
        if not len(self._images):
            raise QuantizationError("there are no images to calibrate it on")
        inputs = [value.name for value in self._model.graph.input]
        if len(inputs) != 1:
            raise QuantizationError(f"it takes {len(inputs)} inputs, not one")
        if not names:
            return
        made = [name for name in names if name != inputs[0]]
        try:
            session = onnx_file.open_session(_watched(self._model, made), threads=self._threads) if made else None
            fixed = batch_of(self._model)
            size = fixed or _BATCH
            for start in range(0, len(self._images), size):
                batch = self._images[start : start + size]
                if start and fixed and len(batch) < fixed:
                    break  # a file of fixed batch takes no fewer
                if len(made) < len(names):
                    yield inputs[0], batch
                if session is not None:
                    yield from zip(made, session.run(made, {inputs[0]: batch}), strict=True)
        except _ERRORS as error:
            raise QuantizationError(f"it can't be run on the calibration images: {error}") from error


def made_up(plan: Plan) -> dict[str, Range]:
    """Ranges of about the usual size, each a different one because a runtime may join equal scales."""
    unknown = plan.unknown()
    return {
        name: (0.0 if plan.activations[name] else -3.0 - place / len(unknown), 3.0 + place / len(unknown))
        for place, name in enumerate(unknown)
    }


def batch_of(model: onnx.ModelProto) -> int | None:
    """The number of inputs that the model takes at a time; None where it takes any."""
    shape = model.graph.input[0].type.tensor_type.shape.dim if model.graph.input else ()
    return int(shape[0].dim_value) or None if shape else None


def _watched(model: onnx.ModelProto, names: Sequence[str]) -> bytes:
    """The serialised model with these values as its outputs."""
    watched = onnx_file.copied(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return bytes(watched.SerializeToString())


def _require_finite(ranges: Mapping[str, Range], where: str) -> None:
    for name, bounds in ranges.items():
        if not np.isfinite(bounds).all():
            raise QuantizationError(f"{name} reaches {bounds[0]:g} to {bounds[1]:g} {where}")
