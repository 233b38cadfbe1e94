"""Ranges by each calibration method: on distributions whose right answer is known, and through a network."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from export import onnx_file
from export.errors import QuantizationError, UnknownMethodError
from export.exporter.graph_builder import build_graph
from export.quantization import ranges
from export.quantization.qdq import unsigned
from export.quantization.quantize import quantize_int8
from export.quantization.ranges import METHODS, Histogram, Statistics
from helpers.nets import onnx_outputs, randomise

BOLD = ["percentile_99.99", "percentile_99.9", "entropy"]
"""Methods that a lone outlier is nothing to."""
BINS = 4096


def histogram(values: np.ndarray) -> Histogram:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    others = values[values != 0]
    return Histogram(low, high, np.histogram(others, BINS, (low, high))[0], values.size - others.size)


def squared_error(values: np.ndarray, bounds: tuple[float, float]) -> float:
    scale, zero_point = unsigned(bounds)
    quantized = (np.clip(np.rint(values / scale) + zero_point, 0, 255) - zero_point) * scale
    return float(np.mean((values - quantized) ** 2))


@pytest.fixture(scope="module")
def normal() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(200_000)


@pytest.fixture(scope="module")
def with_outlier(normal: np.ndarray) -> np.ndarray:
    return np.append(np.maximum(normal, 0), 60.0)


class TestAnOutlier:
    def test_min_max_keeps_it(self, with_outlier: np.ndarray) -> None:
        assert METHODS["minmax"](histogram(with_outlier)) == (0.0, 60.0)

    def test_least_squares_weighs_it(self, with_outlier: np.ndarray) -> None:
        """(60 − t)² of one value against t² / (12 · 255²) of all: the sum is least at a t that can be computed."""
        others = np.count_nonzero(with_outlier)
        optimum = 60 / (1 + others / (12 * 255**2))
        assert METHODS["mse"](histogram(with_outlier))[1] == pytest.approx(optimum, rel=0.1)
        assert optimum < 55

    @pytest.mark.parametrize("method", BOLD)
    def test_the_others_clip_it(self, method: str, with_outlier: np.ndarray) -> None:
        low, high = METHODS[method](histogram(with_outlier))
        assert low == 0.0
        assert 2.5 < high < 9.0

    @pytest.mark.parametrize("method", BOLD)
    def test_on_the_negative_side_too(self, method: str, with_outlier: np.ndarray) -> None:
        low, high = METHODS[method](histogram(-with_outlier))
        assert high == 0.0
        assert -9.0 < low < -2.5


class TestPercentile:
    @pytest.mark.parametrize("share", [0.9, 0.99, 0.999])
    def test_it_is_numpys_to_a_bin(self, share: float, normal: np.ndarray) -> None:
        found = ranges.percentile(histogram(normal), share)
        wanted = np.quantile(normal, [(1 - share) / 2, (1 + share) / 2])
        assert np.abs(found - wanted).max() <= 1.01 * np.ptp(normal) / BINS

    def test_zeros_count(self) -> None:
        values = np.append(np.zeros(9_990), np.linspace(1, 10, 10))
        low, high = ranges.percentile(histogram(values), 0.9)
        assert low == 0.0
        assert high <= 10 / BINS

    def test_all_of_it_is_min_max(self, normal: np.ndarray) -> None:
        assert ranges.percentile(histogram(normal), 1.0) == pytest.approx((normal.min(), normal.max()))


class TestLeastSquares:
    def test_no_single_end_does_better(self, normal: np.ndarray) -> None:
        low, high = ranges.least_squares(histogram(normal))
        least = squared_error(normal, (low, high))
        assert least < squared_error(normal, (normal.min(), normal.max()))
        for share in np.linspace(0.3, 1.0, 15):
            assert least <= 1.02 * squared_error(normal, (low, float(normal.max() * share)))
            assert least <= 1.02 * squared_error(normal, (float(normal.min() * share), high))

    def test_what_is_spread_evenly_is_not_clipped(self) -> None:
        assert ranges.least_squares(histogram(np.linspace(0, 4, 100_001))) == (0.0, 4.0)

    def test_both_ends_may_move_apart(self, normal: np.ndarray) -> None:
        values = np.concatenate([np.random.default_rng(0).exponential(size=200_000), -np.linspace(0, 2, 50_000)])
        low, high = ranges.least_squares(histogram(values))
        assert low == pytest.approx(-2.0, abs=0.3)
        assert 5 < high < 0.95 * values.max()

    def test_of_a_normal_distribution_the_known_optimum(self, normal: np.ndarray) -> None:
        """3.92 standard deviations for 256 levels (Banner et al. 2019)."""
        assert np.abs(ranges.least_squares(histogram(normal))) == pytest.approx(3.92, abs=0.25)


class TestEntropy:
    def test_what_is_spread_evenly_is_hardly_clipped(self) -> None:
        _, high = ranges.entropy(histogram(np.linspace(0, 4, 100_001)))
        assert high > 3.5

    def test_both_ends_are_drawn_in_alike(self, normal: np.ndarray) -> None:
        values = np.append(normal, [-30.0, 60.0])
        low, high = ranges.entropy(histogram(values))
        assert high / 60.0 == pytest.approx(low / -30.0)
        assert high < 20.0

    def test_exact_zeros_change_nothing(self, with_outlier: np.ndarray) -> None:
        few = histogram(with_outlier[with_outlier != 0])
        assert ranges.entropy(few) == ranges.entropy(histogram(with_outlier))


def network() -> onnx.ModelProto:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return build_graph(randomise(nn.Sequential(*layers, nn.Linear(8, 3))).eval(), (1, 10, 10))


def images(count: int = 40) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 1, 10, 10)).astype(np.float32)


class TestStatistics:
    def test_extremes_are_those_of_all_images(self) -> None:
        graph, pixels = network(), images(21)
        name = next(node.output[0] for node in graph.graph.node if node.op_type == "Relu")
        graph.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        statistics = Statistics(graph, pixels)
        found = statistics.ranges(["input", name])
        values = onnx_outputs_of(graph, pixels, name)
        assert found["input"] == (float(pixels.min()), float(pixels.max()))
        assert found[name] == pytest.approx((values.min(), values.max()))
        low, high = statistics.ranges([name], "percentile_99.9")[name]
        assert low == 0.0
        assert high == pytest.approx(np.quantile(values, 0.9995), rel=0.02)

    def test_images_are_gone_through_once_for_all_methods(self, monkeypatch: pytest.MonkeyPatch) -> None:
        statistics = Statistics(network(), images())
        passes: list[bytes] = []
        opened = onnx_file.open_session

        def counted(model: bytes, *, threads: int = 1) -> Any:
            passes.append(model)
            return opened(model, threads=threads)

        monkeypatch.setattr(onnx_file, "open_session", counted)
        names = [node.output[0] for node in network().graph.node if node.op_type == "Relu"]
        for method in METHODS:
            statistics.ranges(names, method)
        assert len(passes) == 2

    def test_what_is_0_throughout_has_a_range_by_every_method(self) -> None:
        graph = network()
        for tensor in graph.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
        names = [node.output[0] for node in graph.graph.node if node.op_type == "Relu"]
        for method in METHODS:
            assert set(Statistics(graph, images()).ranges(names, method).values()) == {(0.0, 0.0)}

    def test_an_unknown_method_lists_the_valid_ones(self) -> None:
        with pytest.raises(UnknownMethodError, match="did you mean 'entropy'") as caught:
            quantize_int8(network(), images(), method="entropi")
        assert all(method in str(caught.value) for method in METHODS)

    def test_a_method_that_gives_no_number_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ranges, "METHODS", {**METHODS, "mse": lambda _: (0.0, float("nan"))})
        with pytest.raises(QuantizationError, match="nan by the method mse"):
            quantize_int8(network(), images(), method="mse")


class TestThroughANetwork:
    @pytest.mark.parametrize("method", METHODS)
    def test_the_outputs_stay_near(self, method: str) -> None:
        graph, pixels = network(), images()
        plain = onnx_outputs(graph, torch.from_numpy(pixels))
        rough = onnx_outputs(quantize_int8(graph, pixels, method=method), torch.from_numpy(pixels))
        assert 0 < np.abs(plain - rough).max() <= 0.2 * np.ptp(plain)

    def test_clipping_pays_where_one_pixel_is_far_off(self) -> None:
        graph, pixels = network(), images()
        spoilt = pixels.copy()
        spoilt[0, 0, 0, 0] = 300.0
        plain = onnx_outputs(graph, torch.from_numpy(pixels))
        noise = {
            method: np.square(
                onnx_outputs(quantize_int8(graph, spoilt, method=method), torch.from_numpy(pixels)) - plain
            ).mean()
            for method in METHODS
        }
        assert max(noise["percentile_99.9"], noise["entropy"]) < noise["minmax"] / 2, noise
        assert max(noise.values()) <= noise["minmax"]


def onnx_outputs_of(graph: onnx.ModelProto, pixels: np.ndarray, name: str) -> np.ndarray:
    session = onnx_file.open_session(graph.SerializeToString())
    return np.asarray(session.run([name], {"input": pixels})[0])
