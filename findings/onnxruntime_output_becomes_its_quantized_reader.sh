#!/usr/bin/env bash
# 2026-12-01, onnxruntime 1.31.1 with onnx 1.23.2, CPython 3.11.
#
# Expected: in a file with QuantizeLinear and DequantizeLinear, a value that is an output of the graph stays as precise
# as it is; what is rounded is the copy that a quantised reader takes.
# Seen: where an output is also read by a Transpose (or Reshape) whose result is quantised, the optimiser moves the
# QuantizeLinear up past the Transpose and past the output's name, from level basic on. The output is then the
# dequantised value: here a Sigmoid's result is up to half a step (1/510) off, and every number of it is a whole
# multiple of the scale. The second output, behind the quantised product, is the same as before. There is no warning.
# Whoever quantises a graph with several outputs has to compare all of them with optimisations off, or keep a node
# between the output and the reader that isn't moved (Max of one value, right before the Transpose).
#
# Prints how far the output is off by level; exits 1 when the runtime behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.31.1 numpy
cat > "$folder/look.py" <<'PY'
import sys
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import GraphOptimizationLevel as Level

random = np.random.default_rng(1)
x = random.standard_normal((8, 4)).astype("f4")
value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
stored = {
    "scale": np.float32(1 / 255),
    "zero": np.uint8(0),
    "weight": random.integers(-127, 128, (8, 4)).astype("i1"),
    "step": np.float32(0.01),
    "middle": np.int8(0),
}
nodes = [
    helper.make_node("Sigmoid", ["x"], ["y"]),
    helper.make_node("Transpose", ["y"], ["turned"], perm=[1, 0]),
    helper.make_node("QuantizeLinear", ["turned", "scale", "zero"], ["q"]),
    helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
    helper.make_node("DequantizeLinear", ["weight", "step", "middle"], ["w"]),
    helper.make_node("MatMul", ["d", "w"], ["product"]),
]
graph = helper.make_graph(
    nodes,
    "g",
    [value("x", [8, 4])],
    [value("y", [8, 4]), value("product", [4, 4])],
    [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model, full_check=True)


def run(level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


wanted = 1 / (1 + np.exp(-x.astype("f8")))
off = run(Level.ORT_DISABLE_ALL)
found = {"off": off, "basic": run(Level.ORT_ENABLE_BASIC), "default": run(Level.ORT_ENABLE_ALL)}
steps = {name: float(255 * abs(outputs[0] - wanted).max()) for name, outputs in found.items()}
whole = {name: float(abs(255 * outputs[0] - np.round(255 * outputs[0])).max()) for name, outputs in found.items()}
for name in found:
    print(f"{name}: {steps[name]:.4f} steps from the sigmoid, {whole[name]:.4f} from a whole number of steps")
same = max(float(abs(outputs[1] - off[1]).max()) for outputs in found.values())
print(f"the quantised product: at most {same:.1e} apart")
rounded = all(steps[name] > 0.25 and whole[name] < 1e-3 for name in ("basic", "default"))
sys.exit(0 if rounded and steps["off"] < 1e-3 < whole["off"] and same < 1e-4 else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
