"""Error of a calibrated cost model on networks of its space that it has never seen.

Calibrates on blocks and a few whole networks, then measures others twice. Printed: the measurement's own noise (how
far two measurements of a network differ), the predictions' mean absolute percentage error, the worst one, the rank
correlation, and how many of the 90 % intervals hold the measurement.
"""

import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import REPOSITORY, summary
from options import begin, changes, file_path, option, positive
from scipy.stats import spearmanr

from latency_models.timing.meter import LatencyMeter
from pipeline.cli.console import TerminalReporter
from pipeline.config.device import device_of
from pipeline.config.file import load_config
from pipeline.costs.calibration import Calibrator
from pipeline.costs.predictor_file import Scope, read
from pipeline.costs.target import Target
from pipeline.search import load_inputs

_LOOK_S = 0.4


def main() -> None:
    arguments = begin(
        __doc__,
        file_path("--config", REPOSITORY / "configs" / "bench-convnet.yaml"),
        changes(),
        positive("--nets", 60, "to be predicted and measured"),
        option("--calibration-nets", text="as many as `hwnas calibrate` takes by default", type=int),
        option("--seconds", text="of the calibration, likewise", type=float),
    )
    config = load_config(arguments.config, arguments.changes)
    data, space = load_inputs(config, str(arguments.config))
    device = device_of(config.device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cost.json"
        calibrator = Calibrator(config, data, space, TerminalReporter())
        calibration = calibrator.run(seconds=arguments.seconds, nets=arguments.calibration_nets, output=path)
        with LatencyMeter(device) as meter:
            model = read(path, space, Scope.of(config, data, meter))
            target = Target(meter)
            rng = random.Random(config.seed + 1)
            torch.manual_seed(1)
            rows = []
            for _ in range(arguments.nets):
                architecture = space.at(rng.randrange(space.size()))
                graph = target.graph_of(space.build(architecture), data.input_shape)
                costs = target.counted(graph)
                repeats = [
                    meter.measure(graph.content, budget_s=_LOOK_S, target_half_width=0.002).latency_ms for _ in range(2)
                ]
                model.predict(architecture, costs)
                began = time.perf_counter()
                found = model.predict(architecture, costs)
                rows.append((repeats, found, time.perf_counter() - began))
    print(f"\n{calibration.description}; blocks {calibration.probe_seconds:.0f} s")
    print(f"held-out blocks: median {calibration.held_out[0]:.2%}, 90th percentile {calibration.held_out[1]:.2%}")
    _print_figures(rows, device.precision)


def _print_figures(rows: list[Any], precision: str) -> None:
    repeats = np.array([row[0] for row in rows])
    measured = repeats.mean(axis=1)
    predicted = np.array([row[1].latency_ms for row in rows])
    errors = predicted / measured - 1.0
    noise = float(np.abs(repeats[:, 0] / repeats[:, 1] - 1.0).mean())
    held = np.mean([row[1].low_ms <= ms <= row[1].high_ms for row, ms in zip(rows, measured, strict=True)])
    width = np.mean([(row[1].high_ms - row[1].low_ms) / 2 / row[1].latency_ms for row in rows])
    print(f"{len(rows)} unknown networks of {measured.min():.3g} to {measured.max():.3g} ms; bias {errors.mean():+.2%}")
    print(f"noise floor: two measurements of a network differ by {noise:.2%} on average")
    goal = "≤ 4 %" if precision == "int8" else f"≤ {noise + 0.01:.2%}, the noise floor and 1 point"
    summary("MAPE", f"{np.abs(errors).mean():.2%}", goal)
    summary("within ±10 %", f"{np.mean(np.abs(errors) <= 0.1):.1%}, worst {np.abs(errors).max():.2%}", "100 %")
    summary("Spearman", f"{spearmanr(predicted, measured)[0]:.4f}", "≥ 0.99")
    summary("90 % intervals that hold the measurement", f"{held:.1%} (± {width:.1%} wide)", "85–95 %")
    summary("one prediction", f"{1000 * np.median([row[2] for row in rows]):.2f} ms", "< 1 ms")


if __name__ == "__main__":
    main()
