"""Peak memory computed from a graph against the bytes that ONNX Runtime asks for when it runs it.

The truth is the runtime's own counter of the bytes that were asked for, in a session's first run, with the caller's
input added for as long as it is read. Compared are random candidates of `convnet` at several image sizes and widths
(also ones that fill no whole block of channels) with every activation of the table, torchvision's networks with
untrained weights, and published files.
"""

import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from common import summary, table
from networks import TORCHVISION, convnet, distinct_architectures, published_files, torchvision_net
from options import SEED, begin, positive

from export.activations import table as activations
from export.exporter.graph_builder import quick_graph
from latency_models.counters.activation_memory import counted_peak_bytes
from latency_models.counters.unavailable import Unavailable
from latency_models.devices.resolve import resolve_device
from latency_models.errors import CostError
from latency_models.graph.memory import peak_bytes
from latency_models.graph.shapes import infer

_GOAL = 0.03
_SIDES = (32, 128)
_WIDTHS = (8, 12, 16, 20, 22)
_MEGABYTE = 1e6


@dataclass(frozen=True)
class Row:
    """A net with both peaks in bytes and the time that the computed one took."""

    group: str
    name: str
    computed: int
    counted: int
    seconds: float

    @property
    def ratio(self) -> float:
        """Computed over counted."""
        return self.computed / self.counted


def main() -> None:
    arguments = begin(__doc__, positive("--candidates", 60, "of the space"), SEED)
    rows = []
    for group, name, content in _nets(arguments.candidates, arguments.seed):
        row = _compared(group, name, content)
        if row is not None:
            rows.append(row)
    _print_summary(rows)


def _nets(candidates: int, seed: int) -> Iterator[tuple[str, str, bytes | Path]]:
    rng = random.Random(seed)
    settings = [(side, width) for side in _SIDES for width in _WIDTHS]
    for at, (side, width) in enumerate(settings):
        space = convnet((3, side, side), activations=list(activations.names()), activation_scope="block", width=width)
        share = candidates // len(settings) + (at < candidates % len(settings))
        for number, architecture in enumerate(distinct_architectures(space, rng, share)):
            model, _ = quick_graph(space.build(architecture), (3, side, side))
            yield "convnet", f"{side}² width {width} #{number}", model.SerializeToString()
    for name in TORCHVISION:
        model, _ = quick_graph(torchvision_net(name), (3, 224, 224))
        yield "torchvision", name, model.SerializeToString()
    for path in published_files():
        yield "files", path.stem, path


def _compared(group: str, name: str, content: bytes | Path) -> Row | None:
    model = onnx.load_model_from_string(content) if isinstance(content, bytes) else onnx.load_model(content)
    try:
        shapes = infer(model)
        began = time.perf_counter()
        computed = peak_bytes(shapes)
        seconds = time.perf_counter() - began
        counted = counted_peak_bytes(content, resolve_device("cpu"))
    except CostError as error:
        print(f"{group} {name}: {error}")
        return None
    if isinstance(counted, Unavailable):
        print(f"{group} {name}: {counted.reason}")
        return None
    return Row(group, name, computed, counted, seconds)


def _print_summary(rows: list[Row]) -> None:
    shown = [row for row in rows if row.group != "convnet" or abs(row.ratio - 1) > 0.001]
    if shown:
        print("nets other than candidates, and candidates that are off by more than 0.1 %:")
        table(
            {
                "net": f"{row.group} {row.name}",
                "computed MB": f"{row.computed / _MEGABYTE:.4f}",
                "counted MB": f"{row.counted / _MEGABYTE:.4f}",
                "ratio": f"{row.ratio:.4f}",
            }
            for row in shown
        )
    print()
    for group in dict.fromkeys(row.group for row in rows):
        ratios = [row.ratio for row in rows if row.group == group]
        within = sum(abs(ratio - 1) <= _GOAL for ratio in ratios)
        summary(
            f"computed over counted peak, {group}",
            f"median {statistics.median(ratios):.4f}, least {min(ratios):.4f}, most {max(ratios):.4f},"
            f" {within} of {len(ratios)} within 3 %",
            "within 3 %" if group == "convnet" else "within 3 %, or explained",
        )
    times = [1e3 * row.seconds for row in rows if row.group == "convnet"]
    if times:
        summary(
            "time of the computed peak, convnet",
            f"median {statistics.median(times):.2f} ms, most {max(times):.2f} ms",
            "below 5 ms",
        )


if __name__ == "__main__":
    main()
