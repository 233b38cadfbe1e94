"""The memory of a process that only loads a model and runs it, as a deployment would."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from latency_models import timer
from latency_models.counters.unavailable import Unavailable
from latency_models.devices.device import ONNXRUNTIME
from latency_models.graph.model_file import model_label

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from latency_models.devices.device import Device

_RUNS = 3
LIMIT_S = 300.0
STATUS_FILE = Path("/proc/self/status")
# As little as a deployment needs: any other import would be counted too.
SCRIPT = """
import json, sys
import numpy, onnxruntime
asked = json.loads(sys.stdin.read())
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = asked["threads"]
options.inter_op_num_threads = 1
options.log_severity_level = 3
providers = [each if isinstance(each, str) else tuple(each) for each in asked["providers"]]
session = onnxruntime.InferenceSession(asked["model"], options, providers=providers, enable_fallback=0)
feed = dict(zip(asked["names"], numpy.load(asked["inputs"]).values())) if asked["inputs"] else {}
for declared in () if feed else session.get_inputs():
    kind = declared.type[len("tensor("):-1]
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    shape = [size if isinstance(size, int) else asked["batch_size"] for size in declared.shape]
    feed[declared.name] = numpy.full(shape, 0, dtype)  # written, so that it is there
for _ in range(asked["runs"]):
    session.run(None, feed)
with open("/proc/self/status") as status:
    peak = next(line for line in status if line.startswith("VmHWM:"))
print(int(peak.split()[1]) * 1024)
"""


@dataclass(frozen=True)
class Footprint:
    """Peak resident memory of a fresh process that runs a model.

    `bytes` is all of it, the interpreter and the runtime included; `model_bytes` is without the memory of the same
    process with the smallest model.
    """

    bytes: int
    model_bytes: int


def footprint_of(
    model: Path | bytes, device: Device, inputs: Mapping[str, np.ndarray] | None = None
) -> Footprint | Unavailable:
    """The peak resident memory (VmHWM) of a process that loads `model` with ONNX Runtime and runs it a few times.

    `inputs` are input arrays by name; by default they are zeros at the device's batch size. The process loads only
    numpy and ONNX Runtime. It takes about half a second, twice for the first model.
    """
    if not STATUS_FILE.exists():
        return Unavailable("this system has no /proc, where a process's peak memory stands")
    if device.host is not None:
        return Unavailable(f"it is on another host ({device.host}), whose processes aren't looked into")
    if device.runtime != ONNXRUNTIME:
        return Unavailable(f"the device runs models with {device.runtime}, which is no deployment's runtime")
    whole = _peak_bytes(model, device, inputs)
    if isinstance(whole, Unavailable):
        return whole
    empty = _smallest_bytes(device)
    if isinstance(empty, Unavailable):
        return empty
    return Footprint(bytes=whole, model_bytes=max(0, whole - empty))


@cache
def _smallest_bytes(device: Device) -> int | Unavailable:
    """The peak memory of a process with the smallest model."""
    return _peak_bytes(smallest_model(), device, None)


@cache
def smallest_model() -> bytes:
    """A serialised model that does next to nothing: one Relu of one number."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "smallest", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_operatorsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _peak_bytes(model: Path | bytes, device: Device, inputs: Mapping[str, np.ndarray] | None) -> int | Unavailable:
    with tempfile.TemporaryDirectory() as folder:
        path = model if isinstance(model, Path) else Path(folder) / "model.onnx"
        if isinstance(model, bytes):
            path.write_bytes(model)
        arrays = None
        if inputs:
            import numpy as np

            arrays = Path(folder) / "inputs.npz"
            np.savez(arrays, *inputs.values())
        return _asked(path, device, model_label(model), arrays, list(inputs or ()))


def _asked(path: Path, device: Device, label: str, inputs: Path | None, names: list[str]) -> int | Unavailable:
    question = {
        "model": str(path.absolute()),
        "inputs": None if inputs is None else str(inputs),
        "names": names,
        "threads": device.threads,
        "batch_size": device.batch_size,
        "runs": _RUNS,
        "providers": timer.providers(device.provider, dict(device.provider_options)),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", SCRIPT],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Unavailable(f"a fresh process did not run {label} within {LIMIT_S:.0f} s")
    except OSError as error:
        return Unavailable(f"no fresh process can be started: {error}")
    if done.returncode != 0 or not done.stdout.strip().isdecimal():
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return Unavailable(f"a fresh process failed on {label}: {said[-1][:300]}")
    return int(done.stdout)
