"""Cost of each activation beside relu: as torch's exporter writes it, lowered, and both at INT8.

A mobile net of 0.6 M parameters with the activation at its 18 sites, shortly trained, one thread; several activations
are timed in one rotation with the fp32 net of relu, at 32×32 and 224×224. "Plain" is the exporter's file (opset 20,
batch norm folded, GlobalAveragePool restored), "lowered" the same after `export.lowering.lower.lower`. INT8 is
calibrated on real images; how far it is off fp32 is found at 32×32.

    python benchmarks/activation_latency.py --models FOLDER --parts train
    python benchmarks/activation_latency.py --models FOLDER --activations mish elu [--every-form] [--output rows.json]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from activation_nets import (
    arguments,
    batch,
    forms_given,
    large_net,
    plain_export,
    read_rows,
    settled,
    top1,
    trained,
    write_rows,
)
from common import at_least_one, heading, parameters, summary, table
from safetensors.torch import load_file, save_file

from export import onnx_file
from export.lowering.form_choice import alternatives
from export.lowering.lower import lower
from export.quantization.quantize import quantize_int8
from latency_models.devices.device import Device
from latency_models.timing.meter import LatencyMeter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from latency_models.timing.meter import Ratio

BASE = "relu"
GOALS = {
    "mish": 2.8,
    "prelu": 1.35,
    "prelu_channel": 1.5,
    "elu": 2.3,
    "selu": 2.3,
    "celu": 2.3,
    "softplus": 5.5,
    "swish_beta": 1.3,
    "scaled_sigmoid": 1.5,
}
"""Of the lowered fp32 file at 224×224."""
_GOAL_SIDE, _EXACT_SIDE = 224, 32
_SLOWER = 1.02  # two sessions of one file differ by less
_CALIBRATION = {32: 256, 224: 16}
_TESTED = 1000
PLAIN, LOWERED = "plain", "lowered"
FP32, INT8 = "fp32", "int8"


def main() -> None:
    """Train, time and compare what is asked for, then print all rows."""
    options = _options()
    heading(__doc__)
    torch.set_num_threads(1)
    options.models.mkdir(parents=True, exist_ok=True)
    rows = read_rows(options.output)
    for part in ("train", "exact", "time"):
        if part in options.parts:
            _PARTS[part](options, rows)
    if rows:
        show(rows, options)


def _options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument(
        "--models", type=Path, required=True, help="a folder: networks are kept there and taken from it"
    )
    parser.add_argument("--sides", type=int, nargs="+", choices=[32, 224], default=[32, 224])
    parser.add_argument("--parts", nargs="+", choices=list(_PARTS), default=list(_PARTS), help="(default: all)")
    parser.add_argument("--at-once", type=at_least_one, default=5, help="activations in a rotation (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="for each model in a rotation (default: %(default)s)"
    )
    parser.add_argument("--steps", type=at_least_one, default=40, help="of a training (default: %(default)s)")
    parser.add_argument(
        "--form", action="append", default=[], metavar="FAMILY=NAME", help="to be preferred in lowering"
    )
    parser.add_argument("--every-form", action="store_true", help="each form of its family beside the default")
    options = parser.parse_args()
    try:
        options.form = forms_given(options.form)
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    return options


# --- networks ----------------------------------------------------------------------------------------------


def _train(options: argparse.Namespace, rows: dict[str, dict[str, Any]]) -> None:
    for name in dict.fromkeys([BASE, *options.activations]):
        for side in options.sides:
            _plain(options, name, side)
        print(f"  {name} is there", flush=True)


def _network(options: argparse.Namespace, name: str) -> nn.Module:
    torch.manual_seed(0)
    network, path = large_net(name), options.models / f"{name}.safetensors"
    if path.exists():
        network.load_state_dict(load_file(path))
    else:
        print(f"training {name}: {parameters(network):,} parameters", flush=True)
        trained(network, name, 3, options.root, options.steps)
        save_file(network.state_dict(), path)
    return network.eval()


def _plain(options: argparse.Namespace, name: str, side: int) -> onnx.ModelProto:
    path = options.models / f"{name}-{side}.onnx"
    if not path.exists():
        images = batch(options.root, True, range(_CALIBRATION[side]), side, 3)[0]
        onnx.save(plain_export(settled(_network(options, name), images), (3, side, side)), path)
    return onnx.load(path)


def _variants(options: argparse.Namespace, name: str, side: int) -> dict[str, onnx.ModelProto]:
    plain = _plain(options, name, side)
    found = {PLAIN: plain, LOWERED: lower(plain, options.form)}
    if options.every_form:
        forms = [(family, form) for family, several in alternatives(plain).items() for form in several]
        found |= {f"{family}={form}": lower(plain, {family: form}) for family, form in forms}
    return found


def _quantized(options: argparse.Namespace, model: onnx.ModelProto, side: int) -> onnx.ModelProto:
    images = batch(options.root, True, range(_CALIBRATION[side]), side, 3)[0]
    return quantize_int8(model, images.numpy())


# --- time --------------------------------------------------------------------------------------------------


def _time(options: argparse.Namespace, rows: dict[str, dict[str, Any]]) -> None:
    meter = LatencyMeter(Device())
    for side in options.sides:
        names = [name for name in options.activations if _key(name, side) not in rows]
        for start in range(0, len(names), options.at_once):
            some = names[start : start + options.at_once]
            rows |= _rotation(options, meter, some, side)
            write_rows(options.output, rows)
            print(f"  timed at {side}: {', '.join(some)}", flush=True)


def _rotation(
    options: argparse.Namespace, meter: LatencyMeter, names: Iterable[str], side: int
) -> dict[str, dict[str, Any]]:
    """Rows of some activations, timed together; equal files are timed once."""
    base = _plain(options, BASE, side).SerializeToString()
    models: dict[bytes, int] = {base: 0}
    places: dict[tuple[str, str, str], int] = {}
    for name in names:
        for variant, model in _variants(options, name, side).items():
            for precision in (FP32, INT8):
                written = model if precision == FP32 else _quantized(options, model, side)
                content = written.SerializeToString()
                places[name, variant, precision] = models.setdefault(content, len(models))
    found = meter.measure_together(list(models), budget_s=options.seconds * len(models))
    rows: dict[str, dict[str, Any]] = {}
    for (name, variant, precision), place in places.items():
        row = rows.setdefault(_key(name, side), {"relu_ms": found.latencies[0].latency_ms, "ratios": {}})
        row["ratios"].setdefault(variant, {})[precision] = _as_list(found.ratios[place])
    return rows


def _as_list(ratio: Ratio) -> list[float]:
    return [ratio.ratio, ratio.low, ratio.high]


def _key(name: str, side: int) -> str:
    return f"{name} {side}"


# --- exactness ---------------------------------------------------------------------------------------------


def _exact(options: argparse.Namespace, rows: dict[str, dict[str, Any]]) -> None:
    images, labels = batch(options.root, False, range(_TESTED), _EXACT_SIDE, 3)
    for name in options.activations:
        key = f"{name} exact"
        if key not in rows:
            variants = _variants(options, name, _EXACT_SIDE)
            wanted = _outputs(variants[PLAIN], images.numpy())
            row: dict[str, Any] = {FP32: {"accuracy": _accuracy(wanted, labels.numpy())}}
            for variant, model in variants.items():
                found = _outputs(_quantized(options, model, _EXACT_SIDE), images.numpy())
                row[variant] = {"off": deviation(found, wanted), "accuracy": _accuracy(found, labels.numpy())}
            rows[key] = row
            write_rows(options.output, rows)
            print(f"  {name}: {_told(row)}", flush=True)


def _told(row: dict[str, Any]) -> str:
    variants = [f"{name} {each['off']:.4f} {each['accuracy']:.3f}" for name, each in row.items() if name != FP32]
    return f"fp32 {row[FP32]['accuracy']:.3f}, INT8 off and right: {', '.join(variants)}"


def _outputs(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnx_file.open_session(model.SerializeToString())
    return np.concatenate([onnx_file.run(session, part) for part in np.array_split(images, 20)])


def _accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float((top1(outputs) == labels).mean())


def deviation(found: np.ndarray, wanted: np.ndarray) -> float:
    """Root mean square of the difference, over the standard deviation."""
    return float(np.sqrt(((found - wanted) ** 2).mean()) / wanted.std())


# --- the figures -------------------------------------------------------------------------------------------


def show(rows: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    """Print all rows in the options' order of activations, and the goals beside them."""
    timed = [(name, side) for name in options.activations for side in options.sides if _key(name, side) in rows]
    names = list(dict.fromkeys(name for name, _ in timed))
    if names:
        table([line(rows, name, options.sides) for name in names])
        _forms(rows, timed)
    for name, goal in GOALS.items():
        if (name, _GOAL_SIDE) in timed:
            ratio, low, high = rows[_key(name, _GOAL_SIDE)]["ratios"][LOWERED][FP32]
            summary(f"{name} at {_GOAL_SIDE}²", f"{ratio:.2f} ({low:.2f} to {high:.2f})", f"at most {goal}")
    for precision in (FP32, INT8):
        slower = [
            f"{name} {side}² {gain:.3f}"
            for name, side in timed
            if (gain := _gain(rows, name, side, precision)) > _SLOWER
        ]
        summary(f"{precision}, slower than before lowering", ", ".join(slower) or "none", "none")


