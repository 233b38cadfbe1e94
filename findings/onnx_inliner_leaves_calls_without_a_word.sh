#!/usr/bin/env bash
# 2026-11-30, onnx 1.23.2 with onnxruntime 1.31.1, CPython 3.11.
#
# Expected: onnx.inliner.inline_local_functions returns a model without local functions, or raises; a domain that a
# function only lists is of no matter.
# Seen: a function whose list of opsets differs from the model's in any domain stays a call, without a message: one that
# lists a domain that none of its nodes uses, at version 1 where the model has 2, as much as one of opset 16 in a model
# of 17. Others of the same model are inlined. With convert_version=True the standard's opset is converted, but the
# unused domain still keeps its function. The result is valid and the runtime runs it, so that only who walks the nodes
# notices: an unknown operator in place of its body, whose cost and weights count as nothing. Look for calls that are
# left over after inlining.
#
# Prints the nodes after inlining; exits 1 when the inliner behaves otherwise.
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


def inlined(body_opset, listed, convert):
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])
    domain = helper.make_opsetid
    plain = helper.make_function(
        "local", "Same", ["a"], ["b"], [helper.make_node("Abs", ["a"], ["b"])], [domain("", 17)]
    )
    twice = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [domain("", body_opset), *(domain("spare", version) for version in listed)],
    )
    nodes = [
        helper.make_node("Same", ["x"], ["c"], domain="local"),
        helper.make_node("Twice", ["c"], ["y"], domain="local"),
    ]
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")])
    model = helper.make_model(
        graph,
        functions=[plain, twice],
        ir_version=8,
        opset_imports=[domain("", 17), domain("local", 1), domain("spare", 2)],
    )
    onnx.checker.check_model(model, full_check=True)
    result = onnx.inliner.inline_local_functions(model, convert)
    onnx.checker.check_model(result)
    (y,) = onnxruntime.InferenceSession(result.SerializeToString()).run(None, {"x": np.ones(2, "f4")})
    assert (y == 2).all()
    return [node.op_type for node in result.graph.node]


onnxruntime.set_default_logger_severity(3)
found = []
for title, *case in (
    ("all alike", 17, [], False),
    ("unused domain at 1, model has 2", 17, [1], False),
    ("the same, converting", 17, [1], True),
    ("opset 16, model has 17", 16, [], False),
    ("the same, converting", 16, [], True),
):
    found.append(inlined(*case))
    print(f"{title}:", *found[-1])
sys.exit(0 if found == [["Abs", "Add"], ["Abs", "Twice"], ["Abs", "Twice"], ["Abs", "Twice"], ["Abs", "Add"]] else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
