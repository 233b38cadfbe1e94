"""Latency of ONNX files that nobody fitted anything to: predicted from operators, against measured.

Without files: those of the shared data and the networks of judged_networks.py, exported with random weights. The cost
model of operators comes from the user's data folder; it is built first where there is none for this environment (about
three minutes), or anew with --rebuild. Each file is then measured for --seconds. Run it on an idle machine.
"""

import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import interval, summary, table
from judged_networks import JudgedFile, judged_files
from options import amount, begin, file_path, flag, positive

from latency_models.devices.device import Device
from latency_models.devices.resolve import resolve_device
from latency_models.errors import CostError
from latency_models.file_predictor import FilePredictor, PredictorStore
from latency_models.graph.model_file import parse
from latency_models.graph.model_inputs import GivenInputs, model_inputs
from latency_models.timing.meter import LatencyMeter

_NEAR = 0.2
_GOAL = 0.85


@dataclass(frozen=True)
class _Judged:
    row: dict[str, str]
    error: float
    inside: bool


def main() -> None:
    arguments = begin(
        __doc__,
        file_path("files", text="instead of the shared files and made networks", nargs="*"),
        flag("--rebuild", "time the micro-benchmarks again"),
        amount("--seconds", 2.0, "to measure a file"),
        positive("--threads", 1, "of an inference"),
    )
    device = resolve_device("cpu", arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        before = time.perf_counter()
        predictor = PredictorStore().predictor(device, rebuild=arguments.rebuild, progress=_progress)
        print(f"{predictor.measurements} micro-benchmarks, ready after {time.perf_counter() - before:.0f} s\n")
        given = [JudgedFile(path) for path in arguments.files]
        files: Iterable[JudgedFile] = given or judged_files(Path(folder))
        with LatencyMeter(device) as meter:
            judged = [_judge(file, device, predictor, meter, arguments.seconds) for file in files]
    table([each.row for each in judged])
    print()
    near = sum(abs(each.error) <= _NEAR for each in judged)
    held = sum(each.inside for each in judged)
    sizes = [abs(each.error) for each in judged if each.error == each.error]
    of = len(judged)
    summary(f"within ±{_NEAR:.0%} of the measurement", f"{near} of {of}, {near / of:.0%}", f"{_GOAL:.0%}")
    summary("measurements inside of the 90 % intervals", f"{held} of {of}, {held / of:.0%}", f"{_GOAL:.0%}")
    summary("largest error", f"{max(sizes):.1%}, mean {statistics.mean(sizes):.1%}", "none")


def _judge(file: JudgedFile, device: Device, predictor: FilePredictor, meter: LatencyMeter, seconds: float) -> _Judged:
    given = GivenInputs(dict(file.shapes))
    measured = meter.measure(file.path, budget_s=seconds, inputs=_fed(file.path, device, given))
    row = {
        "file": file.path.name,
        "predicted ms": "",
        "measured ms": interval(measured.latency_ms, measured.low_ms, measured.high_ms, ".4g"),
        "ratio": "",
        "inside": "no",
        "took": "",
        "unknown": "",
    }
    before = time.perf_counter()
    try:
        predicted = predictor.predict(file.path, given)
    except CostError as error:
        return _Judged({**row, "unknown": str(error)}, float("nan"), inside=False)
    inside = predicted.low_ms <= measured.latency_ms <= predicted.high_ms
    ratio = predicted.latency_ms / measured.latency_ms
    row |= {
        "predicted ms": interval(predicted.latency_ms, predicted.low_ms, predicted.high_ms, ".4g"),
        "ratio": f"{ratio:.3f}",
        "inside": "yes" if inside else "no",
        "took": f"{time.perf_counter() - before:.2f} s",
        "unknown": ", ".join(predicted.unknown),
    }
    return _Judged(row, ratio - 1.0, inside)


def _fed(path: Path, device: Device, given: GivenInputs) -> Mapping[str, np.ndarray] | None:
    """The arrays that a file is run with; None where the meter makes up the very same ones itself."""
    return model_inputs(parse(path), str(path), device.batch_size, given).fed()


def _progress(done: int, of: int) -> None:
    if done % 100 == 0 or done == of:
        print(f"  timed {done} of {of}", flush=True)


if __name__ == "__main__":
    main()
