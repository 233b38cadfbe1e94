"""Search for the INT8 form of a network: the calibration method, and the nodes that stay float.

Time decides first: a group of nodes stays float where the file was measured faster for it. Of the calibration methods
the one with the best validation accuracy is taken. Where that still loses too much, the groups whose quantisation adds
the most noise to the outputs are left in float, more and more of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from export import onnx_file
from export.checks import accuracy
from export.quantization.mixed_precision import FloatGroup
from export.quantization.quantize import QuantizationError, Quantizer, float_reasons
from export.quantization.ranges import METHODS, MIN_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt
    import onnx

    from latency_models.timing.meter import LatencyMeter, Ratio
    from pipeline.data import DataSet

    OnProgress = Callable[[str, float], None]

FLOAT = "float: "
"""Begins the description of a plan in which something stays float."""

_GROUPS_AT_MOST = 18
_FIRST_S = 0.15  # for the first timing of each plan
_FIRST_AT_MOST_S = 8.0
_SECOND_S = 1.5
_JUDGING_S = 3.0  # for each file's accuracy; of a larger set a part is used
_IMAGES_AT_LEAST = 500
_NOISE_IMAGES = 64
_SEARCH_AT_MOST_S = 50.0  # no new attempt begins later


@dataclass(frozen=True)
class Int8Attempt:
    """One form that was timed or judged.

    Attributes:
        plan: the nodes that stay float, in words.
        method: of calibration; None where only the time was measured, which doesn't depend on it.
        float_nodes: names of the nodes' outputs that stay float.
        ratio: its latency over fp32's, with the interval; None where the attempt of another method has it.
        accuracy: on `images` validation images, 0 to 1; None where it wasn't judged.
        accuracy_fp32: on the same images.
        outcome: the reason why it was taken or not.
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
        """Validation accuracy lost against fp32; infinite where it isn't known."""
        if self.accuracy is None or self.accuracy_fp32 is None:
            return float("inf")
        return self.accuracy_fp32 - self.accuracy

    def as_dict(self) -> dict[str, Any]:
        """The attempt as the manifest has it."""
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
    """Outcome of an INT8 search.

    Attributes:
        model: the chosen file.
        chosen: its attempt, judged on all validation images.
        tried: all attempts, in order.
        seconds: duration of the search.
        float_reasons: value → the reason why its node stays float, where its integer kernel is wrong or slow.
    """

    model: bytes
    chosen: Int8Attempt
    tried: tuple[Int8Attempt, ...]
    seconds: float
    float_reasons: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The part of the manifest's section `int8` that the search knows."""
        return {
            "plan": self.chosen.plan,
            "method": self.chosen.method,
            "float_values": sorted(self.chosen.float_nodes),
            "float_reasons": dict(self.float_reasons),
            "tried": [each.as_dict() for each in self.tried],
            "search_seconds": round(self.seconds, 1),
        }


