#!/usr/bin/env bash
# 2026-11-30, onnxruntime 1.31.1 with onnx 1.23.2, CPython 3.11.
#
# Expected: one GroupNormalization node, with fixed sizes and constant weights, is one kernel as LayerNormalization and
# InstanceNormalization are, or the five of the form that torch's exporter writes at opset 20 (Reshape,
# InstanceNormalization, Reshape, Mul, Add).
# Seen: it runs as 29 kernels. The runtime has no kernel for it on a CPU and writes out the standard's function, where
# all sizes are computed anew from Shape; four Shape, seven Reshape and five Cast are still there at the highest level
# of optimisation, although the input's sizes are fixed. That form gives the same numbers. For small nets the number of
# kernels is the time: an exporter's step to the exact operator makes a net slower, and its nodes can't be counted from
# the file.
#
# Prints both forms' kernels; exits 1 when the runtime behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.31.1 numpy
cat > "$folder/look.py" <<'PY'
import collections, json, sys
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


value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 4, 4])
node, random = helper.make_node, np.random.default_rng(0)
scale, shift = random.standard_normal((2, 8)).astype("f4")
arrays = {
    "scale": scale,
    "shift": shift,
    "one": np.ones(2, "f4"),
    "zero": np.zeros(2, "f4"),
    "groups": np.array([0, 2, -1]),
    "image": np.array([1, 8, 4, 4]),
    "scale4": scale.reshape(8, 1, 1),
    "shift4": shift.reshape(8, 1, 1),
}
forms = {
    "operator": [node("GroupNormalization", ["x", "scale", "shift"], ["y"], num_groups=2)],
    "five nodes": [
        node("Reshape", ["x", "groups"], ["g"]),
        node("InstanceNormalization", ["g", "one", "zero"], ["n"]),
        node("Reshape", ["n", "image"], ["i"]),
        node("Mul", ["i", "scale4"], ["m"]),
        node("Add", ["m", "shift4"], ["y"]),
    ],
}
feed, found = {"x": random.standard_normal((1, 8, 4, 4)).astype("f4")}, []
for form, nodes in forms.items():
    used = {name for n in nodes for name in n.input} & set(arrays)
    graph = helper.make_graph(
        nodes, "g", [value("x")], [value("y")], [numpy_helper.from_array(arrays[name], name) for name in sorted(used)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    found.append(run(model, feed, Level.ORT_ENABLE_ALL))
    kernels = collections.Counter(found[-1][1])
    print(f"{form}: {kernels.total()} kernels,", *(f"{count} {name}" for name, count in kernels.most_common()))
(written_out, many), (older, few) = found
sys.exit(0 if len(many) == 29 and len(few) == 5 and np.allclose(written_out, older, atol=1e-5) else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
