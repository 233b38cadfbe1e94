#!/usr/bin/env bash
# 2026-11-30, onnxruntime 1.31.1 with onnx 1.23.2, CPython 3.11.
#
# Expected: a float32 Sigmoid is about exp(x) far on the left: 2e-9 at -20, and 0 only below -103, where float32 ends.
# Seen: it is exactly 0 at -18 and below, so Log(Sigmoid(x)), which torch.nn.LogSigmoid is exported as, is minus
# infinity at -20 where it should be -20. The kernel cuts its input off at 18 and takes a rational approximation whose
# error is absolute (1e-7): relative to the value the error is over 1 % at -13 already. A float64 model isn't the way
# out either: at -87 its Sigmoid is 0, and off by 1e-3 at -30. For the logarithm, -Softplus(-x) is right at all of them.
# Who rewrites an activation by way of Sigmoid has to mind the tail. (Tried on x86-64; other processors have other
# kernels.)
#
# Prints values from -13 to -87; exits 1 when the runtime behaves otherwise.
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


def values(x, *operators):
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    names = ["x", *(f"v{i}" for i in range(len(operators)))]
    nodes = [helper.make_node(name, [names[i]], [names[i + 1]]) for i, name in enumerate(operators)]
    value = lambda name: helper.make_tensor_value_info(name, kind, x.shape)
    graph = helper.make_graph(nodes, "g", [value("x")], [value(names[-1])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


x = np.array([-13, -20, -30, -87], "f4")
true = 1 / (1 + np.exp(-x.astype("f8")))
single, double = values(x, "Sigmoid"), values(x.astype("f8"), "Sigmoid")
logarithm, softplus = values(x, "Sigmoid", "Log"), values(x, "Neg", "Softplus", "Neg")
for i, at in enumerate(x):
    print(
        f"at {at:.0f}: Sigmoid {true[i]:.3e}, float32 {single[i]:.3e}, float64 {double[i]:.3e}; "
        f"Log(Sigmoid) {logarithm[i]:.2f}, -Softplus(-x) {softplus[i]:.2f}"
    )
sys.exit(
    0
    if (single[1:] == 0).all()
    and np.isneginf(logarithm[1:]).all()
    and abs(single[0] / true[0] - 1) > 0.01
    and abs(double[2] / true[2] - 1) > 1e-4
    and double[3] == 0
    and np.allclose(softplus, x, atol=1e-4)
    else 1
)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
