"""The same search for a device at fp32 and for one at INT8: does deploying at INT8 want a different network?

A finished study, not maintained. Found (one seed, 12 trials): INT8 wants another network. The INT8 search's winner
takes 0.48 of its fp32 time at INT8, the fp32 search's 0.94; deployed at INT8 the first is 2.6 points more accurate
for 3 % more time.

Fashion-MNIST, the space of configs/fashion-mnist-cpu.yaml, an activation for each stage; the searches of a seed differ
in `device.precision` alone. Each winner's final file is quantised with real calibration, as a search for an INT8 device
does it; the two files of both winners are timed in alternation and judged on the validation and the test images. Then
the fronts: all members' graphs timed at both precisions in one rotation, so that each front's hypervolume is known at
either. At INT8 the accuracies of the fp32 search's front are those before quantisation, which flatters it a little.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for common.py

import kept_searches as kept
from common import interval, summary, table
from options import Options, amount, option
from scipy import stats

from export.bundle.manifest import INT8_FILE, MODEL_FILE
from export.checks import predictions
from export.quantization.quantize import quantize_like
from latency_models.devices.device import Device
from latency_models.timing.meter import LatencyMeter, Ratio
from pipeline.data import load_data
from pipeline.run import RunDirectory
from pipeline.winner.int8 import search_int8

PRECISIONS = ("fp32", "int8")
_BEYOND_WORST = 1.1  # the reference point over the worst member: the extremes of a front count as well


def main() -> None:
    kept.study(
        __doc__,
        _compare,
        option("--pick", "knee", "which member of a front wins"),
        amount("--seconds", 2.0, "for each file's timing"),
        amount("--front-seconds", 40.0, "for timing both fronts at both precisions, 0: not at all"),
        seeds=1,
        final_epochs=5,
    )


def _compare(folder: Path, arguments: Options) -> None:
    runs = {
        seed: {name: kept.searched(folder, _config(arguments, seed, name)) for name in PRECISIONS}
        for seed in kept.seeds_of(arguments)
    }
    with LatencyMeter(Device()) as meter:
        for seed, each in runs.items():
            _compare_winners(seed, each, meter, arguments)
            if arguments.front_seconds > 0:
                _compare_fronts(seed, each, meter, arguments.front_seconds)


def _config(arguments: Options, seed: int, precision: str) -> dict[str, Any]:
    config = kept.config_of(arguments, f"{precision}-{seed}", seed, arguments.activations)
    config["device"] |= {"precision": precision}
    config["final"] |= {"pick": arguments.pick}
    if precision == "int8":  # an fp32 winner's INT8 form is searched here
        config["export"] = {"quantize": "auto"}
    return config


def _compare_winners(seed: int, runs: dict[str, Path], meter: LatencyMeter, arguments: Options) -> None:
    print(f"\nseed {seed}: " + ", ".join(f"{n} {kept.seconds_per_trial(run):.1f} s a trial" for n, run in runs.items()))
    winners = {n: json.loads((run / "bundle" / "manifest.json").read_text()) for n, run in runs.items()}
    files = {name: _files(run, meter) for name, run in runs.items()}
    rows = _judged(runs["fp32"], files, meter, arguments.seconds)
    _show_architectures(winners)
    table([_row(winner, precision, found) for (winner, precision), found in rows.items()])
    ratios = _ratios(files, meter, arguments.seconds)
    same = winners["fp32"]["architecture"] == winners["int8"]["architecture"]
    for name, ratio in ratios.items():
        summary(f"seed {seed}: {name}", interval(ratio.ratio, ratio.low, ratio.high, ".3f"), "told")
    for at in PRECISIONS:
        text = _verdict(at, rows, ratios, same)
        summary(f"seed {seed}: deployed at {at}, the {at} winner against the other", text, "at least as good")


def _files(run: Path, meter: LatencyMeter) -> dict[str, bytes]:
    """The winner's file at each precision; an INT8 form is searched once and kept beside the bundle."""
    plain = (run / "bundle" / MODEL_FILE).read_bytes()
    for path in (run / "bundle" / INT8_FILE, own := run.with_name(f"{run.name}-winner.int8.onnx")):
        if path.is_file():
            return {"fp32": plain, "int8": path.read_bytes()}
    config = RunDirectory.open(run).config
    found = search_int8(
        onnx.load_model_from_string(plain), load_data(config.data), meter, config.export.max_accuracy_loss
    )
    own.write_bytes(found.model)
    return {"fp32": plain, "int8": found.model}


