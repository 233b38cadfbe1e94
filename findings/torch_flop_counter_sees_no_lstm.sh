#!/usr/bin/env bash
# 2026-11-30, torch 2.13.0 (CPU), CPython 3.11.
#
# Expected: torch.utils.flop_counter counts what a module multiplies, whichever way torch runs it; what it doesn't know
# it says.
# Seen: on a CPU an LSTM counts 0 and a GRU of the same size all of its products. scaled_dot_product_attention counts 0,
# too, and a TransformerEncoderLayer 5,120 in training mode (its linear layers without attention) and 0 in evaluation,
# the very same arithmetic: the counter watches single operators, and these run as one fused operator that isn't on its
# list. It stays silent. With oneDNN switched off the LSTM is counted. A budget of operations that is checked with it
# lets recurrent nets and transformers through for nothing. (x86-64; builds of torch without oneDNN's LSTM take the
# other path.)
#
# Prints the counts; exits 1 when the counter behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    torch==2.13.0 numpy
cat > "$folder/look.py" <<'PY'
import sys, warnings

warnings.simplefilter("ignore")
import torch
from torch.utils.flop_counter import FlopCounterMode


def flops(module, *inputs):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops()


steps, tokens, heads = torch.ones(5, 1, 8), torch.ones(1, 5, 8), torch.ones(1, 2, 16, 8)
layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
lstm = torch.nn.LSTM(8, 8)
found = {
    "LSTM": flops(lstm, steps),
    "GRU": flops(torch.nn.GRU(8, 8), steps),
    "attention": flops(torch.nn.functional.scaled_dot_product_attention, heads, heads, heads),
    "encoder layer, train()": flops(layer.train(), tokens),
    "encoder layer, eval()": flops(layer.eval(), tokens),
}
with torch.backends.mkldnn.flags(enabled=False):
    found["LSTM without oneDNN"] = flops(lstm, steps)
print(", ".join(f"{name} {count}" for name, count in found.items()))
print("by hand: LSTM", 2 * 5 * 32 * (8 + 8), "GRU", 2 * 5 * 24 * (8 + 8), "attention", 2 * 2 * 2 * 16 * 16 * 8)
sys.exit(0 if list(found.values()) == [0, 3840, 0, 5120, 0, 5120] else 1)
PY
cd "$folder" && "$folder/venv/bin/python" look.py
