"""The form of an INT8 file: chosen by time and accuracy, and never kept where fp32 may be as fast."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export.exporter.graph_builder import build_graph
from export.quantization import ranges
from export.quantization.quantize import Quantizer
from export.quantization.ranges import METHODS
from latency_models.timing.meter import Ratio
from pipeline.config.file import parse_config
from pipeline.costs.precision import calibration_images
from pipeline.data import load_data
from pipeline.winner import int8_search
from pipeline.winner.int8 import int8_for_device, search_int8, try_int8

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.data import DataSet

FASTER, SLOWER, UNCERTAIN = Ratio(0.5, 0.49, 0.51), Ratio(1.2, 1.18, 1.22), Ratio(0.99, 0.97, 1.01)


class Meter:
    """A stand-in: says of a file, by what it holds, how its time compares to fp32's."""

    def __init__(self, looks: Callable[[onnx.ModelProto], Ratio], afresh: Ratio | None = None) -> None:
        self.looks, self.afresh = looks, afresh
        self.timed: list[int] = []

    def measure_together(self, models: Sequence[bytes], *, budget_s: float) -> Any:
        self.timed.append(len(models))
        ratios = [Ratio(1.0, 1.0, 1.0), *(self.looks(onnx.load_model_from_string(each)) for each in models[1:])]
        return SimpleNamespace(latencies=[SimpleNamespace(latency_ms=0.1)], ratios=ratios)

    def compare(self, a: bytes, b: bytes, *, budget_s: float) -> Ratio:
        return self.afresh or self.looks(onnx.load_model_from_string(a))


def float_convolutions(model: onnx.ModelProto) -> list[int]:
    """Which of the convolutions, in order of execution, read their weights as stored floats."""
    stored = {tensor.name for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    return [at for at, node in enumerate(convolutions) if node.input[1] in stored]


def always(ratio: Ratio) -> Any:
    return lambda model: ratio


def network(convolutions: int = 3) -> onnx.ModelProto:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for at in range(convolutions):
        layers += [nn.Conv2d(8 if at else 1, 8, 3, padding=1), nn.ReLU()]
    return build_graph(nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10)).eval(), (1, 8, 8))


def scale_channel(graph: onnx.ModelProto, name: str, axis: int, factor: float) -> None:
    """Multiply the first channel of a stored tensor along an axis."""
    tensor = next(each for each in graph.graph.initializer if each.name == name)
    values = onnx.numpy_helper.to_array(tensor).copy()
    np.moveaxis(values, axis, 0)[0] *= factor
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))


@pytest.fixture(scope="module")
def data() -> DataSet:
    return load_data(parse_config({"data": {"name": "digits"}, "space": {"name": "convnet"}}, "a test").data)


def judge(monkeypatch: pytest.MonkeyPatch, of: Callable[[onnx.ModelProto], float]) -> None:
    """Accuracies by what a file holds, in place of its answers; fp32's is 0.9."""

    def accuracy(model: bytes, images: Any, labels: Any) -> float:
        found = onnx.load_model_from_string(model)
        plain = not any(node.op_type == "QuantizeLinear" for node in found.graph.node)
        return 0.9 if plain else of(found)

    monkeypatch.setattr(int8_search, "accuracy", accuracy)


