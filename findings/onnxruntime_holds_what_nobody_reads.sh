#!/usr/bin/env bash
# 2026-11-30, onnxruntime 1.31.1 with onnx 1.23.2, CPython 3.11.
#
# Expected: an output that no node reads (the second half of a Split, of which only the first is used) is freed at once.
# Seen: it stays allocated to the end of the run: buffers are given back after their last reader, and this one has none.
# No optimisation replaces the Split either. The same half taken by a Slice needs 4 KB less at every later kernel, a
# third of the peak here. Memory plans made from the graph by lifetimes are too low by such outputs, and pruning away
# the readers of a tensor doesn't free it.
#
# Prints the bytes in use after each kernel; exits 1 when the runtime behaves otherwise.
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


def in_use(first, arrays):
    value = lambda name, size: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
    names = ["half", "a", "b", "c", "y"]
    nodes = [first, *(helper.make_node("Softplus", [names[i]], [names[i + 1]]) for i in range(4))]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", 2048)],
        [value("y", 1024)],
        [numpy_helper.from_array(np.array(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, "profile"
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.ones((1, 2048), "f4")})
    events = json.load(open(session.end_profiling()))
    kernels = [e["args"] for e in events if e["name"].endswith("_kernel_time")]
    print(", ".join(f"{k['op_name']} {k['mem_bytes_requested_in_use']}" for k in kernels))
    constants = sum(np.array(array).nbytes for array in arrays.values())
    return [int(k["mem_bytes_requested_in_use"]) - constants for k in kernels]


split = in_use(helper.make_node("Split", ["x"], ["half", "rest"], axis=1, num_outputs=2), {})
slice_ = in_use(
    helper.make_node("Slice", ["x", "from", "to", "axis"], ["half"]), {"from": [0], "to": [1024], "axis": [1]}
)
sys.exit(0 if split == [8192] * 4 + [12288] and slice_ == [4096] * 4 + [8192] else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
