#!/usr/bin/env bash
# 2026-11-30, nni 3.0 with torch 2.13.0 and pytorch-lightning 2.6.6, CPython 3.11.
#
# Expected: NNI_FRAMEWORK=none, which NNI documents as switching off its framework shortcuts, gives multi-trial search
# (`nni.nas.strategy.RegularizedEvolution`) without Lightning, which only one-shot strategies and evaluators use.
# Seen: `nni.nas.evaluator` alone leaves Lightning out with that setting and imports it without, as documented. But the
# package `nni.nas.strategy` imports its one-shot strategies in any case, and they import Lightning, so that about
# half of the process's start goes into what is never used. It guards that import against ImportError alone: where
# Lightning's import ends in another error, as beside a torchvision that was built for another torch, a search that
# needs neither can't start.
#
# Prints what was imported; exits 1 when NNI behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    nni==3.0 torch==2.13.0 pytorch-lightning==2.6.6 'setuptools<81' numpy
cat > "$folder/look.py" <<'PY'
import importlib, sys, time, warnings
warnings.simplefilter("ignore")
import torch
began = time.process_time()
importlib.import_module(sys.argv[1])
print(sys.argv[1], "lightning" if "pytorch_lightning" in sys.modules else "no lightning",
      f"{time.process_time() - began:.1f} s after torch")
PY
cd "$folder"
look() { "$folder/venv/bin/python" -W ignore look.py "$1" 2> errors || { tail -3 errors; exit 1; }; }
with_default=$(look nni.nas.evaluator)
evaluator=$(NNI_FRAMEWORK=none look nni.nas.evaluator)
strategy=$(NNI_FRAMEWORK=none look nni.nas.strategy)
printf 'default:            %s\nNNI_FRAMEWORK=none: %s\nNNI_FRAMEWORK=none: %s\n' "$with_default" "$evaluator" "$strategy"
[[ $with_default == *" lightning"* && $with_default != *"no lightning"* ]] || exit 1
[[ $evaluator == *"no lightning"* ]] || exit 1
[[ $strategy == *" lightning"* && $strategy != *"no lightning"* ]] || exit 1
