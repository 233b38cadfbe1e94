#!/usr/bin/env bash
# 2026-11-30, onnx 1.23.2 with onnxruntime 1.31.1, CPython 3.11.
#
# Expected: onnx.version_converter gives a file of the other opset that computes the same, or raises.
# Seen: it handles Softmax upwards from 12 to 13, where the meaning of the axis changed, with a Flatten and a Reshape.
# Hardmax, which changed in the same way, it passes on as it is: a one-hot over all of channels, rows and columns
# becomes one for each row. Downwards it passes Softmax on as it is, too. A linear Resize of opset 10, which ONNX
# Runtime computes with asymmetric coordinates, becomes one with the default of opset 11, half_pixel, and so does
# Upsample by way of it. Nothing is raised, and the checker is content. A converted file has to be run beside the
# original one.
#
# Prints the largest differences with the runtime's optimisations off; exits 1 when the converter behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.31.1 numpy
cat > "$folder/look.py" <<'PY'
import sys
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper, version_converter

x = np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype("f4")


def run(model):
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def difference(start, end, operator, scales=None, **attributes):
    value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    weights = [] if scales is None else [numpy_helper.from_array(np.array(scales, "f4"), "s")]
    node = helper.make_node(operator, ["x", *(w.name for w in weights)], ["y"], **attributes)
    graph = helper.make_graph([node], "g", [value("x", x.shape)], [value("y", ["a", "b", "c", "d"])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", start)], ir_version=7)
    apart = float(abs(run(model) - run(version_converter.convert_version(model, end))).max())
    print(f"{operator}, opset {start} to {end}: {apart:.2f}")
    return apart


onnxruntime.set_default_logger_severity(3)
kept = difference(12, 13, "Softmax", axis=1)
changed = [
    difference(12, 13, "Hardmax", axis=1),
    difference(13, 12, "Softmax", axis=1),
    difference(10, 11, "Resize", [1, 1, 2, 2], mode="linear"),
    difference(9, 11, "Upsample", [1, 1, 2, 2], mode="linear"),
]
sys.exit(0 if kept < 1e-6 and min(changed) > 0.1 else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