class TestTheGuarantee:
    @pytest.mark.parametrize(
        "ratio", [SLOWER, UNCERTAIN, Ratio(0.9, 0.8, 1.0), Ratio(float("nan"), float("nan"), float("nan"))]
    )
    def test_what_isnt_faster_beyond_doubt_is_not_kept(self, ratio: Ratio, data: DataSet) -> None:
        int8 = try_int8(network(), data, Meter(always(ratio)), max_loss=1.0)  # type: ignore[arg-type]
        assert int8.model is None
        assert int8.facts["kept"] is False
        assert "attempts isn't faster (" in int8.facts["reason"]

    def test_something_stays_quantised_where_every_group_pays_in_float(self, data: DataSet) -> None:
        meter = Meter(lambda model: FASTER if float_convolutions(model) else UNCERTAIN)
        int8 = try_int8(network(), data, meter, max_loss=1.0)  # type: ignore[arg-type]
        assert int8.model is not None
        assert any(node.op_type == "QuantizeLinear" for node in onnx.load_model_from_string(int8.model).graph.node)

    def test_what_is_faster_is_kept(self, data: DataSet) -> None:
        int8 = try_int8(network(), data, Meter(always(FASTER)), max_loss=1.0)  # type: ignore[arg-type]
        assert int8.facts["kept"] is True
        assert int8.model is not None
        assert int8.facts["size_bytes"] == len(int8.model)
        after, before = (int8.facts[f"accuracy_validation{end}"] for end in ("", "_fp32"))
        assert int8.facts["reason"] == (
            f"0.50 times fp32's latency, 95 % interval {FASTER.low:.2f} to {FASTER.high:.2f}; validation accuracy"
            f" {after:.4f}, in fp32 {before:.4f}; it has everything quantised, ranges by {int8.facts['method']}"
        )

    @pytest.mark.parametrize("afresh", [SLOWER, UNCERTAIN])
    def test_the_time_that_decides_is_taken_after_the_choice(self, afresh: Ratio, data: DataSet) -> None:
        int8 = try_int8(network(), data, Meter(always(FASTER), afresh), max_loss=1.0)  # type: ignore[arg-type]
        assert int8.model is None
        told = f"{afresh.ratio:.2f} times fp32's latency, 95 % interval {afresh.low:.2f} to {afresh.high:.2f}"
        assert int8.facts["reason"] == (
            f"the best of {len(int8.facts['tried'])} attempts isn't faster ({told});"
            f" it had everything quantised, ranges by {int8.facts['method']}"
        )

    def test_an_int8_device_keeps_it_and_says_so(self, data: DataSet) -> None:
        graph, meter = network(), Meter(always(SLOWER))
        found = search_int8(graph, data, meter, 1.0)  # type: ignore[arg-type]
        int8 = int8_for_device(graph, found, meter)  # type: ignore[arg-type]
        assert int8.model == found.model
        assert "fp32 would not be slower" in int8.facts["reason"]


class TestWhatStaysFloat:
    def test_what_was_faster_for_it_in_both_looks(self, data: DataSet) -> None:
        meter = Meter(lambda m: Ratio(0.6, 0.59, 0.61) if float_convolutions(m) == [0] else Ratio(0.7, 0.69, 0.71))
        int8 = try_int8(network(), data, meter, max_loss=1.0)  # type: ignore[arg-type]
        assert int8.model is not None
        assert float_convolutions(onnx.load_model_from_string(int8.model)) == [0]
        assert int8.facts["plan"].startswith("float: ")
        floats = int8.facts["plan"].removeprefix("float: ")
        assert f"it has {floats} in float, all else quantised, ranges by" in int8.facts["reason"]
        assert meter.timed == [6, 3]  # fp32, all, three convolutions and the head; then fp32, all and the stem

    def test_what_pays_is_tried_together(self, data: DataSet) -> None:
        def looks(model: onnx.ModelProto) -> Ratio:
            ratio = 0.8 - 0.05 * len({0, 2} & set(float_convolutions(model)))
            return Ratio(ratio, ratio - 0.01, ratio + 0.01)

        found = search_int8(network(), data, Meter(looks), 1.0)  # type: ignore[arg-type]
        assert float_convolutions(onnx.load_model_from_string(found.model)) == [0, 2]

    def test_a_second_look_can_take_it_back(self, data: DataSet) -> None:
        meter = Meter(always(FASTER))

        def looks(model: onnx.ModelProto) -> Ratio:
            lucky = len(meter.timed) == 1 and float_convolutions(model) == [1]
            return Ratio(0.4, 0.39, 0.41) if lucky else FASTER

        meter.looks = looks
        found = search_int8(network(), data, meter, 1.0)  # type: ignore[arg-type]
        assert found.chosen.plan == "all of it quantised"
        assert float_convolutions(onnx.load_model_from_string(found.model)) == []

    def test_many_groups_are_joined(self, data: DataSet) -> None:
        meter = Meter(always(FASTER))
        search_int8(network(30), data, meter, 1.0)  # type: ignore[arg-type]
        assert meter.timed == [2 + 18]


