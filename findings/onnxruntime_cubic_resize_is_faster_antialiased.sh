#!/usr/bin/env bash
# 2026-12-01, onnxruntime 1.31.1 with onnx 1.23.2, CPython 3.11, one thread.
#
# Expected: Resize with antialias does more work than without, or as much where a map grows, since growing needs no
# smoothing.
# Seen: doubling a map with mode cubic takes about 20 times as long without antialias as with it (80 against 3 ns for
# each value), and both give the same numbers, to the last bits of a float: the antialiased kernel is separable and
# keeps its coefficients, the other computes all sixteen for each value. Mode linear is the other way round. So
# antialias=1 (opset 18 and later) is a free gain for a map that grows by cubic Resize, and a time of "Resize cubic"
# says little unless the attribute is known.
#
# Prints the times and the largest difference; exits 1 when the runtime behaves otherwise.
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

x = np.random.default_rng(0).standard_normal((1, 8, 32, 32)).astype("f4")
value = lambda name, side: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, side, side])


def session(mode, antialias):
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode=mode, antialias=antialias)
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], "f4"), "scales")
    graph = helper.make_graph([node], "g", [value("x", 32)], [value("y", 64)], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def least_ms(one):
    times = []
    for _ in range(40):
        began = time.perf_counter()
        one.run(None, {"x": x})
        times.append(time.perf_counter() - began)
    return 1e3 * min(times)


ratios = {}
for mode in ("cubic", "linear"):
    plain, smooth = session(mode, 0), session(mode, 1)
    apart = float(abs(plain.run(None, {"x": x})[0] - smooth.run(None, {"x": x})[0]).max())
    times = [least_ms(plain), least_ms(smooth)]
    ratios[mode] = times[0] / times[1], apart
    print(f"{mode}: plain {times[0]:.3f} ms, antialiased {times[1]:.3f} ms, {ratios[mode][0]:.1f} times; {apart:.1e} apart")
sys.exit(0 if ratios["cubic"][0] > 5 and ratios["cubic"][1] < 1e-5 and ratios["linear"][0] < 1 else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
