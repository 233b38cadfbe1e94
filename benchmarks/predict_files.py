"""Latency of ONNX files that nobody fitted anything to: predicted from operators, against measured.

Without files: those of the shared data, and five networks of torchvision with random weights, exported at 224². The
cost model of operators comes from the user's data folder; it is built first where there is none for this environment
(about 90 s), or anew with --rebuild. Each file is then measured for --seconds.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import interval, summary, table
from networks import TORCHVISION, published_files, torchvision_net
from options import amount, begin, file_path, flag, positive

from export.exporter.onnx_export import export_model
from latency_models.devices.resolve import resolve_device
from latency_models.file_predictor import FilePredictor, PredictorStore
from latency_models.timing.meter import LatencyMeter

_SIDE = 224


def main() -> None:
    arguments = begin(
        __doc__,
        file_path("files", text="instead of the shared files and torchvision's networks", nargs="*"),
        flag("--rebuild", "time the micro-benchmarks again"),
        amount("--seconds", 1.0, "to measure a file"),
        positive("--threads", 1, "of an inference"),
    )
    device = resolve_device("cpu", arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        files = arguments.files or [*published_files(), *_exported(Path(folder))]
        before = time.perf_counter()
        predictor = PredictorStore().predictor(device, rebuild=arguments.rebuild, progress=_progress)
        print(f"{predictor.measurements} micro-benchmarks, ready after {time.perf_counter() - before:.0f} s\n")
        with LatencyMeter(device) as meter:
            rows = [_row(file, predictor, meter, arguments.seconds) for file in files]
    table([row for row, _, _ in rows])
    errors = [error for _, error, _ in rows]
    near, held = sum(abs(error) <= 0.2 for error in errors), sum(inside for _, _, inside in rows)
    print()
    summary("within ±20 % of the measurement", f"{near} of {len(rows)}", "80 %")
    summary("largest error", f"{max(map(abs, errors)):.1%}, mean {statistics.mean(map(abs, errors)):.1%}", "none")
    summary("measurements inside of the 90 % intervals", f"{held} of {len(rows)}", "about 90 %")


def _row(
    file: Path, predictor: FilePredictor, meter: LatencyMeter, seconds: float
) -> tuple[dict[str, str], float, bool]:
    before = time.perf_counter()
    predicted = predictor.predict(file)
    took_s = time.perf_counter() - before
    measured = meter.measure(file, budget_s=seconds)
    error = predicted.latency_ms / measured.latency_ms - 1.0
    inside = predicted.low_ms <= measured.latency_ms <= predicted.high_ms
    row = {
        "file": file.name,
        "measured ms": interval(measured.latency_ms, measured.low_ms, measured.high_ms, ".4g"),
        "predicted ms": interval(predicted.latency_ms, predicted.low_ms, predicted.high_ms, ".4g"),
        "error": f"{error:+.1%}",
        "inside": "yes" if inside else "no",
        "took": f"{took_s:.2f} s",
        "unknown": ", ".join(predicted.unknown),
    }
    return row, error, inside


def _exported(folder: Path) -> list[Path]:
    paths = []
    for name in TORCHVISION:
        torch.manual_seed(0)
        network = torchvision_net(name)
        paths.append(folder / f"{name}.onnx")
        paths[-1].write_bytes(export_model(network, torch.randn(1, 3, _SIDE, _SIDE)).SerializeToString())
    return paths


def _progress(done: int, of: int) -> None:
    if done % 100 == 0 or done == of:
        print(f"  timed {done} of {of}", flush=True)


if __name__ == "__main__":
    main()
