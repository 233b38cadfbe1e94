"""INT8 files against their own graphs: random networks quantised, each file's outputs with and without optimisations.

The networks have convolutions of all kinds, pools with all their attributes, products with transposed, shared and tied
weights, activations and operators that only move values, in opsets 13 to 24. A file is right if the session that is
deployed gives what its graph says, node by node, within one step of the output's quantisation. Beside the networks: the
public cases, where they are at hand. For each file also how far its outputs are from the float network's.
"""

import collections
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
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
from export.quantization.quantize import float_reasons, quantize_int8

CASES = ("average_pool_ceil", "dilated_average_pool", "weight_and_factor", "tied_square", "float8_weights")
_NOTHING = "it has no convolution of 1 or 2 dimensions"


@dataclass(frozen=True)
class Row:
    """What became of one network.

    Attributes:
        name: of the network.
        steps: largest difference between its file as deployed and with optimisations off, in the output's steps;
            None where there is no file.
        error: distance of the outputs from the float network's, as a share of their size.
        reasons: why nodes were left float.
        refusal: why there is no file.
    """

    name: str
    steps: float | None = None
    error: float = 0.0
    reasons: tuple[str, ...] = ()
    refusal: str = ""


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
        if row.refusal or (row.steps or 0) > 1 or not row.name[0].isdigit():
            print(f"  {row.name}: {row.refusal or f'{row.steps:.4f} steps, {row.error:.2%} from float'}", flush=True)
    show(rows, time.perf_counter() - began)


def cases(folder: Path | None) -> Iterator[RandomNet]:
    """The public cases, with inputs for them."""
    rng = np.random.default_rng(0)
    for name in CASES if folder is not None else ():
        model = onnx.load(folder / f"{name}.onnx")
        shape = [size.dim_value or 4 for size in model.graph.input[0].type.tensor_type.shape.dim]
        yield RandomNet(name, model, rng.standard_normal(shape).astype(np.float32))


def judged(net: RandomNet) -> Row:
    """Quantise a network and run the file both ways."""
    try:
        quantised = quantize_int8(net.model, net.inputs)
    except ExportError as error:
        return Row(net.name, refusal=str(error))
    content, feeds = quantised.SerializeToString(), {net.model.graph.input[0].name: net.inputs}
    said = onnx_file.open_session(content, optimised=False).run(None, feeds)
    deployed = onnx_file.open_session(content).run(None, feeds)
    plain = onnx_file.open_session(net.model.SerializeToString(), optimised=False).run(None, feeds)
    steps = [
        largest_in_steps(found, wanted, step)
        for found, wanted, step in zip(deployed, said, output_steps(quantised, said), strict=True)
    ]
    errors = [
        np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-12) for a, b in zip(deployed, plain, strict=True)
    ]
    return Row(net.name, max(steps), float(max(errors)), tuple(float_reasons(quantised).values()))


def output_steps(model: onnx.ModelProto, outputs: list[npt.NDArray[Any]]) -> list[float]:
    """The step of each output: its scale where it is quantised, else a 255th of its largest value."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    scales = {
        node.output[0]: float(numpy_helper.to_array(stored[node.input[1]]))
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[1] in stored and not stored[node.input[1]].dims
    }
    values = [value.name for value in model.graph.output]
    return [
        scales.get(name, float(np.abs(array).max(initial=0)) / 255 or 1.0)
        for name, array in zip(values, outputs, strict=True)
    ]


def largest_in_steps(found: npt.NDArray[Any], wanted: npt.NDArray[Any], step: float) -> float:
    """Largest difference, in steps, less what float32 itself can't hold."""
    return float(np.nan_to_num(np.abs(found - wanted), nan=np.inf).max(initial=0)) / step - 1e-3


def show(rows: list[Row], seconds: float) -> None:
    files = [row for row in rows if row.steps is not None]
    without = [row for row in rows if row.refusal and _NOTHING in row.refusal]
    refused = [row for row in rows if row.refusal and _NOTHING not in row.refusal]
    print("\nnodes left float, by reason:")
    reasons = collections.Counter(reason.partition(" (")[0] for row in files for reason in set(row.reasons))
    for reason, count in reasons.most_common():
        print(f"  {count:4}  {reason}")
    steps, errors = np.array([row.steps for row in files]), np.array([row.error for row in files])
    print(f"\n{len(rows)} networks, {len(without)} of them with nothing to quantise, in {seconds:.0f} s")
    summary("files", f"{len(files)}", "at least 200")
    summary("files that differ from their own graph by more than a step", f"{int((steps > 1).sum())}", "0")
    summary("files that differ from their own graph at all", f"{int((steps > 0).sum())}", "few: rounding")
    summary("valid networks refused", f"{len(refused)}", "0")
    shares = ", ".join(f"{np.percentile(errors, at):.1%}" for at in (50, 90, 99, 100))
    summary("distance from the float network, percentiles 50, 90, 99, 100", shares, "most below 5 %")


if __name__ == "__main__":
    main()
