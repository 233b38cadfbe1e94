"""Latency of ONNX files that nobody fitted anything to: predicted from operators, against measured.

    python benchmarks/predict_files.py [--rebuild] [--seconds 1] [FILE.onnx …]

Without files: those of the shared data, and five networks of torchvision with random weights, exported at 224². The
cost model of operators comes from the user's data folder; it is built first where there is none for this environment
(about 90 s), or anew with --rebuild. Each file is then measured for --seconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from common import SHARED, heading, summary, table

from latency_models.devices.resolve import resolve_device
from latency_models.file_predictor import FilePredictor, PredictorStore
from latency_models.timing.meter import LatencyMeter

_FILES = SHARED / "data" / "onnx_models"
_TORCHVISION = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "efficientnet_b0")
_SIDE = 224


def main() -> None:
    """Predict, measure, print."""
    arguments = _arguments()
    heading(__doc__)
    device = resolve_device("cpu", arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        files = arguments.files or [*sorted(_FILES.glob("*.onnx")), *_exported(Path(folder))]
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
        "measured ms": f"{measured.latency_ms:.4g} ({measured.low_ms:.4g} to {measured.high_ms:.4g})",
        "predicted ms": f"{predicted.latency_ms:.4g} ({predicted.low_ms:.4g} to {predicted.high_ms:.4g})",
        "error": f"{error:+.1%}",
        "inside": "yes" if inside else "no",
        "took": f"{took_s:.2f} s",
        "unknown": ", ".join(predicted.unknown),
    }
    return row, error, inside


def _exported(folder: Path) -> list[Path]:
    import torch

    from export.exporter.onnx_export import export_model
    from pipeline.shims import import_torchvision

    models = import_torchvision().models
    paths = []
    for name in _TORCHVISION:
        torch.manual_seed(0)
        path = folder / f"{name}.onnx"
        network = getattr(models, name)(weights=None).eval()
        path.write_bytes(export_model(network, torch.randn(1, 3, _SIDE, _SIDE)).SerializeToString())
        paths.append(path)
    return paths


def _progress(done: int, of: int) -> None:
    if done % 100 == 0 or done == of:
        print(f"  timed {done} of {of}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="instead of the shared files and torchvision's networks")
    parser.add_argument("--rebuild", action="store_true", help="time the micro-benchmarks again")
    parser.add_argument("--seconds", type=float, default=1.0, help="to measure a file (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of an inference (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
