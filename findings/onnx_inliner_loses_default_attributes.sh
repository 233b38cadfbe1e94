#!/usr/bin/env bash
# 2026-11-30, onnx 1.23.2 with onnxruntime 1.31.1, CPython 3.11.
#
# Expected: writing out the functions that the standard gives for its operators (inline_selected_functions with
# inline_schema_functions=True) gives a graph that computes the same.
# Seen: where the function reads an attribute that the node leaves at its default (Swish's alpha, Elu's alpha), the
# body's Constant is left without any value. onnx.checker accepts a Constant with nothing in it, with its full check as
# well, and ONNX Runtime refuses to load the file. The default is used neither by the inliner nor noted: with the
# attribute written out in the node, the same call gives a file that runs. Most exporters leave defaults out. Write
# defaults into nodes before inlining, and don't take the checker's word.
#
# Prints what becomes of each; exits 1 when the inliner behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    onnx==1.23.2 onnxruntime==1.31.1 numpy
cat > "$folder/look.py" <<'PY'
import sys
import numpy as np, onnx, onnx.inliner, onnxruntime
from onnx import TensorProto, helper


def fate(operator, **attributes):
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])
    graph = helper.make_graph([helper.make_node(operator, ["x"], ["y"], **attributes)], "g", [value("x")], [value("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    run = lambda m: onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"x": np.array([-1, 2], "f4")})[0]
    result = onnx.inliner.inline_selected_functions(model, [("", operator)], inline_schema_functions=True)
    assert operator not in [node.op_type for node in result.graph.node]
    onnx.checker.check_model(result)
    empty = sum(node.op_type == "Constant" and not node.attribute for node in result.graph.node)
    try:
        loads = np.allclose(run(result), run(model), atol=1e-5)
    except Exception as error:
        loads = "no data attributes" not in str(error) and str(error)
    print(
        f"{operator} {attributes or 'as default'}: checker content, {empty} Constant without a value,",
        "same result" if loads is True else f"not loaded ({loads or 'Constant node has no data attributes'})",
    )
    return empty, loads


onnxruntime.set_default_logger_severity(4)
found = [fate("Swish"), fate("Swish", alpha=1.0), fate("Elu"), fate("Elu", alpha=1.0)]
sys.exit(0 if found == [(1, False), (0, True)] * 2 else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
