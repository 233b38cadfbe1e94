#!/usr/bin/env bash
# 2026-12-01, onnxruntime 1.31.1 with onnx 1.23.2, CPython 3.11, one thread, AVX-512 (other processors may differ).
#
# Expected: a grouped convolution that gains from integers with one output channel a group (depthwise) gains, or loses
# little, with two: the work doubles, and so does the time.
# Seen: with one output a group QLinearConv takes .7 to 1.0 of the float convolution's time, with two 6 to 10 times of
# the float one's. Other small groups are slow on integers, too: with 2 channels in and out 2.5 to 4.7 times the float
# one; with 8 it is about even. So a quantiser should leave small groups in float, true depthwise apart.
#
# Prints the integer kernel's time over the float one's; exits 1 when the runtime behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.31.1 numpy
cat > "$folder/look.py" <<'PY'
import sys
import time
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
CHANNELS, SIDE = 64, 16


def session(outputs, integers):
    kind = TensorProto.UINT8 if integers else TensorProto.FLOAT
    value = lambda name, channels: helper.make_tensor_value_info(name, kind, [1, channels, SIDE, SIDE])
    shape = (outputs, 1, 3, 3)
    if integers:
        arrays = {
            "w": rng.integers(-127, 128, shape).astype("i1"),
            "s": np.float32(0.02), "z": np.uint8(128), "ws": np.float32(0.01), "wz": np.int8(0),
        }
        inputs = ["x", "s", "z", "w", "ws", "wz", "s", "z"]
    else:
        arrays, inputs = {"w": rng.standard_normal(shape).astype("f4")}, ["x", "w"]
    node = helper.make_node(
        "QLinearConv" if integers else "Conv", inputs, ["y"], group=CHANNELS, pads=[1, 1, 1, 1]
    )
    inits = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph([node], "g", [value("x", CHANNELS)], [value("y", outputs)], inits)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    made = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return made, {"x": rng.integers(0, 256, (1, CHANNELS, SIDE, SIDE)).astype("u1" if integers else "f4")}


made = {(outputs, integers): session(outputs, integers) for outputs in (64, 128) for integers in (False, True)}
least = dict.fromkeys(made, float("inf"))
for _ in range(300):  # in turns, so that a slow moment meets all
    for key, (one, feed) in made.items():
        began = time.perf_counter()
        one.run(None, feed)
        least[key] = min(least[key], time.perf_counter() - began)
ratios = {outputs: least[outputs, True] / least[outputs, False] for outputs in (64, 128)}
for outputs, ratio in ratios.items():
    print(f"64 channels, 64 groups, {outputs} outputs: integers take {ratio:.2f} of the float convolution's time")
sys.exit(0 if ratios[64] < 1.2 and ratios[128] > 3 else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
