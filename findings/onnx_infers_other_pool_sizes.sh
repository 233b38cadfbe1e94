#!/usr/bin/env bash
# 2026-11-30, onnx 1.23.2 with onnxruntime 1.31.1, CPython 3.11.
#
# Expected: the sizes that onnx.shape_inference writes into a valid file are those that a runtime computes.
# Seen: with ceil_mode, onnx rounds up and stops there, although a last window that would lie wholly in the padding
# isn't made: below opset 22 it infers 3x3 where ONNX Runtime, and onnx's own reference evaluator, compute 2x2; since
# opset 22 it infers 2x2, too. The other way round with auto_pad=SAME_UPPER and dilations: ceil(7 / 2) = 4 is what the
# standard says, onnx infers and its reference computes, but ONNX Runtime pads as if there were no dilation and gives 3
# other numbers. Both run without an error. Counts of operations, memory plans and shapes that a quantiser writes into
# its file are wrong from there on; they have to come from a run.
#
# Prints the sizes by all three; exits 1 when one of them answers otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.31.1 numpy
cat > "$folder/look.py" <<'PY'
import sys
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def sizes(opset, x, **attributes):
    value = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)
    node = helper.make_node("MaxPool", ["x"], ["y"], **attributes)
    graph = helper.make_graph([node], "g", [value("x", x.shape)], [value("y", [f"d{i}" for i in range(x.ndim)])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph.output[0].type.tensor_type.shape
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return (
        tuple(d.dim_value for d in inferred.dim)[2:],
        ReferenceEvaluator(model).run(None, {"x": x})[0].shape[2:],
        session.run(None, {"x": x})[0].shape[2:],
    )


onnxruntime.set_default_logger_severity(3)
ceil = dict(kernel_shape=[2, 2], strides=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1)
dilated = dict(kernel_shape=[3], strides=[2], dilations=[2], auto_pad="SAME_UPPER")
found = []
for title, opset, dims, attributes in (
    ("ceil_mode, opset 21", 21, (1, 1, 4, 4), ceil),
    ("ceil_mode, opset 22", 22, (1, 1, 4, 4), ceil),
    ("SAME_UPPER with dilations, opset 22", 22, (1, 1, 7), dilated),
):
    found.append(sizes(opset, np.ones(dims, "f4"), **attributes))
    print(f"{title}: inferred {found[-1][0]}, reference {found[-1][1]}, runtime {found[-1][2]}")
sys.exit(0 if found == [((3, 3), (2, 2), (2, 2)), ((2, 2),) * 3, ((4,), (4,), (3,))] else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
