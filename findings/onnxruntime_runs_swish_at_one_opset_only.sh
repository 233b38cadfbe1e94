#!/usr/bin/env bash
# 2026-11-30, onnxruntime 1.31.1 with onnx 1.23.2, CPython 3.11.
#
# Expected: an operator that came with opset 24 and wasn't changed since runs in files of opset 24, 25 and 26, all of
# which the runtime loads.
# Seen: Swish(24) runs at opset 24 only; files of opset 25 and 26 with the same node end with NOT_IMPLEMENTED, while
# Gelu and Mish run in all three. There is no kernel: the runtime writes out the standard's function, which it finds at
# opset 24 alone. Where it runs, it takes four kernels (alpha is cast and multiplied even at its default of 1), which no
# optimisation joins, against one for Sigmoid and Mul, the form of earlier opsets. A newer opset with the exact operator
# is thus slower or doesn't load at all: exporters do well to go on writing x * sigmoid(x).
#
# Prints the kernels by opset; exits 1 when the runtime behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.31.1 numpy
cat > "$folder/look.py" <<'PY'
import json, sys
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper
from onnxruntime import GraphOptimizationLevel as Level


def run(model, feed, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.enable_profiling, options.profile_file_prefix = True, "profile"
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result, *_ = session.run(None, feed)
    events = json.load(open(session.end_profiling()))
    return result, [e["args"]["op_name"] for e in events if e["name"].endswith("_kernel_time")]


value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 4, 4])
node = helper.make_node
forms = {
    "Swish": [node("Swish", ["x"], ["y"])],
    "Gelu": [node("Gelu", ["x"], ["y"])],
    "Mish": [node("Mish", ["x"], ["y"])],
    "Sigmoid, Mul": [node("Sigmoid", ["x"], ["s"]), node("Mul", ["x", "s"], ["y"])],
}
onnxruntime.set_default_logger_severity(4)
found = {}
for form, nodes in forms.items():
    for opset in (24, 25, 26):
        graph = helper.make_graph(nodes, "g", [value("x")], [value("y")])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        try:
            _, kernels = run(model, {"x": np.ones((1, 8, 4, 4), "f4")}, Level.ORT_ENABLE_ALL)
        except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
            kernels = ["NOT_IMPLEMENTED"]
        found[form, opset] = kernels
        print(f"{form} at opset {opset}:", *kernels)
refused = [key for key, kernels in found.items() if kernels == ["NOT_IMPLEMENTED"]]
sys.exit(
    0
    if refused == [("Swish", 25), ("Swish", 26)]
    and len(found["Swish", 24]) == 4
    and len(found["Sigmoid, Mul", 26]) == 1
    else 1
)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