class Int8Search:
    """Searches the best INT8 form of one network.

    Args:
        graph: the exported fp32 model.
        calibration: training images as the network's inputs, (N, C, H, W).
        data: with the validation images that accuracies are of.
        meter: of the run's device.
        max_loss: validation accuracy that may be lost, 0 to 1.
        on_progress: called with what is being tried and the share of the work, 0 to 1, that is done.

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
        on_progress: OnProgress,
    ) -> None:
        self._quantizer = Quantizer(graph, calibration)
        self._plain = graph.SerializeToString()
        self._calibration, self._data, self._meter, self._max_loss = calibration, data, meter, max_loss
        self._on_progress = on_progress
        self._tried: list[Int8Attempt] = []
        self._plain_accuracies: dict[int, float] = {}
        self._plain_ms = 1.0

    def run(self) -> Int8Outcome:
        """Choose by time, then by calibration method, then leave sensitive nodes in float.

        Raises:
            QuantizationError: no method gives a file.
        """
        began = time.monotonic()
        self._quantizer.check_kernels()
        fastest = self._fastest()
        best = self._best_method(fastest)
        if best.loss <= self._max_loss:
            best = self._on_all_images(best)
        if best.loss > self._max_loss and not _hopeless(fastest):
            best = self._with_sensitive_float(best, began + _SEARCH_AT_MOST_S)
        best = self._on_all_images(best)
        model = self._quantizer.quantize(best.method or MIN_MAX, best.float_nodes)
        content, reasons = bytes(model.SerializeToString()), float_reasons(model)
        if content != self._file(best):  # the last check left more in float
            best = self._judged(best, content, best.images)
        return Int8Outcome(content, best, tuple(self._tried), time.monotonic() - began, reasons)

    def _file(self, attempt: Int8Attempt) -> bytes:
        """An attempt's file, with what the checks have left in float so far."""
        method = attempt.method or MIN_MAX
        return bytes(self._quantizer.quantize(method, attempt.float_nodes, checked=False).SerializeToString())

    def _fastest(self) -> Int8Attempt:
        """The fastest plan; nodes stay float only where that is faster beyond doubt."""
        whole = Int8Attempt("all of it quantised")
        others = [Int8Attempt(f"{FLOAT}{group.name}", float_nodes=frozenset(group.nodes)) for group in self._joined]
        if self._quantizer.activations:
            others.append(Int8Attempt(f"{FLOAT}activations", float_nodes=self._quantizer.activations))
        self._on_progress(f"timing {len(others) + 1} plans of what stays float", 0.1)
        whole, *others = self._timed([whole, *others], min(_FIRST_AT_MOST_S, _FIRST_S * (len(others) + 2)))
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
        self._on_progress("timing what pays once more", 0.4)
        whole, *again = self._timed([whole, *plans], _SECOND_S)
        sure = [each for each in again if each.ratio and whole.ratio and each.ratio.high < whole.ratio.low]
        best = min(sure, key=lambda each: each.ratio.ratio if each.ratio else np.inf, default=whole)
        self._note(whole, *again, outcome="measured again, with those that pay together")
        return best

    @cached_property
    def _everything(self) -> frozenset[str]:
        return frozenset(node for group in self._quantizer.groups for node in group.nodes)

    @cached_property
    def _joined(self) -> list[FloatGroup]:
        """The groups to time; if they are too many, neighbours between stem and head are joined."""
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
        """The calibration method with the best validation accuracy; of equals the table's first, which clips least."""
        images, judged = self._images_to_judge_on(), []
        for at, method in enumerate(METHODS):
            self._on_progress(f"calibrating by {method}", 0.5 + 0.3 * at / len(METHODS))
            attempt = replace(plan, method=method)
            try:
                attempt = self._judged(attempt, self._file(attempt), images)
            except QuantizationError as error:
                self._note(replace(attempt, ratio=None), outcome=error.reason)
                reason = error
                continue
            judged.append(attempt)
        if not judged:
            raise reason
        best = min(judged, key=lambda each: each.loss)
        for each in judged:
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
        plain = self._plain_accuracies[images]
        return replace(attempt, accuracy=self._accuracy(model, images), accuracy_fp32=plain, images=images)

    def _accuracy(self, model: bytes, images: int) -> float:
        split = self._data.validation
        chosen = np.unique(np.linspace(0, len(split.labels) - 1, images).astype(np.int64))
        return accuracy(model, self._data.preprocessing.apply(split.images[chosen]), split.labels[chosen])

    def _with_sensitive_float(self, attempt: Int8Attempt, deadline: float) -> Int8Attempt:
        """Leave 1, 2, 4, … sensitive pairs in float until the accuracy is kept; the most accurate where it never is."""
        self._on_progress("looking for the nodes that lose the accuracy", 0.8)
        order = self._sensitive(attempt, deadline)
        attempts, count = [attempt], 1
        while count <= len(order) and time.monotonic() < deadline:
            nodes = attempt.float_nodes.union(*(pair.nodes for pair in order[:count]))
            if nodes >= self._everything:
                break
            names = [attempt.plan.removeprefix(FLOAT)] if attempt.float_nodes else []
            names.append(f"the most sensitive {_listed([pair.name for pair in order[:count]])}")
            plan = f"{FLOAT}{'; '.join(names)}"
            trial = replace(attempt, plan=plan, float_nodes=nodes, ratio=None)
            self._on_progress(plan, 0.9)
            trial = self._judged(trial, self._file(trial), self._images_to_judge_on())
            if trial.loss <= self._max_loss:
                trial = self._on_all_images(trial)
            self._note(trial, outcome="keeps the accuracy" if trial.loss <= self._max_loss else "loses too much still")
            attempts.append(trial)
            if trial.loss <= self._max_loss:
                return trial
            count *= 2
        return min(attempts, key=lambda each: each.loss)

    def _sensitive(self, attempt: Int8Attempt, deadline: float) -> list[FloatGroup]:
        """Pairs of neighbouring groups, sorted by the noise left in the outputs when both are float, the least first.

        Pairs, because a value stays float only where both its writer and its reader are float.
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
    """Whether the fastest plan is no faster than fp32: with more in float none would be."""
    return plan.ratio is not None and plan.ratio.low >= 1.0


def _outputs(model: bytes, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return onnx_file.run(onnx_file.open_session(model), images)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
