"""Which INT8 form of a network to ship: calibration method and what stays float, chosen by time and accuracy.

Time decides first: a group of nodes stays float where the file was measured faster for it. Of the calibration methods
the one with the best validation accuracy is taken. Where that still loses too much, the groups whose quantisation adds
the most noise to the outputs are left in float, more and more of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from export import onnx_file
from export.checks import accuracy
from export.quantization.mixed_precision import FloatGroup
from export.quantization.quantize import QuantizationError, Quantizer
from export.quantization.ranges import METHODS, MIN_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    import onnx

    from latency_models.timing.meter import LatencyMeter, Ratio
    from pipeline.data import DataSet

    Say = Callable[[str, float], None]

FLOAT = "float: "
"""What begins a plan's words where something stays float."""

_GROUPS_AT_MOST = 18
_LOOK_S = 0.15  # for each plan
_LOOK_AT_MOST_S = 8.0
_SECOND_LOOK_S = 1.5
_JUDGING_S = 3.0  # for each file's accuracy; what a larger set would take is left out
_IMAGES_AT_LEAST = 500
_NOISE_IMAGES = 64
_SEARCH_AT_MOST_S = 50.0  # no new attempt begins later


@dataclass(frozen=True)
class Int8Attempt:
    """One attempt.

    Attributes:
        plan: what stays float, in words.
        method: how ranges were found; None where only the time was looked at, which doesn't depend on it.
        float_nodes: the values whose nodes stay float.
        ratio: its latency over fp32's, with the interval; None where another method's attempt tells it.
        accuracy: on `images` validation images, 0 to 1; None where it wasn't judged.
        accuracy_fp32: on the same images.
        outcome: why it was taken or not.
    """

    plan: str
    method: str | None = None
    float_nodes: frozenset[str] = frozenset()
    ratio: Ratio | None = None
    accuracy: float | None = None
    accuracy_fp32: float | None = None
    images: int = 0
    outcome: str = ""

    @property
    def loss(self) -> float:
        """Validation accuracy that is lost against fp32; infinite where it isn't known."""
        if self.accuracy is None or self.accuracy_fp32 is None:
            return float("inf")
        return self.accuracy_fp32 - self.accuracy

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        ratio = self.ratio
        return {
            "plan": self.plan,
            "method": self.method,
            "latency_ratio": ratio and ratio.ratio,
            "latency_ratio_low": ratio and ratio.low,
            "latency_ratio_high": ratio and ratio.high,
            "accuracy_validation": self.accuracy,
            "accuracy_validation_fp32": self.accuracy_fp32,
            "images": self.images,
            "outcome": self.outcome,
        }


