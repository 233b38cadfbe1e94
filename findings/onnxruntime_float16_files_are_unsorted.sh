#!/usr/bin/env bash
# 2026-11-30, onnxruntime 1.31.1 with onnx 1.23.2, CPython 3.11.
#
# Expected: `onnxruntime.transformers.float16.convert_float_to_float16` turns a valid model into a valid one.
# Seen: with keep_io_types=True, or with operators that stay in float32, the Cast nodes that it adds stand behind all
# other nodes, also those that read their results. ONNX asks for nodes in topological order: onnx.checker refuses the
# file, and readers that walk the nodes once meet values that nobody has made yet. ONNX Runtime itself sorts nodes and
# runs it, so that nobody notices there. Whoever takes such files in has to sort first.
#
# Prints the order of the nodes and both verdicts; exits 1 when the converter behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.31.1 sympy
cat > "$folder/look.py" <<'PY'
import sys
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4])
nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], [numpy_helper.from_array(np.eye(4, dtype="f4"), "w")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
half = convert_float_to_float16(model, keep_io_types=True)
order = [node.op_type for node in half.graph.node]
try:
    onnx.checker.check_model(half)
    refused = False
except onnx.checker.ValidationError as error:
    refused = "topologically sorted" in str(error)
(result,) = onnxruntime.InferenceSession(half.SerializeToString()).run(None, {"x": np.ones((1, 4), "f4")})
print("nodes:", *order, "| checker:", "refuses the order" if refused else "content", "| runtime gives", result[0])
sys.exit(0 if refused and order[-1] == "Cast" and order.count("Cast") == 2 and (result == 1).all() else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
