"""Cost of each activation beside relu: as torch's exporter writes it, lowered, and both at INT8.

A mobile net of 0.6 M parameters with the activation at its 18 sites, shortly trained, one thread; several activations
are timed in one rotation with the fp32 net of relu, at 32×32 and 224×224. "Plain" is the exporter's file (opset 20,
batch norm folded, GlobalAveragePool restored), "lowered" the same after `export.lowering.lower.lower`. INT8 is
calibrated on real images; how far it is off fp32 is found at 32×32.
"""

from typing import Any

import numpy as np
import onnx
import torch
from activation_nets import batch, large_net, options, plain_export, read_rows, settled, trained, write_rows
from common import interval, summary, table
from networks import deviation, parameters
from options import Options, amount, begin, file_path, flag, positive, some_of
from safetensors.torch import load_file, save_file

from export import onnx_file
from export.lowering.form_choice import alternatives
from export.lowering.lower import lower
from export.quantization.quantize import quantize_int8
from latency_models.devices.device import Device
from latency_models.timing.meter import LatencyMeter

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
    arguments = begin(
        __doc__,
        *options(),
        file_path("--models", required=True, text="a folder: networks are kept there and taken from it"),
        some_of("--sides", [32, 224]),
        some_of("--parts", _PARTS),
        positive("--at-once", 5, "activations in a rotation"),
        amount("--seconds", 2.0, "for each model in a rotation"),
        positive("--steps", 40, "of a training"),
        flag("--every-form", "each form of its family beside the default"),
    )
    torch.set_num_threads(1)
    arguments.models.mkdir(parents=True, exist_ok=True)
    rows = read_rows(arguments.output)
    for part in ("train", "exact", "time"):
        if part in arguments.parts:
            _PARTS[part](arguments, rows)
    if rows:
        show(rows, arguments)


def _train(options: Options, rows: dict[str, dict[str, Any]]) -> None:
    for name in dict.fromkeys([BASE, *options.activations]):
        for side in options.sides:
            _plain(options, name, side)
        print(f"  {name} is there", flush=True)


def _network(options: Options, name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    network, path = large_net(name), options.models / f"{name}.safetensors"
    if path.exists():
        network.load_state_dict(load_file(path))
    else:
        print(f"training {name}: {parameters(network):,} parameters", flush=True)
        trained(network, name, 3, options.root, options.steps)
        save_file(network.state_dict(), path)
    return network.eval()


def _plain(options: Options, name: str, side: int) -> onnx.ModelProto:
    path = options.models / f"{name}-{side}.onnx"
    if not path.exists():
        images = batch(options.root, True, range(_CALIBRATION[side]), side, 3)[0]
        onnx.save(plain_export(settled(_network(options, name), images), (3, side, side)), path)
    return onnx.load(path)


def _variants(options: Options, name: str, side: int) -> dict[str, onnx.ModelProto]:
    plain = _plain(options, name, side)
    found = {PLAIN: plain, LOWERED: lower(plain)}
    if options.every_form:
        forms = [(family, form) for family, several in alternatives(plain).items() for form in several]
        found |= {f"{family}={form}": lower(plain, {family: form}) for family, form in forms}
    return found


def _quantized(options: Options, model: onnx.ModelProto, side: int) -> onnx.ModelProto:
    images = batch(options.root, True, range(_CALIBRATION[side]), side, 3)[0]
    return quantize_int8(model, images.numpy())


def _time(options: Options, rows: dict[str, dict[str, Any]]) -> None:
    meter = LatencyMeter(Device())
    for side in options.sides:
        names = [name for name in options.activations if _key(name, side) not in rows]
        for start in range(0, len(names), options.at_once):
            some = names[start : start + options.at_once]
            rows |= _rotation(options, meter, some, side)
            write_rows(options.output, rows)
            print(f"  timed at {side}: {', '.join(some)}", flush=True)


def _rotation(options: Options, meter: LatencyMeter, names: list[str], side: int) -> dict[str, dict[str, Any]]:
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
        ratio = found.ratios[place]
        row = rows.setdefault(_key(name, side), {"relu_ms": found.latencies[0].latency_ms, "ratios": {}})
        row["ratios"].setdefault(variant, {})[precision] = [ratio.ratio, ratio.low, ratio.high]
    return rows


def _key(name: str, side: int) -> str:
    return f"{name} {side}"


def _exact(options: Options, rows: dict[str, dict[str, Any]]) -> None:
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
    return float((outputs.argmax(1) == labels).mean())


def show(rows: dict[str, dict[str, Any]], options: Options) -> None:
    """Print all rows in the options' order of activations, and the goals beside them."""
    timed = [(name, side) for name in options.activations for side in options.sides if _key(name, side) in rows]
    names = list(dict.fromkeys(name for name, _ in timed))
    if names:
        table([line(rows, name, options.sides) for name in names])
        _forms(rows, timed)
    for name, goal in GOALS.items():
        if (name, _GOAL_SIDE) in timed:
            ratio, low, high = rows[_key(name, _GOAL_SIDE)]["ratios"][LOWERED][FP32]
            summary(f"{name} at {_GOAL_SIDE}²", interval(ratio, low, high, ".2f"), f"at most {goal}")
    for precision in (FP32, INT8):
        slower = [
            f"{name} {side}² {gain:.3f}"
            for name, side in timed
            if (gain := _gain(rows, name, side, precision)) > _SLOWER
        ]
        summary(f"{precision}, slower than before lowering", ", ".join(slower) or "none", "none")


def line(rows: dict[str, dict[str, Any]], name: str, sides: list[int]) -> dict[str, str]:
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
