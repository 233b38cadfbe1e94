"""Gain of `hwnas optimize` on files that plain `torch.onnx.export` writes, and that it leaves published ones alone.

MobileNetV2 at 224² with one activation in all 35 places: exported by torch as it is, then rewritten; equality is judged
here once more, on inputs that the command doesn't use, in ONNX Runtime. Then every file under
$HWNAS_SHARED/data/onnx_models: never slower, and the same to 1e-5.
"""

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from common import SHARED, hwnas, summary
from networks import torchvision_net
from options import amount, begin, flag, some_of
from torch import nn

from latency_models.devices.resolve import resolve_device
from latency_models.runners.runner import session

_OPSET = 18  # torch's default, below that of the first Gelu
_RELATIVE = 1e-5
_GOAL = 6.5


class SpeltHardswish(nn.Module):
    """Hardswish in small operators, as older converters write it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) → the same."""
        return x * torch.clamp(x + 3.0, 0.0, 6.0) / 6.0


def _slopes(channels: int) -> nn.Module:
    prelu = nn.PReLU(channels)
    with torch.no_grad():
        prelu.weight.copy_(torch.linspace(0.0, 0.5, channels))
    return prelu


ACTIVATIONS = {
    "mish": lambda channels: nn.Mish(),
    "softplus": lambda channels: nn.Softplus(),
    "elu": lambda channels: nn.ELU(),
    "selu": lambda channels: nn.SELU(),
    "prelu_channel": _slopes,
    "gelu": lambda channels: nn.GELU(),
    "gelu_tanh": lambda channels: nn.GELU(approximate="tanh"),
    "hardswish_spelt": lambda channels: SpeltHardswish(),
    "relu6": lambda channels: nn.ReLU6(),
}


def exported(name: str, folder: Path) -> Path:
    """Torchvision's MobileNetV2 with that activation in place of every ReLU6, as torch writes it."""
    torch.manual_seed(0)
    network = torchvision_net("mobilenet_v2")
    _replace(network, ACTIVATIONS[name])
    _settle(network)
    path = folder / f"mobilenet_v2-{name}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch's exporter about torch
        torch.onnx.export(
            network,
            (torch.randn(1, 3, 224, 224),),
            str(path),
            dynamo=True,
            opset_version=_OPSET,
            external_data=False,
            verbose=False,
        )
    return path


def _settle(network: nn.Module) -> None:
    """Give batch norms the statistics of their inputs: else values die out, and only rounding is left to compare."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    network.train()
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(8, 3, 224, 224))
    network.eval()


def _replace(network: nn.Module, make: Any) -> None:
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                norm = next(each for each in reversed(list(module.children())) if isinstance(each, nn.BatchNorm2d))
                setattr(module, name, make(norm.num_features))


def optimized(path: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """The command's document about a file, the `difference_here` and how many times faster it is, `gain`."""
    output = folder / f"{path.stem}.optimized.onnx"
    result = json.loads(hwnas("optimize", path, "--output", output, "--seconds", seconds, "--json").stdout)
    gain = 1.0 / result["ratio"] if result["changed"] else 1.0
    return {**result, "difference_here": difference(path, output), "gain": gain}


def difference(old: Path, new: Path) -> float:
    """The largest difference of any output on fresh inputs, as a share of that output's largest value."""
    feed = session(old, resolve_device("cpu", 1, None, "fp32"), None).feed
    random = np.random.default_rng(99)
    sessions = [ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (old, new)]
    largest = 0.0
    for _ in range(3):
        inputs = {
            name: random.standard_normal(array.shape).astype(array.dtype) if array.dtype.kind == "f" else array
            for name, array in feed.items()
        }
        for expected, found in zip(*(each.run(None, inputs) for each in sessions), strict=True):
            size = float(np.abs(expected).max(initial=0.0))
            apart = float(np.abs(expected.astype(np.float64) - found.astype(np.float64)).max(initial=0.0))
            largest = max(largest, apart / size if size else apart)
    return largest


def _line(name: str, result: dict[str, Any]) -> str:
    interval = f"{result['ratio_low']:.3f} to {result['ratio_high']:.3f}" if result["ratio"] is not None else ""
    verdict = "" if result["changed"] else f"as it was: {result['reason']}"
    return f"{name:32} {result['gain']:6.2f}×  {interval:16} {result['difference_here']:8.1e}  {verdict}"


def main() -> None:
    arguments = begin(
        __doc__,
        some_of("--only", ACTIVATIONS),
        amount("--seconds", 8.0, "of timing for each file"),
        flag("--no-published", "leave the published files out"),
    )
    print(f"{'file':32} {'gain':>7}  {'ratio, 95 %':16} {'differs':>8}")
    published = [] if arguments.no_published else sorted((SHARED / "data" / "onnx_models").rglob("*.onnx"))
    with tempfile.TemporaryDirectory() as name:
        gains, others = {}, []
        for activation in arguments.only:
            path = exported(activation, Path(name))
            gains[activation] = optimized(path, Path(name), arguments.seconds)
            print(_line(path.stem, gains[activation]), flush=True)
        for path in published:
            others.append(optimized(path, Path(name), arguments.seconds))
            print(_line(path.name, others[-1]), flush=True)
    print()
    if "mish" in gains:
        summary("mobilenet_v2 with mish, times faster", f"{gains['mish']['gain']:.2f}", f"at least {_GOAL}")
    apart = [each["difference_here"] for each in (*gains.values(), *others)]
    summary("files whose outputs differ by more than 1e-5", f"{sum(d > _RELATIVE for d in apart)} of {len(apart)}", "0")
    if others:
        slower = sum(each["changed"] and each["ratio_high"] >= 1.0 for each in others)
        changed = sum(each["changed"] for each in others)
        summary("published files made slower", f"{slower} of {len(others)} ({changed} made faster)", "0")


if __name__ == "__main__":
    main()
