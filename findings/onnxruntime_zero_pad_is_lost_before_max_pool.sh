#!/usr/bin/env bash
# 2026-11-30, onnxruntime 1.31.1 with onnx 1.23.2, CPython 3.11.
#
# Expected: a Pad with zeros before a MaxPool stays a Pad with zeros, since max pooling pads with minus infinity.
# Seen: the default optimisations (from level basic on) move the Pad into the pool's own padding, so that the zeros are
# gone: where all values of a window are negative, the maximum is negative in place of 0. The same file thus answers
# differently by the level, and where the padded values are an output of the model too, the Pad stays. Behind a ReLU
# nothing shows, so models pass their tests; behind LeakyReLU, GELU, SiLU or a normalisation it shows (TensorFlow-style
# nets pad by hand). Rewriters that copy the rule inherit it.
#
# Prints an output by level; exits 1 when the runtime behaves otherwise.
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


value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
found = []
for shown in (False, True):
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["a"]),
        helper.make_node("MaxPool", ["a"], ["y"], kernel_shape=[3, 3]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", [1, 1, 3, 3])],
        [value("y", [1, 1, 3, 3]), *([value("a", [1, 1, 5, 5])] if shown else [])],
        [numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    for level in (Level.ORT_DISABLE_ALL, Level.ORT_ENABLE_BASIC, Level.ORT_ENABLE_ALL):
        result, kernels = run(model, {"x": np.full((1, 1, 3, 3), -1, "f4")}, level)
        found.append(result[0, 0, 0, 0])
        print(f"{level.name}, padded values {'also' if shown else 'not'} an output: corner {found[-1]:+.0f},", *kernels)
sys.exit(0 if found == [0, -1, -1, 0, 0, 0] else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
