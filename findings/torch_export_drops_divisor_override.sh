#!/usr/bin/env bash
# 2026-11-30, torch 2.13.0 (CPU) with onnxscript 0.7.2, onnx 1.23.2 and onnxruntime 1.31.1, CPython 3.11.
#
# Expected: torch.onnx.export exports a module's arithmetic, or raises where ONNX has no attribute for an argument.
# Seen: the exporter (dynamo=True) writes AvgPool2d(2, divisor_override=1), a sum over windows, as a plain AveragePool:
# the outputs are a quarter of torch's. No error, no warning. Sums, or averages over the cells of a mask, that are
# written that way come out on another scale, which a later normalisation may hide. Compare an exported file's outputs
# with the module's, each time.
#
# Prints both sums; exits 1 when the exporter behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 onnxscript==0.7.2 onnx==1.23.2 onnxruntime==1.31.1 numpy
cat > "$folder/look.py" <<'PY'
import sys, warnings
import numpy as np, onnxruntime, torch


class Sums(torch.nn.Module):
    def __init__(self, divisor):
        super().__init__()
        self.pool = torch.nn.AvgPool2d(2, divisor_override=divisor)

    def forward(self, x):
        return self.pool(x)


x, found = torch.ones(1, 1, 4, 4), []
for divisor in (None, 1):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = Sums(divisor).eval()
        program = torch.onnx.export(module, (x,), dynamo=True, opset_version=20, verbose=False)
    said = [str(warning.message) for warning in caught if "divisor" in str(warning.message)]
    model = program.model_proto
    (result,) = onnxruntime.InferenceSession(model.SerializeToString()).run(
        None, {model.graph.input[0].name: x.numpy()}
    )
    found.append((float(module(x)[0, 0, 0, 0]), float(result[0, 0, 0, 0])))
    print(
        f"divisor_override={divisor}: torch {found[-1][0]}, exported {found[-1][1]}, nodes",
        *(node.op_type for node in model.graph.node),
        "| warnings about it:",
        len(said),
    )
sys.exit(0 if found == [(1, 1), (4, 1)] and not said else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