class TestTheMethod:
    def test_the_most_accurate_is_taken(self, data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
        graph, best = network(), "percentile_99.9"
        quantizer = Quantizer(graph, calibration_images(data))
        wanted = quantizer.quantize(best).SerializeToString()
        judge(monkeypatch, lambda model: 0.9 if model.SerializeToString() == wanted else 0.85)
        found = search_int8(graph, data, Meter(always(FASTER)), 0.01)  # type: ignore[arg-type]
        assert found.chosen.method == best
        assert {each.method for each in found.tried} == {None, *METHODS}

    def test_of_equals_the_first(self, data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
        judge(monkeypatch, lambda model: 0.9)
        assert search_int8(network(), data, Meter(always(FASTER)), 0.0).chosen.method == "minmax"  # type: ignore[arg-type]

    def test_one_that_gives_no_number_is_told_of_and_left_out(
        self, data: DataSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = {**METHODS, "entropy": lambda _: (0.0, float("nan"))}
        monkeypatch.setattr(ranges, "METHODS", broken)
        found = search_int8(network(), data, Meter(always(FASTER)), 1.0)  # type: ignore[arg-type]
        (told,) = [each for each in found.tried if each.method == "entropy"]
        assert "nan by the method entropy" in told.outcome
        assert told.accuracy is None
        assert found.chosen.method != "entropy"


class TestTheAccuracy:
    def test_sensitive_nodes_go_float_until_it_is_kept(self, data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
        judge(monkeypatch, lambda model: 0.7 + 0.1 * len(float_convolutions(model)))
        int8 = try_int8(network(6), data, Meter(always(FASTER)), max_loss=0.01)  # type: ignore[arg-type]
        assert int8.model is not None
        assert len(float_convolutions(onnx.load_model_from_string(int8.model))) >= 2
        assert "most sensitive" in int8.facts["plan"]
        assert [each["outcome"] for each in int8.facts["tried"]][-1] == "keeps the accuracy"

    def test_the_value_that_is_hard_to_quantise_is_found(self, data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
        """One channel between the second and the third convolution a thousand times as large: the same function."""
        judge(monkeypatch, lambda model: 0.9 if {1, 2} <= set(float_convolutions(model)) else 0.5)
        graph = network(5)
        convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
        scale_channel(graph, convolutions[1].input[1], 0, 1000.0)
        scale_channel(graph, convolutions[1].input[2], 0, 1000.0)
        scale_channel(graph, convolutions[2].input[1], 1, 0.001)
        found = search_int8(graph, data, Meter(always(FASTER)), 0.0)  # type: ignore[arg-type]
        assert float_convolutions(onnx.load_model_from_string(found.model)) == [1, 2]

    def test_what_loses_too_much_is_not_kept(self, data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
        judge(monkeypatch, lambda model: 0.7)
        int8 = try_int8(network(), data, Meter(always(FASTER)), max_loss=0.01)  # type: ignore[arg-type]
        assert int8.model is None
        assert "attempts loses 0.2000 of validation accuracy (0.01 may be lost); it had" in int8.facts["reason"]
        assert "isn't faster" not in int8.facts["reason"]

    def test_nothing_more_goes_float_where_it_is_slower_already(
        self, data: DataSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge(monkeypatch, lambda model: 0.7)
        int8 = try_int8(network(), data, Meter(always(SLOWER)), max_loss=0.01)  # type: ignore[arg-type]
        assert not [each for each in int8.facts["tried"] if "most sensitive" in each["plan"]]
        assert "isn't faster (" in int8.facts["reason"]
        assert ") and loses 0.2000 of" in int8.facts["reason"]

    def test_a_loss_that_is_no_number_is_no_reason_to_keep(
        self, data: DataSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge(monkeypatch, lambda model: float("nan"))
        assert try_int8(network(), data, Meter(always(FASTER)), max_loss=1.0).model is None  # type: ignore[arg-type]

    def test_the_verdict_is_on_all_validation_images(self, data: DataSet) -> None:
        found = search_int8(network(), data, Meter(always(FASTER)), 1.0)  # type: ignore[arg-type]
        assert found.chosen.images == len(data.validation.labels)


class TestFailures:
    def test_what_cant_be_quantised_is_told(self, data: DataSet) -> None:
        graph = build_graph(nn.Sequential(nn.ReLU(), nn.Flatten()).eval(), (1, 8, 8))
        int8 = try_int8(graph, data, Meter(always(FASTER)), max_loss=1.0)  # type: ignore[arg-type]
        assert int8.model is None
        assert "no matrix product" in int8.facts["reason"]

    def test_weights_that_are_no_numbers(self, data: DataSet) -> None:
        graph = network()
        tensor = next(each for each in graph.graph.initializer if len(each.dims) == 4)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(tensor.dims, np.nan, np.float32), tensor.name))
        int8 = try_int8(graph, data, Meter(always(FASTER)), max_loss=1.0)  # type: ignore[arg-type]
        assert int8.facts["kept"] is False
        assert "nan" in int8.facts["reason"]


class TestTheFacts:
    def test_they_tell_every_attempt_as_json(self, data: DataSet) -> None:
        said: list[tuple[str, float]] = []

        def say(text: str, share: float) -> None:
            said.append((text, share))

        int8 = try_int8(network(), data, Meter(always(FASTER)), 1.0, say)  # type: ignore[arg-type]
        facts = json.loads(json.dumps(int8.facts))
        assert len(facts["tried"]) == 5 + len(METHODS)
        assert {"plan", "method", "latency_ratio", "accuracy_validation", "outcome"} <= set(facts["tried"][0])
        assert facts["method"] in METHODS
        assert len(said) == 1 + len(METHODS)
        assert [share for _, share in said] == sorted(share for _, share in said)