def _judged(
    run: Path, files: dict[str, dict[str, bytes]], meter: LatencyMeter, seconds: float
) -> dict[tuple[str, str], dict[str, Any]]:
    """(winner, precision) → accuracies on the run's images, latencies of one rotation."""
    keys = [(winner, precision) for winner in PRECISIONS for precision in PRECISIONS]
    models = [files[winner][precision] for winner, precision in keys]
    latencies = meter.measure_together(models, budget_s=seconds * len(models)).latencies
    data = load_data(RunDirectory.open(run).config.data)
    splits = {"validation": data.validation, "test": data.load_test()}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for key, model, latency in zip(keys, models, latencies, strict=True):
        right = {
            name: predictions(model, data.preprocessing.apply(split.images)) == split.labels
            for name, split in splits.items()
        }
        found[key] = {
            **{f"accuracy_{name}": float(each.mean()) for name, each in right.items()},
            "latency_ms": latency.latency_ms,
            "latency_low_ms": latency.low_ms,
            "latency_high_ms": latency.high_ms,
            "size_bytes": len(model),
            "right": right["test"],
        }
    return found


def _show_architectures(winners: dict[str, dict[str, Any]]) -> None:
    first, second = (winners[name]["architecture"] for name in PRECISIONS)
    print("what the winners chose, * where they differ")
    table(
        {
            "choice": label,
            "fp32's winner": str(first.get(label, "–")),
            "int8's winner": str(second.get(label, "–")),
            "": "*" if first.get(label) != second.get(label) else "",
        }
        for label in dict.fromkeys([*first, *second])
    )
    print()


def _row(winner: str, precision: str, found: dict[str, Any]) -> dict[str, str]:
    return {
        "winner of": winner,
        "deployed at": precision,
        "latency, ms": interval(found["latency_ms"], found["latency_low_ms"], found["latency_high_ms"], ".4g"),
        "validation": f"{found['accuracy_validation']:.4f}",
        "test": f"{found['accuracy_test']:.4f}",
        "size, kB": f"{found['size_bytes'] / 1e3:.0f}",
    }


def _ratios(files: dict[str, dict[str, bytes]], meter: LatencyMeter, seconds: float) -> dict[str, Ratio]:
    pairs = {
        f"{winner}'s winner, latency at int8 over fp32": (files[winner]["int8"], files[winner]["fp32"])
        for winner in PRECISIONS
    }
    pairs |= {
        f"latency at {at}, int8's winner over fp32's": (files["int8"][at], files["fp32"][at]) for at in PRECISIONS
    }
    return {name: meter.compare(a, b, budget_s=2.0 * seconds) for name, (a, b) in pairs.items()}


def _verdict(at: str, rows: dict[tuple[str, str], dict[str, Any]], ratios: dict[str, Ratio], same: bool) -> str:
    """Latency and test accuracy of the winner that was searched for `at`, against the other one there."""
    if same:
        return "the two searches chose the same network"
    over = ratios[f"latency at {at}, int8's winner over fp32's"]
    ratio = over if at == "int8" else Ratio(1.0 / over.ratio, 1.0 / over.high, 1.0 / over.low)
    other = PRECISIONS[1 - PRECISIONS.index(at)]
    pairs = rows[at, at]["right"].astype(float) - rows[other, at]["right"].astype(float)
    gain, reach = float(pairs.mean()), 1.96 * float(pairs.std()) / len(pairs) ** 0.5
    faster = 0 if not ratio.different else (1 if ratio.ratio < 1 else -1)
    better = 0 if abs(gain) <= reach else (1 if gain > 0 else -1)
    words = {
        (True, False): "better: a network of its own pays",
        (False, True): "worse: the other's would have done better",
        (True, True): "a trade of one for the other",
        (False, False): "no difference seen",
    }[max(faster, better) > 0, min(faster, better) < 0]
    told = f"latency × {interval(ratio.ratio, ratio.low, ratio.high, '.3f')}"
    return f"{told}, test accuracy {gain:+.4f} ± {reach:.4f}: {words}"


