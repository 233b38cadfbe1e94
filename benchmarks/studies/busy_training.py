"""How OpenMP's way of waiting decides what training costs on an idle and on a busy machine.

A finished study, not maintained. Found: idle 2.40 s with OpenMP's default, 2.17 s with the spin count that `hwnas`
sets, 5.07 s with passive waiting; beside one busy process a core 18.9, 9.0 and 9.8 s. So `hwnas` sets the spin count.

Trains one small net on the digits for three epochs in fresh processes: with OpenMP's default, with the spin count that
`hwnas` sets, and with passive waiting; idle, and beside one busy process for each core. Run it as
`.venv/bin/python benchmarks/studies/busy_training.py` on an idle machine; it takes about two minutes.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for common.py

from common import heading, spread, summary
from options import option, parsed, positive

POLICIES = {
    "OpenMP's default": {},
    "GOMP_SPINCOUNT=20000 (hwnas)": {"GOMP_SPINCOUNT": "20000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
}
BUSY = "import time; end = time.time() + 600\nwhile time.time() < end: pass"


def train_once() -> None:
    """In a child process: print the seconds of three epochs."""
    import torch

    from pipeline.config.data import DigitsOptions
    from pipeline.config.run import TrainOptions
    from pipeline.config.space import ConvNetOptions
    from pipeline.data import load_data
    from pipeline.evaluators.device_data import DeviceData
    from pipeline.evaluators.training import train
    from pipeline.spaces.convnet import ConvNetSpace

    data = load_data(DigitsOptions(name="digits"))
    space = ConvNetSpace(ConvNetOptions(name="convnet", width=8), data.input_shape, len(data.classes))
    torch.manual_seed(0)
    model = space.build(space.at(space.size() // 3))
    on_device = DeviceData(data)
    began = time.perf_counter()
    train(model, on_device, TrainOptions(batch_size=32), epochs=3)
    print(time.perf_counter() - began)


def seconds(policy: dict[str, str]) -> float:
    """Of one training in a fresh process."""
    clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    command = [sys.executable, __file__, "--child"]
    done = subprocess.run(command, env={**clean, **policy}, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    hidden = option("--child", False, argparse.SUPPRESS, action="store_true")
    options = parsed(__doc__, positive("--repeats", 3), hidden)
    if options.child:
        train_once()
        return
    heading(__doc__)
    for state in ("idle", "busy"):
        hogs = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1) if state == "busy"]
        try:
            found = {name: [] for name in POLICIES}
            for _ in range(options.repeats):
                for name, policy in POLICIES.items():
                    found[name].append(seconds(policy))
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()
        for name, values in found.items():
            summary(f"{state}, {name}", f"{spread(values, 2)} s", "none set")


if __name__ == "__main__":
    main()
