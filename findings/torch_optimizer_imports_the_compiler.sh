#!/usr/bin/env bash
# 2026-11-30, torch 2.13.0 (CPU), CPython 3.11.
#
# Expected: making a plain optimizer, without torch.compile anywhere, costs next to nothing.
# Seen: the first optimizer of a process imports torch._dynamo, torch.fx and sympy (some 700 modules): about as many
# seconds of processor time as `import torch` itself, 1.3 s here. Later optimizers take well under a millisecond. It
# matters where many short-lived processes train small networks, and where the first step is timed.
#
# Prints modules and seconds; exits 1 when torch behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat > "$folder/look.py" <<'PY'
import sys, time
began = time.process_time()
import torch
imported = time.process_time() - began
weight = torch.nn.Parameter(torch.zeros(2))
before, compiler = set(sys.modules), "torch._dynamo" in sys.modules
took = []
for _ in range(2):
    began = time.process_time()
    torch.optim.SGD([weight], lr=0.1)
    took.append(time.process_time() - began)
print(f"import torch: {imported:.2f} s; first optimizer: {took[0]:.2f} s, {len(set(sys.modules) - before)} modules; "
      f"second: {1000 * took[1]:.2f} ms")
sys.exit(0 if not compiler and "torch._dynamo" in sys.modules and took[0] > 20 * took[1] else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