def line(rows: dict[str, dict[str, Any]], name: str, sides: Iterable[int]) -> dict[str, str]:
    """An activation's figures: before → after lowering at each side and precision."""
    found = {"activation": name}
    for precision in (FP32, INT8):
        for side in sides:
            ratios = rows.get(_key(name, side), {}).get("ratios")
            pair = [ratios[variant][precision][0] for variant in (PLAIN, LOWERED)] if ratios else []
            found[f"{precision} {side}²"] = " → ".join(f"{each:.2f}" for each in pair)
    exact = rows.get(f"{name} exact")
    found["INT8 off"] = " → ".join(f"{exact[variant]['off']:.3f}" for variant in (PLAIN, LOWERED)) if exact else ""
    right = [exact[variant]["accuracy"] for variant in (FP32, PLAIN, LOWERED)] if exact else []
    found["right fp32, INT8"] = ", ".join(f"{each:.3f}" for each in right)
    return found


def _gain(rows: dict[str, dict[str, Any]], name: str, side: int, precision: str) -> float:
    ratios = rows[_key(name, side)]["ratios"]
    return float(ratios[LOWERED][precision][0] / ratios[PLAIN][precision][0])


def _forms(rows: dict[str, dict[str, Any]], timed: list[tuple[str, int]]) -> None:
    lines = []
    for name, side in timed:
        row = rows[_key(name, side)]
        exact = rows.get(f"{name} exact", {})
        for form in [variant for variant in row["ratios"] if "=" in variant]:
            ratios = row["ratios"][form]
            found = {"activation": name, "form": form, "side": str(side)}
            found |= {precision: f"{ratios[precision][0]:.3f}" for precision in (FP32, INT8)}
            lines.append(found | {"INT8 off": f"{exact[form]['off']:.4f}" if form in exact else ""})
    if lines:
        print()
        table(lines)


_PARTS = {"train": _train, "exact": _exact, "time": _time}

if __name__ == "__main__":
    main()
