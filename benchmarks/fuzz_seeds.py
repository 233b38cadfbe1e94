"""Valid files that `fuzz.py` damages: a finished run with its bundle, cost models, small ONNX models."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from common import HWNAS
from onnx import TensorProto, helper, numpy_helper

CONFIG = """\
name: fuzzed
seed: 1
data: {name: digits}
space: {name: convnet, width: 8, activations: [relu, hardswish], activation_scope: network}
strategy: {name: random}
evaluator: {name: train, epochs: 1}
device: {name: cpu, threads: 1, batch_size: 1, precision: fp32}
cost_model: auto
objectives: [accuracy, latency_ms]
constraints: {latency_ms: 5, size_mb: 2}
budget: {trials: 3, minutes: 5}
engine: {name: inline}
final: {pick: knee, epochs: 1}
export: {opset: 20, quantize: never}
"""
DEVICES = """\
devices:
  laptop:
    provider: CPUExecutionProvider
    threads: 1
  board:
    host: nowhere.invalid
    port: 2222
    threads: 1
"""


@dataclass(frozen=True)
class Seeds:
    """Where the valid files lie."""

    run: Path
    data_home: Path
    models: tuple[Path, ...]

    @classmethod
    def in_folder(cls, folder: Path) -> "Seeds":
        """Make them, unless they are there: about three minutes, most of it timing operators for `predict`."""
        folder = folder.absolute()
        models = tuple(_models(folder / "models"))
        seeds = cls(folder / "run", folder / "data", models)
        if not (seeds.run / "bundle").is_dir():
            print("making a small run with its bundle", flush=True)
            (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
            seeds.command("search", folder / "config.yaml", "--run-dir", seeds.run)
            seeds.command("calibrate", folder / "config.yaml", "--seconds", 5, "--output", folder / "cost_model.json")
        if not list(seeds.data_home.rglob("operator_costs/*.json")):
            print("timing operators once", flush=True)
            seeds.command("predict", models[0])
        return seeds

    @property
    def cost_model(self) -> Path:
        """A calibrated cost model of the run's space."""
        return self.run.parent / "cost_model.json"

    def command(self, *words: object) -> None:
        """Run the command line with the seeds' data folder."""
        environment = {**os.environ, "XDG_DATA_HOME": str(self.data_home)}
        subprocess.run([str(HWNAS), *map(str, words)], check=True, env=environment, cwd=self.run.parent)


def _models(folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in _NETS.items():
        path = folder / f"{name}.onnx"
        if not path.exists():
            onnx.save(model(), path)
        yield path


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    weights: dict[str, np.ndarray],
    opset: int = 17,
    kinds: dict[str, int] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, (kinds or {}).get(n, TensorProto.FLOAT), s) for n, s in inputs.items()],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _random(*shape: int) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * 0.2).astype(np.float32)


def _convolutions() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1], name="first"),
        helper.make_node("Softplus", ["a"], ["s"]),
        helper.make_node("Tanh", ["s"], ["t"]),
        helper.make_node("Mul", ["a", "t"], ["m"], name="mish"),
        helper.make_node("MaxPool", ["m"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "w2"], ["c"], group=8, pads=[1, 1, 1, 1]),
        helper.make_node("ReduceMean", ["c"], ["g"], axes=[2, 3], keepdims=0),
        helper.make_node("Gemm", ["g", "v"], ["y"], transB=1),
    ]
    weights = {"w1": _random(8, 3, 3, 3), "b1": _random(8), "w2": _random(8, 1, 3, 3), "v": _random(5, 8)}
    return _model(nodes, {"x": ["N", 3, 12, 12]}, weights)


def _attention() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("MatMul", ["e", "wq"], ["q"]),
        helper.make_node("Transpose", ["e"], ["k"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"]),
        helper.make_node("MatMul", ["p", "e"], ["o"]),
        helper.make_node("LSTM", ["o", "w", "r"], ["l", "", ""], hidden_size=4),
        helper.make_node("ReduceMean", ["l"], ["y"], keepdims=0),
    ]
    weights = {"table": _random(20, 8), "wq": _random(8, 8), "w": _random(1, 16, 8), "r": _random(1, 16, 4)}
    return _model(nodes, {"ids": [1, 6]}, weights, kinds={"ids": TensorProto.INT64})


def _branches() -> onnx.ModelProto:
    arms = {}
    for name, width in (("then_branch", 8), ("else_branch", 4)):
        node = helper.make_node("MatMul", ["x", f"{name}w"], [f"{name}y"])
        result = helper.make_tensor_value_info(f"{name}y", TensorProto.FLOAT, None)
        stored = numpy_helper.from_array(_random(8, width), f"{name}w")
        arms[name] = helper.make_graph([node], name, [], [result], [stored])
    nodes = [helper.make_node("If", ["flag"], ["i"], **arms), helper.make_node("Elu", ["i"], ["y"])]
    return _model(nodes, {"x": [1, 8], "flag": []}, {}, kinds={"flag": TensorProto.BOOL})


def _quantized() -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["wq", "ws"], ["w"]),
        helper.make_node("Conv", ["xd", "w"], ["c"]),
        helper.make_node("Resize", ["c", "", "scales"], ["r"], mode="nearest"),
        helper.make_node("GlobalAveragePool", ["r"], ["y"]),
    ]
    weights = {
        "s": np.float32(0.02),
        "z": np.uint8(128),
        "ws": np.float32(0.01),
        "wq": np.arange(8 * 4 * 9, dtype=np.int8).reshape(8, 4, 3, 3),
        "scales": np.array([1, 1, 1.7, 1.7], np.float32),
    }
    return _model(nodes, {"x": [1, 4, 9, 9]}, {name: np.asarray(array) for name, array in weights.items()})


def _function() -> onnx.ModelProto:
    body = [helper.make_node("Sigmoid", ["a"], ["g"]), helper.make_node("Mul", ["a", "g"], ["b"])]
    imports = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "Swish", ["a"], ["b"], body, imports)
    nodes = [helper.make_node("Swish", ["x"], ["h"], domain="own"), helper.make_node("MatMul", ["h", "w"], ["y"])]
    model = _model(nodes, {"x": [2, 6]}, {"w": _random(6, 3)})
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


_NETS = {
    "convolutions": _convolutions,
    "attention": _attention,
    "branches": _branches,
    "quantized": _quantized,
    "function": _function,
}
