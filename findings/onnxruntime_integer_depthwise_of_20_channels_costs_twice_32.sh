#!/usr/bin/env bash
# 2026-12-01, onnxruntime 1.31.1 with onnx 1.23.2, CPython 3.11, one thread, AVX-512 (other processors may differ).
#
# Expected: a depthwise convolution on integers with 20 channels costs less than one with 32, at most as much, as it is
# with float32.
# Seen: it costs about twice as much (20 channels 2.1, 28 channels 2.5, 24 channels 1.4 times what 32 take): where the
# channels are no multiple of 16, the integer kernel leaves its fast path. A float32 one of 20 channels takes no more
# than one of 32. So whoever searches widths for an INT8 device should take multiples of 16 in depthwise layers, or
# pad the channels: a narrower network can be the slower one.
#
# Prints the times of QLinearConv and of Conv relative to 32 channels; exits 1 when the runtime behaves otherwise.
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
LAYERS, SIDE, WIDTHS = 4, 28, (20, 24, 28, 32)


def constants(**arrays):
    return [numpy_helper.from_array(array, name) for name, array in arrays.items()]


def session(channels, integers):
    kind = TensorProto.UINT8 if integers else TensorProto.FLOAT
    value = lambda name: helper.make_tensor_value_info(name, kind, [1, channels, SIDE, SIDE])
    inits, nodes, last = [], [], "x"
    if integers:
        inits += constants(s=np.float32(0.02), z=np.uint8(128), ws=np.float32(0.01), wz=np.int8(0))
    for n in range(LAYERS):
        if integers:
            inits += constants(**{f"w{n}": rng.integers(-127, 128, (channels, 1, 3, 3)).astype("i1")})
            nodes.append(
                helper.make_node(
                    "QLinearConv", [last, "s", "z", f"w{n}", "ws", "wz", "s", "z"], [f"y{n}"],
                    group=channels, pads=[1, 1, 1, 1],
                )
            )
        else:
            inits += constants(**{f"w{n}": rng.standard_normal((channels, 1, 3, 3)).astype("f4")})
            nodes.append(helper.make_node("Conv", [last, f"w{n}"], [f"y{n}"], group=channels, pads=[1, 1, 1, 1]))
        last = f"y{n}"
    graph = helper.make_graph(nodes, "g", [value("x")], [value(last)], inits)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    made = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = rng.integers(0, 256, (1, channels, SIDE, SIDE))
    return made, {"x": x.astype("u1" if integers else "f4")}


def relative(integers):
    made = {width: session(width, integers) for width in WIDTHS}
    least = dict.fromkeys(WIDTHS, float("inf"))
    for _ in range(300):  # in turns, so that a slow moment meets all
        for width, (one, feed) in made.items():
            began = time.perf_counter()
            one.run(None, feed)
            least[width] = min(least[width], time.perf_counter() - began)
    return {width: least[width] / least[32] for width in WIDTHS}


found = {name: relative(integers) for name, integers in (("QLinearConv", True), ("Conv", False))}
for name, ratios in found.items():
    print(name, ", ".join(f"{width} channels {ratio:.2f}" for width, ratio in ratios.items()), "of what 32 take")
sys.exit(0 if found["QLinearConv"][20] > 1.4 and found["QLinearConv"][28] > 1.4 and found["Conv"][20] < 1.2 else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
