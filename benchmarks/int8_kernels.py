"""INT8 files against their own graphs: random networks quantised, each file run with and without optimisations.

The networks have convolutions of all kinds, pools with all their attributes, products with transposed, shared and tied
weights, activations and operators that only move values, in opsets 13 to 24. Beside the networks: the public cases,
where they are at hand. Each file is run on the inputs that it was calibrated and checked with, and on others: new ones
of the same kind, zeros, negative ones, large ones. Two things are counted:

- Wrong kernels: with the same integers before it, a kernel gives an integer more than half a step from what its graph
  makes there.
- Roundings that travel: two kernels, each right, round a value just between two integers differently, and later layers
  make more of it. Said are how often, and how far the outputs are off then, in steps and beside the file's own distance
  from the float network in the same place.
"""

import collections
import itertools
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from common import summary
from int8_nets import RandomNet, random_nets
from onnx import numpy_helper
from options import SEED, begin, file_path, positive

from export import onnx_file
from export.errors import ExportError
from export.quantization import kernel_check
from export.quantization.quantize import float_reasons, quantize_int8

CASES = ("average_pool_ceil", "dilated_average_pool", "weight_and_factor", "tied_square", "float8_weights")
CHECKED = "checked"
"""The inputs that a file is calibrated and checked with."""
_NEW, _LARGE = 4, 30.0
_FLOAT32 = 1e-3  # of a step: less than float32 can hold
_NOTHING = "it has no convolution of 1 or 2 dimensions"


@dataclass(frozen=True)
class Run:
    """A file on one kind of inputs.

    Attributes:
        steps: largest difference between the file as deployed and with optimisations off, in the output's steps.
        beyond: output values that differ by more than a step.
        values: all output values.
        share: of that difference in the file's largest distance from the float network there.
        wrong: operators of wrong kernels.
        rounded: integers that a right kernel rounds otherwise than the graph.
        integers: all that were compared.
    """

    steps: float
    beyond: int
    values: int
    share: float
    wrong: tuple[str, ...]
    rounded: int
    integers: int


@dataclass(frozen=True)
class Row:
    """What became of one network.

    Attributes:
        name: of the network.
        runs: kind of inputs → the run; empty where there is no file.
        error: distance of the outputs from the float network's, as a share of their size.
        reasons: why nodes were left float.
        refusal: why there is no file.
    """

    name: str
    runs: dict[str, Run] = field(default_factory=dict)
    error: float = 0.0
    reasons: tuple[str, ...] = ()
    refusal: str = ""

    @property
    def wrong(self) -> tuple[str, ...]:
        """Operators of wrong kernels, on any inputs."""
        return tuple(dict.fromkeys(name for run in self.runs.values() for name in run.wrong))

    @property
    def steps(self) -> float:
        """Largest difference from its own graph, in the output's steps."""
        return max((run.steps for run in self.runs.values()), default=0.0)


def main() -> None:
    options = begin(
        __doc__,
        positive("--nets", 400, "random networks"),
        file_path("--cases", None, "a folder with the public cases' files"),
        SEED,
    )
    began = time.perf_counter()
    rows = []
    for net in itertools.chain(random_nets(options.seed, options.nets), cases(options.cases)):
        row = judged(net)
        rows.append(row)
        nothing = _NOTHING in row.refusal
        if not nothing and (row.refusal or row.wrong or row.steps > 1 or not row.name[0].isdigit()):
            print(f"  {row.name}: {row.refusal or described(row)}", flush=True)
    show(rows, time.perf_counter() - began)


def cases(folder: Path | None) -> Iterator[RandomNet]:
    """The public cases, with inputs for them."""
    rng = np.random.default_rng(0)
    for name in CASES if folder is not None else ():
        model = onnx.load(folder / f"{name}.onnx")
        shape = [size.dim_value or 4 for size in model.graph.input[0].type.tensor_type.shape.dim]
        yield RandomNet(name, model, rng.standard_normal(shape).astype(np.float32))


def described(row: Row) -> str:
    """What was seen of a network's file, in words."""
    wrong = f"wrong kernels of {', '.join(row.wrong)}; " if row.wrong else ""
    where = max(row.runs, key=lambda kind: row.runs[kind].steps)
    return f"{wrong}{max(row.steps, 0):.2f} steps on {where} inputs, {row.error:.2%} from float"


def inputs_of(net: RandomNet) -> dict[str, list[npt.NDArray[np.float32]]]:
    """Batches of inputs by their kind, each of the size of the network's own."""
    given = net.inputs
    rng = np.random.default_rng(zlib.crc32(net.name.encode()))
    middle, spread = float(given.mean()), float(given.std()) or 1.0
    new = [(rng.standard_normal(given.shape) * spread + middle).astype(np.float32) for _ in range(_NEW)]
    return {
        CHECKED: [given],
        "new": new,
        "zero": [np.zeros_like(given)],
        "negative": [-np.abs(new[0])],
        "large": [new[0] * _LARGE],
    }


def judged(net: RandomNet) -> Row:
    """Quantise a network and run the file both ways."""
    try:
        quantised = quantize_int8(net.model, net.inputs)
    except ExportError as error:
        return Row(net.name, refusal=str(error))
    contents = quantised.SerializeToString(), net.model.SerializeToString()
    deployed, plain = onnx_file.open_session(contents[0]), onnx_file.open_session(contents[1], optimised=False)
    said = onnx_file.open_session(contents[0], optimised=False)
    name = net.model.graph.input[0].name
    sizes = output_steps(quantised, said.run(None, {name: net.inputs}))
    runs, error = {}, 0.0
    for kind, batches in inputs_of(net).items():
        found = []
        for batch in batches:
            feeds = {name: batch}
            arrays = [session.run(None, feeds) for session in (deployed, said, plain)]
            if kind == CHECKED:
                error = max(relative_error(a, b) for a, _, b in zip(*arrays, strict=True))
            found += [compared(*each) for each in zip(*arrays, sizes, strict=True)]
            found.append(of_kernels(kernel_check.findings(quantised, feeds)))
        runs[kind] = together(found)
    return Row(net.name, runs, error, tuple(float_reasons(quantised).values()))