def _compare_fronts(seed: int, runs: dict[str, Path], meter: LatencyMeter, seconds: float) -> None:
    """Both searches' fronts at both precisions; where accuracies at INT8 aren't known, those at fp32 stand for them."""
    members: list[dict[str, Any]] = []
    models: list[bytes] = []
    for name, run in runs.items():
        front = [trial for trial in kept.trained(run) if trial["on_front"]]
        members += [_member(name, trial) for trial in front]
        models += [content for each in kept.quick_graphs(run, front) for content in (each, quantize_like(each))]
    print(f"timing {len(members)} members of both fronts at both precisions, {seconds:g} s", flush=True)
    times, _ = kept.timed_together(meter, models, seconds)
    for at, member in enumerate(members):
        member["latency_ms"] = {"fp32": times[2 * at], "int8": times[2 * at + 1]}
    _show_members(members)
    for at in PRECISIONS:
        _tell_volumes(seed, members, at)
    both = [[member["latency_ms"][at] for member in members] for at in PRECISIONS]
    gains = [int8 / fp32 for fp32, int8 in zip(*both, strict=True)]
    rank = float(stats.spearmanr(*both).statistic) if len(members) > 2 else None
    found = f"{min(gains):.3f} to {max(gains):.3f}, rank correlation {'–' if rank is None else f'{rank:.3f}'}"
    summary(f"seed {seed}: members' latency at INT8 over fp32", found, "told")


def _member(name: str, trial: dict[str, Any]) -> dict[str, Any]:
    reached = trial["objectives"]["accuracy"]
    return {
        "searched_for": name,
        "id": trial["id"],
        "accuracy": {"fp32": trial["details"].get("accuracy_fp32", reached), "int8": reached},
        "activations": kept.places(trial),
    }


def _show_members(members: list[dict[str, Any]]) -> None:
    table(
        {
            "front of": member["searched_for"],
            "id": member["id"],
            "accuracy": f"{member['accuracy'][member['searched_for']]:.4f}",
            "fp32, ms": f"{member['latency_ms']['fp32']:.4g}",
            "INT8, ms": f"{member['latency_ms']['int8']:.4g}",
            "INT8 / fp32": f"{member['latency_ms']['int8'] / member['latency_ms']['fp32']:.3f}",
            "activations": ", ".join(member["activations"].values()),
        }
        for member in sorted(members, key=lambda m: (m["searched_for"], m["latency_ms"]["fp32"]))
    )


def _tell_volumes(seed: int, members: list[dict[str, Any]], at: str) -> None:
    errors = np.array([1.0 - member["accuracy"][at] for member in members])
    latencies = np.array([member["latency_ms"][at] for member in members])
    box = kept.box_of(errors, latencies, share=1.0)
    box["error_worst"] *= _BEYOND_WORST
    box["latency_worst_ms"] *= _BEYOND_WORST
    of = np.array([member["searched_for"] for member in members])
    found = {name: kept.volume(errors[of == name], latencies[of == name], box) for name in PRECISIONS}
    listed = ", ".join(f"{name}'s front {value:.4f}" for name, value in found.items())
    below = f"below error {box['error_worst']:.4f} and {box['latency_worst_ms']:.4g} ms"
    summary(f"seed {seed}: hypervolumes at {at}", f"{listed}, {below}", f"{at}'s the larger")


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
