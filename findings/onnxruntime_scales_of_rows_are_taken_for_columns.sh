#!/usr/bin/env bash
# 2026-11-30, onnxruntime 1.31.1 with onnx 1.23.2, CPython 3.11.
#
# Expected: a weight with a scale for each row (DequantizeLinear axis=0) that a MatMul sums over can't be used in an
# integer kernel, since the scales don't leave the sum: the runtime keeps the float product.
# Seen: its default optimisations don't look at the axis. A square weight goes into QLinearMatMul (QGemm for a Gemm),
# which takes the rows' scales for the columns': the outputs are wrong by as much as they are large, without a warning,
# and right with optimisations off. With a weight that isn't square a Gemm stays in float, by the number of scales, and
# a MatMul is fused and fails at its first run. It happens wherever one square weight is read along both axes, as by
# tied layers, and quantised once. Whoever quantises has to give such weights one scale, or two copies.
#
# Prints the largest difference to the unoptimised graph, relative to the largest output; exits 1 when the runtime
# behaves otherwise.
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


def model_of(operator, rows, columns, axis):
    random = np.random.default_rng(0)
    scales = np.logspace(-3, -1, (rows, columns)[axis]).astype("f4")
    weights = {
        "w": random.integers(-100, 100, (rows, columns)).astype("i1"),
        "s": scales,
        "z": np.zeros(len(scales), "i1"),
        "sx": np.float32(0.02),
        "sy": np.float32(0.2),
        "zx": np.uint8(128),
    }
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        node("DequantizeLinear", ["w", "s", "z"], ["wd"], axis=axis),
        node(operator, ["xd", "wd"], ["m"]),
        node("QuantizeLinear", ["m", "sy", "zx"], ["mq"]),
        node("DequantizeLinear", ["mq", "sy", "zx"], ["y"]),
    ]
    value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", [4, rows])],
        [value("y", [4, columns])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model, {"x": random.standard_normal((4, rows)).astype("f4")}


onnxruntime.set_default_logger_severity(4)
found = []
for operator in ("MatMul", "Gemm"):
    for rows, columns, axis in ((16, 16, 1), (16, 8, 0), (16, 16, 0)):
        model, feed = model_of(operator, rows, columns, axis)
        plain, _ = run(model, feed, Level.ORT_DISABLE_ALL)
        try:
            fused, kernels = run(model, feed, Level.ORT_ENABLE_ALL)
            apart = float(abs(plain - fused).max() / abs(plain).max())
            found.append(("wrong" if apart > 0.3 else "right", operator in kernels))
            kernels.insert(0, f"off by {100 * apart:.1f} %,")
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail as error:
            kernels = ["raises at its first run"]
            found.append(("raises", "QLinearMatMul" not in str(error)))
        print(f"{operator}, weight {rows}x{columns}, scales along axis {axis}:", *kernels)
sys.exit(
    0
    if found
    == [("right", False), ("raises", False), ("wrong", False), ("right", False), ("right", True), ("wrong", False)]
    else 1
)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