def compared(deployed: npt.NDArray[Any], said: npt.NDArray[Any], plain: npt.NDArray[Any], step: float) -> Run:
    """One output: as deployed, with optimisations off, and the float network's."""
    steps, error = largest_in_steps(deployed, said, step), largest_in_steps(said, plain, step)
    off = np.abs(deployed - said) > step * (1 + _FLOAT32)
    share = steps / max(error, steps) if steps > 1 else 0.0
    return Run(steps, int(off.sum()), off.size, share, (), 0, 0)


def of_kernels(found: kernel_check.Findings) -> Run:
    """What a check of a file's kernels found."""
    roundings = found.roundings
    wrong = tuple(" → ".join(each.operators) for each in found.wrong)
    return Run(0.0, 0, 0, 0.0, wrong, sum(r.differing for r in roundings), sum(r.values for r in roundings))


def together(runs: list[Run]) -> Run:
    """Several runs as one."""
    return Run(
        max(run.steps for run in runs),
        sum(run.beyond for run in runs),
        sum(run.values for run in runs),
        max(run.share for run in runs),
        tuple(dict.fromkeys(name for run in runs for name in run.wrong)),
        sum(run.rounded for run in runs),
        sum(run.integers for run in runs),
    )


def relative_error(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """Distance as a share of the wanted values' size."""
    return float(np.linalg.norm(found - wanted) / max(float(np.linalg.norm(wanted)), 1e-12))


def output_steps(model: onnx.ModelProto, outputs: list[npt.NDArray[Any]]) -> list[float]:
    """The step of each output: its scale where it is quantised, else a 255th of its range, 0 included."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    scales = {
        node.output[0]: float(numpy_helper.to_array(stored[node.input[1]]))
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[1] in stored and not stored[node.input[1]].dims
    }
    values = [value.name for value in model.graph.output]
    return [
        scales.get(name, float(array.max(initial=0) - array.min(initial=0)) / 255 or 1.0)
        for name, array in zip(values, outputs, strict=True)
    ]


def largest_in_steps(found: npt.NDArray[Any], wanted: npt.NDArray[Any], step: float) -> float:
    """Largest difference, in steps, less what float32 itself can't hold."""
    return float(np.nan_to_num(np.abs(found - wanted), nan=np.inf).max(initial=0)) / step - _FLOAT32


def show(rows: list[Row], seconds: float) -> None:
    files = [row for row in rows if row.runs]
    without = [row for row in rows if row.refusal and _NOTHING in row.refusal]
    refused = [row for row in rows if row.refusal and _NOTHING not in row.refusal]
    print("\nnodes left float, by reason:")
    reasons = collections.Counter(reason.partition(" (")[0] for row in files for reason in set(row.reasons))
    for reason, count in reasons.most_common():
        print(f"  {count:4}  {reason}")
    print(f"\n{'inputs':10} {'rounded otherwise':>24} {'files beyond a step':>20} {'most':>6} {'output values':>20}")
    for kind in files[0].runs if files else ():
        line(kind, [row.runs[kind] for row in files])
    errors = np.array([row.error for row in files])
    every = [run for row in files for run in row.runs.values()]
    new = [run for row in files for kind, run in row.runs.items() if kind != CHECKED]
    print(f"\n{len(rows)} networks, {len(without)} of them with nothing to quantise, in {seconds:.0f} s")
    summary("files", f"{len(files)}", "at least 200")
    summary("files with a wrong kernel, on any inputs", f"{sum(bool(row.wrong) for row in files)}", "0")
    beyond = sum(row.runs[CHECKED].steps > 1 for row in files)
    summary("files more than a step from their own graph, on the inputs of the check", f"{beyond}", "0")
    beyond = sum(any(run.steps > 1 for kind, run in row.runs.items() if kind != CHECKED) for row in files)
    values = f"{sum(run.beyond for run in new)} of {sum(run.values for run in new):,} output values"
    summary("files more than a step away by roundings that travel, on other inputs", f"{beyond}, {values}", "few")
    summary("the farthest, in steps", f"{max((run.steps for run in every), default=0):.1f}", "small")
    share = max((run.share for run in every), default=0)
    summary("that as a share of the same output's distance from float", f"{share:.0%}", "below 100 %")
    integers = max(1, sum(run.integers for run in every))
    rate = sum(run.rounded for run in every) / integers * 1e6
    summary("integers rounded otherwise by right kernels, in a million", f"{rate:.2f} of {integers:,}", "below 1")
    summary("valid networks refused", f"{len(refused)}", "0")
    shares = ", ".join(f"{np.percentile(errors, at):.1%}" for at in (50, 90, 99, 100))
    summary("distance from the float network, percentiles 50, 90, 99, 100", shares, "most below 5 %")


def line(kind: str, runs: list[Run]) -> None:
    """A row of the table: one kind of inputs, over all files."""
    rounded = f"{sum(run.rounded for run in runs):,} of {sum(run.integers for run in runs):,}"
    values = f"{sum(run.beyond for run in runs):,} of {sum(run.values for run in runs):,}"
    beyond, most = sum(run.steps > 1 for run in runs), max(0.0, *(run.steps for run in runs))
    print(f"{kind:10} {rounded:>24} {beyond:20} {most:6.2f} {values:>20}")


if __name__ == "__main__":
    main()