@dataclass(frozen=True)
class Int8Outcome:
    """What a search came to.

    Attributes:
        model: the chosen file.
        chosen: its attempt, judged on all validation images.
        tried: all attempts, in order.
        seconds: that it took.
    """

    model: bytes
    chosen: Int8Attempt
    tried: tuple[Int8Attempt, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For the manifest's `int8`."""
        return {
            "plan": self.chosen.plan,
            "method": self.chosen.method,
            "float_values": sorted(self.chosen.float_nodes),
            "tried": [each.as_dict() for each in self.tried],
            "search_seconds": round(self.seconds, 1),
        }


class Int8Search:
    """Searches the form of one network.

    Args:
        graph: the exported fp32 model.
        calibration: training images as the network's inputs, (N, C, H, W).
        data: judged on its validation images.
        meter: of the run's device.
        max_loss: validation accuracy that may be lost, 0 to 1.
        say: hears what is being tried, and which share of the work is done.

    Raises:
        QuantizationError: it can't be quantised at all.
    """

    def __init__(
        self,
        graph: onnx.ModelProto,
        calibration: npt.NDArray[np.float32],
        data: DataSet,
        meter: LatencyMeter,
        max_loss: float,
        say: Say,
    ) -> None:
        self._quantizer = Quantizer(graph, calibration)
        self._plain = graph.SerializeToString()
        self._calibration, self._data, self._meter, self._max_loss, self._say = calibration, data, meter, max_loss, say
        self._tried: list[Int8Attempt] = []
        self._plain_accuracies: dict[int, float] = {}
        self._plain_ms = 1.0

    def run(self) -> Int8Outcome:
        """Time, then methods, then sensitive nodes.

        Raises:
            QuantizationError: no method gives a file.
        """
        began = time.monotonic()
        fastest = self._fastest()
        best = self._best_method(fastest)
        if best.loss <= self._max_loss:
            best = self._on_all_images(best)
        if best.loss > self._max_loss and not _hopeless(fastest):
            best = self._with_sensitive_float(best, began + _SEARCH_AT_MOST_S)
        best = self._on_all_images(best)
        return Int8Outcome(self._file(best), best, tuple(self._tried), time.monotonic() - began)

    def _file(self, attempt: Int8Attempt) -> bytes:
        method = attempt.method or MIN_MAX
        return bytes(self._quantizer.quantize(method, attempt.float_nodes).SerializeToString())

    def _fastest(self) -> Int8Attempt:
        """The plan that was measured fastest; only what is faster beyond doubt alters the whole one."""
        whole = Int8Attempt("all of it quantised")
        others = [Int8Attempt(f"{FLOAT}{group.name}", float_nodes=frozenset(group.nodes)) for group in self._joined]
        if self._quantizer.activations:
            others.append(Int8Attempt(f"{FLOAT}activations", float_nodes=self._quantizer.activations))
        self._say(f"timing {len(others) + 1} plans of what stays float", 0.1)
        whole, *others = self._timed([whole, *others], min(_LOOK_AT_MOST_S, _LOOK_S * (len(others) + 2)))
        paying = [each for each in others if each.ratio and whole.ratio and each.ratio.high < whole.ratio.low]
        if not paying:
            self._note(whole, *others, outcome="not faster than with all of it quantised")
            return whole
        self._note(whole, *others, outcome="")
        paying.sort(key=lambda each: each.ratio.ratio if each.ratio else np.inf)
        plans = [replace(paying[0], ratio=None)]
        together = frozenset().union(*(plan.float_nodes for plan in paying))
        if paying[1:] and not together >= self._everything:
            names = ", ".join(each.plan.removeprefix(FLOAT) for each in paying)
            plans.append(Int8Attempt(f"{FLOAT}{names}", float_nodes=together))
        self._say("timing what pays once more", 0.4)
        whole, *again = self._timed([whole, *plans], _SECOND_LOOK_S)
        sure = [each for each in again if each.ratio and whole.ratio and each.ratio.high < whole.ratio.low]
        best = min(sure, key=lambda each: each.ratio.ratio if each.ratio else np.inf, default=whole)
        self._note(whole, *again, outcome="measured again, with those that pay together")
        return best

    @cached_property
    def _everything(self) -> frozenset[str]:
        return frozenset(node for group in self._quantizer.groups for node in group.nodes)

    @cached_property
    def _joined(self) -> list[FloatGroup]:
        """The groups, neighbours joined where they are too many to be timed one by one; stem and head alone."""
        groups = self._quantizer.groups
        if len(groups) <= _GROUPS_AT_MOST:
            return list(groups) if len(groups) > 1 else []
        parts = np.array_split(np.arange(1, len(groups) - 1), _GROUPS_AT_MOST - 2)
        return [groups[0], *(_join([groups[at] for at in part]) for part in parts), groups[-1]]

    def _timed(self, plans: Sequence[Int8Attempt], budget_s: float) -> list[Int8Attempt]:
        files = [self._file(plan) for plan in plans]
        together = self._meter.measure_together([self._plain, *files], budget_s=budget_s)
        self._plain_ms = together.latencies[0].latency_ms
        return [replace(plan, ratio=ratio) for plan, ratio in zip(plans, together.ratios[1:], strict=True)]

    def _note(self, *attempts: Int8Attempt, outcome: str) -> None:
        self._tried += [replace(each, outcome=outcome) for each in attempts]

    def _best_method(self, plan: Int8Attempt) -> Int8Attempt:
        """By validation accuracy; of equals the first of the table, since it clips the least."""
        images, found = self._images_to_judge_on(), []
        for at, method in enumerate(METHODS):
            self._say(f"calibrating by {method}", 0.5 + 0.3 * at / len(METHODS))
            attempt = replace(plan, method=method)
            try:
                attempt = self._judged(attempt, self._file(attempt), images)
            except QuantizationError as error:
                self._note(replace(attempt, ratio=None), outcome=error.reason)
                reason = error
                continue
            found.append(attempt)
        if not found:
            raise reason
        best = min(found, key=lambda each: each.loss)
        for each in found:
            self._note(each, outcome="the most accurate method" if each is best else "")
        return best

    def _on_all_images(self, attempt: Int8Attempt) -> Int8Attempt:
        images = len(self._data.validation.labels)
        return attempt if attempt.images == images else self._judged(attempt, self._file(attempt), images)

    def _images_to_judge_on(self) -> int:
        wanted = max(_IMAGES_AT_LEAST, int(_JUDGING_S / (self._plain_ms / 1e3)))
        return min(wanted, len(self._data.validation.labels))

    def _judged(self, attempt: Int8Attempt, model: bytes, images: int) -> Int8Attempt:
        if images not in self._plain_accuracies:
            self._plain_accuracies[images] = self._accuracy(self._plain, images)
        found = self._accuracy(model, images)
        return replace(attempt, accuracy=found, accuracy_fp32=self._plain_accuracies[images], images=images)

    def _accuracy(self, model: bytes, images: int) -> float:
        split = self._data.validation
        chosen = np.unique(np.linspace(0, len(split.labels) - 1, images).astype(np.int64))
        return accuracy(model, self._data.preprocessing.apply(split.images[chosen]), split.labels[chosen])

    def _with_sensitive_float(self, attempt: Int8Attempt, deadline: float) -> Int8Attempt:
        """Doubling the number of pairs in float until the accuracy is kept; the most accurate where it never is."""
        self._say("looking for the nodes that lose the accuracy", 0.8)
        order = self._sensitive(attempt, deadline)
        found, count = [attempt], 1
        while count <= len(order) and time.monotonic() < deadline:
            nodes = attempt.float_nodes.union(*(pair.nodes for pair in order[:count]))
            if nodes >= self._everything:
                break
            names = [attempt.plan.removeprefix(FLOAT)] if attempt.float_nodes else []
            names.append(f"the most sensitive {_listed([pair.name for pair in order[:count]])}")
            plan = f"{FLOAT}{'; '.join(names)}"
            trial = replace(attempt, plan=plan, float_nodes=nodes, ratio=None)
            self._say(plan, 0.9)
            trial = self._judged(trial, self._file(trial), self._images_to_judge_on())
            if trial.loss <= self._max_loss:
                trial = self._on_all_images(trial)
            self._note(trial, outcome="keeps the accuracy" if trial.loss <= self._max_loss else "loses too much still")
            found.append(trial)
            if trial.loss <= self._max_loss:
                return trial
            count *= 2
        return min(found, key=lambda each: each.loss)

    def _sensitive(self, attempt: Int8Attempt, deadline: float) -> list[FloatGroup]:
        """Pairs of neighbours by the noise that the outputs are left with when both are float, the least first.

        Pairs, because a value stays float only where what makes it and what reads it are.
        """
        images = self._calibration[:_NOISE_IMAGES]
        expected = _outputs(self._plain, images)
        groups = self._quantizer.groups
        noise: dict[FloatGroup, float] = {}
        for pair in [_join(groups[at : at + 2]) for at in range(len(groups) - 1)] if len(groups) > 2 else []:
            if time.monotonic() > deadline:
                break
            nodes = attempt.float_nodes.union(pair.nodes)
            if nodes > attempt.float_nodes:
                difference = _outputs(self._file(replace(attempt, float_nodes=nodes)), images) - expected
                noise[pair] = float(np.mean(np.square(difference)))
        return sorted(noise, key=lambda pair: noise[pair])


def _join(groups: Sequence[FloatGroup]) -> FloatGroup:
    if len(groups) == 1:
        return groups[0]
    return FloatGroup(f"{groups[0].name} to {groups[-1].name}", tuple(node for each in groups for node in each.nodes))


def _hopeless(plan: Int8Attempt) -> bool:
    """No plan is faster than fp32, and more in float wouldn't be either."""
    return plan.ratio is not None and plan.ratio.low >= 1.0


def _outputs(model: bytes, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return onnx_file.run(onnx_file.open_session(model), images)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
