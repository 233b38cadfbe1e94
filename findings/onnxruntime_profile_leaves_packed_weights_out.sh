#!/usr/bin/env bash
# 2026-11-30, onnxruntime 1.31.1 with onnx 1.23.2, CPython 3.11.
#
# Expected: the profile's input_type_shape lists a kernel's inputs in their order, and parameter_size the bytes of its
# weights.
# Seen: weights that were packed at loading are missing from both, and nothing stands in their place: an LSTM with
# input, weight, recurrence and bias lists two shapes, and the second is the bias's, where the weight's would be. Its
# parameter_size is the bias's alone, 256 of 1,792 bytes. A MatMul lists its left side only and has 0 bytes. Which
# kernels pack depends on the processor's kernels. Who counts operations or parameters from a profile gets too little
# without a sign of it; session.disable_prepacking=1 brings the list back, in another run.
#
# Prints both lists; exits 1 when the runtime behaves otherwise.
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


def profile(model, feed, packing):
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, "profile"
    options.add_session_config_entry("session.disable_prepacking", "0" if packing else "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, feed)
    (kernel,) = (e["args"] for e in json.load(open(session.end_profiling())) if e["name"].endswith("_kernel_time"))
    return [list(shape.values())[0] for shape in kernel["input_type_shape"]], int(kernel["parameter_size"])


def model_of(node, x, y, **weights):
    value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    graph = helper.make_graph(
        [node],
        "g",
        [value("x", x)],
        [value("y", y)],
        [numpy_helper.from_array(np.ones(dims, "f4"), name) for name, dims in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model, {"x": np.ones(x, "f4")}


lstm = model_of(
    helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=8),
    [5, 1, 4],
    [5, 1, 1, 8],
    w=[1, 32, 4],
    r=[1, 32, 8],
    b=[1, 64],
)
product = model_of(helper.make_node("MatMul", ["x", "w"], ["y"]), [5, 4], [5, 8], w=[4, 8])
found = []
for title, case in (("LSTM", lstm), ("MatMul", product)):
    for packing in (True, False):
        found.append(profile(*case, packing))
        shapes, size = found[-1]
        print(f"{title}, {'packed (default)' if packing else 'not packed'}: inputs {shapes}, parameters {size} bytes")
sys.exit(
    0
    if found
    == [
        ([[5, 1, 4], [1, 64]], 256),
        ([[5, 1, 4], [1, 32, 4], [1, 32, 8], [1, 64]], 1792),
        ([[5, 4]], 0),
        ([[5, 4], [4, 8]], 128),
    ]
    else 1
)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
