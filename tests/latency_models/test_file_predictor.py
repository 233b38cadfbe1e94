"""Files predicted from their operators: the optimised graph, what its kernels are, the store, intervals."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from latency_models.devices.device import Device
from latency_models.errors import DeviceError, InvalidModelError, UnknownShapeError
from latency_models.file_predictor import FilePredictor, PredictorStore
from latency_models.graph.model_inputs import GivenInputs
from latency_models.kernels.operators import NotPredictableError, operators_of
from latency_models.kernels.optimised_graph import optimised_graph
from latency_models.microbench.benchmarks import FAMILIES, benchmarks, observe
from latency_models.microbench.graphs import GraphBuilder
from latency_models.predictors.operator_model import Observation, OperatorModel
from latency_models.predictors.prediction import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from latency_models.kernels.optimised_graph import OptimisedGraph
    from latency_models.predictors.operators import Operator

CPU = Device()


def builder() -> GraphBuilder:
    return GraphBuilder(np.random.default_rng(0))


def small_net(width: int = 16, side: int = 8, links: int = 2) -> bytes:
    g = builder()
    x = g.image(1, 3, side, side)
    for _ in range(links):
        x = g.activation(g.conv(x, width, 3), "Relu")
    return g.model(g.classifier(x, 10))


def per_element(operators: Sequence[Operator]) -> float:
    """Made-up costs: so much for each operator, and for each amount of work."""
    return sum(0.001 + 0.01 * sum(operator.work) for operator in operators)


@pytest.fixture(scope="module")
def observations() -> list[Observation]:
    nets = [small_net(width, side, links) for width in (16, 32, 64) for side in (4, 8, 16) for links in (1, 2, 3)]
    found = [tuple(operators_of(optimised_graph(net, CPU))) for net in nets]
    return [Observation(operators, per_element(operators), 0.005) for operators in found]


@pytest.fixture
def predictor(observations: list[Observation]) -> FilePredictor:
    return FilePredictor(CPU, OperatorModel.fit(observations))


def kinds(model: bytes, device: Device = CPU) -> list[str]:
    return [operator.kind for operator in operators_of(optimised_graph(model, device))]


def work_of(kind: str, graph: OptimisedGraph) -> float:
    """The first amount of work of all operators of a kind."""
    return sum(operator.work[0] for operator in operators_of(graph) if operator.kind == kind)


def unary(op_type: str, shape: Sequence[int | str], domain: str = "", **attributes: object) -> bytes:
    node = helper.make_node(op_type, ["x"], ["y"], domain=domain, **attributes)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    graph = helper.make_graph([node], "one", [x], [y])
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    )


def test_benchmarks_are_the_same_each_time_and_families_take_turns() -> None:
    families = tuple((family, 2) for family, _ in FAMILIES[-3:])
    assert list(benchmarks(families)) == list(benchmarks(families))
    assert list(benchmarks(families, seed=2)) != list(benchmarks(families))


def test_shapes_are_those_that_the_runtime_gives() -> None:
    import onnxruntime

    model = small_net(24, 9)
    outputs = onnxruntime.InferenceSession(model).run(None, {"x0": np.zeros((1, 3, 9, 9), np.float32)})
    assert optimised_graph(model, CPU).kernels[-1].outputs[0].dims == outputs[0].shape


def test_an_activation_becomes_part_of_its_convolution() -> None:
    found = kinds(small_net())
    assert found.count("then Relu") + found.count("Relu") == 2
    assert {"call", "kernel", "vector"} <= set(found)


def test_a_windows_part_outside_of_the_map_is_no_work() -> None:
    def work(side: int) -> float:
        g = builder()
        operators = operators_of(optimised_graph(g.model(g.conv(g.image(1, 16, side, side), 16, 7)), CPU))
        return sum(each.work[0] for each in operators if each.kind in ("conv", "plain conv"))

    assert work(2) == pytest.approx(16 * 16 * 16 / 1e6) or work(2) == pytest.approx(16 * 16 * 49 * 4 / 1e6)
    assert work(2) < work(4) < work(8)


def test_the_batch_multiplies_the_work() -> None:
    model = unary("Tanh", ["batch", 4, 8, 8])
    one, four = (work_of("Tanh", optimised_graph(model, replace(CPU, batch_size=size))) for size in (1, 4))
    assert four == 4 * one


def test_a_net_between_the_observed_ones_is_predicted(predictor: FilePredictor) -> None:
    model = small_net(48, 12, 2)
    found = predictor.predict(model)
    truth = per_element(operators_of(optimised_graph(model, CPU)))
    assert found.latency_ms == pytest.approx(truth, rel=0.1)
    assert found.low_ms < truth < found.high_ms
    assert (found.measurements, found.unknown) == (27, ())


def test_unknown_operators_are_named_and_widen_the_interval(predictor: FilePredictor) -> None:
    g = builder()
    x = g.activation(g.conv(g.image(1, 16, 16, 16), 16, 3), "Relu")
    known = predictor.predict(g.model(x))
    stranger = predictor.predict(g.model(g.add("Sin", [x], x.dims)))
    assert "Sin" in stranger.unknown
    assert stranger.high_ms > known.high_ms
    (warning,) = stranger.as_dict()["warnings"]  # type: ignore[misc]
    assert "Sin" in warning


def test_what_cannot_be_predicted_is_refused(predictor: FilePredictor, tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match=r"open sizes.*--shape x=1,5,HEIGHT,8"):
        predictor.predict(unary("Tanh", ["batch", 5, "height", 8]))
    with pytest.raises(InvalidModelError, match="loadable"):
        predictor.predict(b"no model at all")
    with pytest.raises(InvalidModelError, match="can't be read"):
        predictor.predict(tmp_path / "missing.onnx")
    with pytest.raises(InvalidModelError):
        predictor.predict(unary("NobodyKnows", [1, 4]))


def branches(one: str, other: str) -> bytes:
    arms = [
        helper.make_graph(
            [helper.make_node(op_type, ["x"], [op_type])],
            op_type,
            [],
            [helper.make_tensor_value_info(op_type, TensorProto.FLOAT, [1, 64])],
        )
        for op_type in (one, other)
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=arms[0], else_branch=arms[1])
    inputs = [
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64]),
    ]
    graph = helper.make_graph([node], "branches", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    )


def test_a_branch_that_is_taken_is_predicted() -> None:
    for flag, kind in ((True, "Tanh"), (False, "Erf")):
        graph = optimised_graph(branches("Tanh", "Erf"), CPU, GivenInputs(values={"c": np.asarray(flag)}))
        assert [kernel.op_type for kernel in graph.kernels] == [kind]


def test_a_loop_is_refused(predictor: FilePredictor) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["a"], ["b"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, [1]),
        ],
    )
    loop = helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)
    inputs = [
        helper.make_tensor_value_info("turns", TensorProto.INT64, []),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
    ]
    graph = helper.make_graph([loop], "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(UnknownShapeError, match="control flow"):
        predictor.predict(bytes(model.SerializeToString()))


def test_sizes_at_which_a_file_cannot_be_run_are_refused() -> None:
    g = builder()
    model = g.model(g.conv(g.image(1, 3, 4, 4), 8, 3))
    with pytest.raises(InvalidModelError, match="its batch is fixed at 1"):
        optimised_graph(model, replace(CPU, batch_size=2))
    window = helper.make_model(
        helper.make_graph(
            [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[9])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, "length"])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    ).SerializeToString()
    with pytest.raises(InvalidModelError, match=r"run with x=1,1,2.*--shape INPUT=SIZES"):
        optimised_graph(window, CPU, GivenInputs({"x": (1, 1, 2)}))


def test_a_layer_like_none_that_was_timed_is_refused(predictor: FilePredictor) -> None:
    g = builder()
    x = g.image(5, 1, 4)
    y = g.add("GRU", [x, g.weights(1, 24, 4), g.weights(1, 24, 8)], (5, 1, 1, 8), hidden_size=8)
    with pytest.raises(NotPredictableError, match="nothing like operator GRU"):
        predictor.predict(g.model(y))


def test_other_types_of_numbers_are_named_and_widen_the_interval(predictor: FilePredictor) -> None:
    def layer(numbers: type[np.floating[Any]]) -> bytes:
        g = GraphBuilder(np.random.default_rng(0), numbers=numbers)
        return g.model(g.gemm(g.image(1, 64), 32))

    single, double = (predictor.predict(layer(numbers)) for numbers in (np.float32, np.float64))
    assert single.unknown == ()
    assert double.unknown == ("float64 vector",)
    assert double.high_ms - double.low_ms > single.high_ms - single.low_ms


def test_what_is_no_number_is_never_a_prediction() -> None:
    class Broken(OperatorModel):
        def predict(self, operators: Iterable[Operator]) -> Prediction:
            return Prediction(float("nan"), 0.0, float("inf"))

    model = small_net()
    known = [Observation(tuple(operators_of(optimised_graph(model, CPU))), ms, 0.01) for ms in (1.0, 1.1)]
    with pytest.raises(NotPredictableError, match="hwnas profile"):
        FilePredictor(CPU, Broken.fit(known)).predict(model)


def test_sparse_weights_are_weights() -> None:
    numbers = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    places = helper.make_tensor("places", TensorProto.INT64, [2], [0, 5])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y],
        sparse_initializer=[helper.make_sparse_tensor(numbers, places, [4, 4])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (kernel,) = optimised_graph(bytes(model.SerializeToString()), CPU).kernels
    weight = kernel.inputs[1]
    assert weight is not None
    assert (weight.dims, weight.stored) == ((4, 4), True)


def test_a_graph_without_kernels_takes_the_call_alone() -> None:
    constant = helper.make_node("Constant", [], ["y"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0]))
    graph = helper.make_graph([constant], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert kinds(bytes(model.SerializeToString())) == ["call"]


def test_open_sizes_stay_open_for_the_optimiser() -> None:
    shape = helper.make_node("Shape", ["x"], ["s"])
    flat = helper.make_node("Reshape", ["y", "s"], ["z"])
    x, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xz")
    graph = helper.make_graph([shape, helper.make_node("Tanh", ["x"], ["y"]), flat], "g", [x], [z])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    kernels = optimised_graph(bytes(model.SerializeToString()), CPU).kernels
    assert sorted(kernel.op_type for kernel in kernels) == ["Reshape", "Shape", "Tanh"]


def test_other_devices_are_refused(tmp_path: Path) -> None:
    store = PredictorStore(tmp_path)
    for device in (replace(CPU, host="elsewhere"), Device(runtime="torch", provider="")):
        with pytest.raises(DeviceError, match="predicted"):
            store.predictor(device)


def test_what_was_timed_is_kept(tmp_path: Path, observations: list[Observation]) -> None:
    asked: list[int] = []

    def timed() -> list[Observation]:
        asked.append(1)
        return observations

    store = PredictorStore(tmp_path)
    first = store.predictor(CPU, timed=timed).predict(small_net())
    again = store.predictor(CPU, timed=timed).predict(small_net())
    assert len(asked) == 1
    assert again.latency_ms == pytest.approx(first.latency_ms)
    store.predictor(CPU, timed=timed, rebuild=True)
    assert len(asked) == 2
    assert store.warnings == []


@pytest.mark.parametrize("damage", ["cut", "format", "environment", "content"])
def test_another_or_a_damaged_file_is_not_used(tmp_path: Path, observations: list[Observation], damage: str) -> None:
    store = PredictorStore(tmp_path)
    store.predictor(CPU, timed=lambda: observations)
    (path,) = tmp_path.iterdir()
    document = json.loads(path.read_text())
    if damage == "format":
        document["format"] = 0
    elif damage == "environment":
        document["environment"]["fingerprint"] = "0" * 16
    elif damage == "content":
        document["model"]["observations"][0]["ms"] = None
    text = json.dumps(document)
    path.write_text(text[: len(text) // 2] if damage == "cut" else text)
    assert store.predictor(CPU, timed=lambda: observations[:5]).measurements == 5
    assert bool(store.warnings) == (damage != "format")


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, observations: list[Observation]) -> None:
    (tmp_path / "taken").write_text("a file, no folder")
    store = PredictorStore(tmp_path / "taken")
    assert store.predictor(CPU, timed=lambda: observations).measurements == len(observations)
    assert any("taken" in warning for warning in store.warnings)


def test_observing_times_each_benchmark(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    families = tuple((family, 2) for family, _ in FAMILIES[-1:])
    found = observe(CPU, lambda done, of: heard.append((done, of)), families=families)
    assert heard == [(0, 2), (1, 2), (2, 2)]
    assert len(found) == 2
    assert all(each.ms > 0 and each.noise > 0 and each.operators for each in found)


def test_nothing_is_left_of_the_optimised_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    optimised_graph(small_net(), CPU)
    assert list(tmp_path.iterdir()) == []


def test_weights_in_a_file_beside_it_are_read(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    model = onnx.load_model_from_string(small_net())
    onnx.save_model(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    assert kinds_of_file(path) == kinds(small_net())


def kinds_of_file(path: Path) -> list[str]:
    return [operator.kind for operator in operators_of(optimised_graph(path, CPU))]
