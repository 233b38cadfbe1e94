#!/usr/bin/env bash
# 2026-11-30, onnxruntime 1.31.1 with onnx 1.23.2, CPython 3.11.
#
# Expected: an AveragePool between Q/DQ pairs gives the same numbers, up to a step, as a float kernel and as the fused
# integer kernel.
# Seen: with ceil_mode=1 and count_include_pad=1 (which torch.nn.AvgPool2d(2, 2, ceil_mode=True) is exported as) the
# last window of an odd size hangs over the edge. The float kernel divides by the cells that exist. QLinearAveragePool,
# which the default optimisations put in, divides by the whole window: an image of 8 everywhere averages to 4 at the
# edge and to 2 in the corner. No warning; the same file is right with optimisations off. A quantiser that measures its
# error on the unfused graph doesn't see it, so such pools are best left in float.
#
# Prints the last row by both; exits 1 when the runtime behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.31.1 numpy
cat > "$folder/look.py" <<'PY'
import json, sys
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import GraphOptimizationLevel as Level


def run(model, feed, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.enable_profiling, options.profile_file_prefix = True, "profile"
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result, *_ = session.run(None, feed)
    events = json.load(open(session.end_profiling()))
    return result, [e["args"]["op_name"] for e in events if e["name"].endswith("_kernel_time")]


def pairs(source, target):
    return [
        helper.make_node("QuantizeLinear", [source, "s", "z"], [target + "_q"]),
        helper.make_node("DequantizeLinear", [target + "_q", "s", "z"], [target]),
    ]


value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
pool = helper.make_node(
    "AveragePool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, count_include_pad=1
)
graph = helper.make_graph(
    [*pairs("x", "a"), pool, *pairs("p", "y")],
    "g",
    [value("x", [1, 1, 5, 5])],
    [value("y", [1, 1, 3, 3])],
    [numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.uint8(0), "z")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
onnx.checker.check_model(model, full_check=True)
feed = {"x": np.full((1, 1, 5, 5), 8, "f4")}
plain, kernels = run(model, feed, Level.ORT_DISABLE_ALL)
fused, fused_kernels = run(model, feed, Level.ORT_ENABLE_ALL)
print("optimisations off:", plain[0, 0, 2], *kernels)
print("default:          ", fused[0, 0, 2], *fused_kernels)
right = np.allclose(plain, 8) and np.allclose(fused[0, 0], [[8, 8, 4], [8, 8, 4], [4, 4, 2]], atol=0.11)
sys.exit(0 if right and "QLinearAveragePool" in fused_kernels and "QLinearAveragePool" not in kernels else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
