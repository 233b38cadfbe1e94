"""Every activation in a trained net: does the exported file compute what torch does, at any batch, channels and size?

A small mobile net (batch norm, shortcuts, squeeze and excitation) with the activation at all sites is trained for some
dozens of steps on Fashion-MNIST, once for each number of channels; what the activation learns starts off its usual
values. At each size its batch norms take the statistics of the images that are tried (of others, a few outliers grow
without bounds where the activation squares), and it is exported and written as a quick graph. Both are held
against torch on test images resized to that size, and on batches of 1, 2 and 7 of them.
"""

import copy
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import onnx
import torch
from activation_nets import batch, options, read_rows, settled, small_net, trained, write_rows
from common import summary, table
from networks import operators
from options import Options, at_least_one, begin, option, positive

from export import onnx_file
from export.exporter.graph_builder import quick_graph
from export.exporter.onnx_export import export_model

_GOAL = 1e-5
_BATCHES = (1, 2, 7)
_LARGE_SIDE, _FEW_IMAGES = 128, 64
_RUN_AT_ONCE = 32


@dataclass(frozen=True)
class Parity:
    """One network at one size; differences are relative to torch's largest output.

    Attributes:
        images: test images that were tried.
        difference: of the exported file.
        quick_difference: of the quick graph.
        changed: images whose best class is another one in the exported file.
        quick_changed: and in the quick graph.
        batches_difference: the largest of batches of 1, 2 and 7, of either.
        same_operators: whether the quick graph has those of the file.
        accuracy: of torch, to see that it learnt something.
        classes: how many of them are the best one of some image.
        own: how far torch itself is from the same network in float64; looked at where the goal is missed.
    """

    images: int
    difference: float
    quick_difference: float
    changed: int
    quick_changed: int
    batches_difference: float
    same_operators: bool
    accuracy: float
    classes: int
    own: float | None = None

    @property
    def good(self) -> bool:
        """Whether every difference is allowed."""
        differences = self.difference, self.quick_difference, self.batches_difference
        close = all(each <= self.allowed for each in differences)  # NaN is not
        return close and not self.changed and not self.quick_changed and self.same_operators

    @property
    def allowed(self) -> float:
        """The goal; where float32 doesn't carry the network that far, file and torch both off as torch is."""
        return max(_GOAL, 2 * (self.own or 0.0))


def main() -> None:
    arguments = begin(
        __doc__,
        *options(),
        option("--sides", [8, 28, 32, 64, 224], type=at_least_one, nargs="+"),
        option("--channels", [1, 3], type=at_least_one, nargs="+"),
        positive("--images", 512, "at small sides"),
        positive("--steps", 60, "of the training"),
        positive("--workers", 2, "processes"),
    )
    rows = read_rows(arguments.output)
    jobs = [job for job in _jobs(arguments) if any(_key(*job, side) not in rows for side in arguments.sides)]
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(partial(_tried, arguments), *job) for job in jobs]):
            rows |= done.result()
            write_rows(arguments.output, rows)
            print(f"  {' '.join(next(iter(done.result())).split()[:2])} channels", flush=True)
    wanted = [_key(*job, side) for job in _jobs(arguments) for side in arguments.sides]
    _show({key: Parity(**rows[key]) for key in wanted}, arguments)


def _jobs(options: Options) -> list[tuple[str, int]]:
    return [(name, channels) for name in options.activations for channels in options.channels]


def _key(name: str, channels: int, side: int) -> str:
    return f"{name} {channels} {side}"


def _tried(options: Options, name: str, channels: int) -> dict[str, dict[str, Any]]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = trained(small_net(name, channels), name, channels, options.root, options.steps)
    found = {}
    for side in options.sides:
        count = _FEW_IMAGES if side > _LARGE_SIDE else options.images
        images, labels = batch(options.root, False, range(count), side, channels)
        at_side = settled(network, images)
        found[_key(name, channels, side)] = asdict(parity(at_side, images, labels.numpy()))
    return found


def parity(network: torch.nn.Module, images: torch.Tensor, labels: np.ndarray) -> Parity:
    """Export a network for images (N, C, H, W), N ≥ 7, and compare the files with torch on them."""
    shape = tuple(images.shape[1:])
    file, quick = export_model(network, torch.zeros(2, *shape)), quick_graph(network, shape)[0]
    expected = _of_torch(network, images)
    (difference, changed, several), (quick_difference, quick_changed, quick_several) = (
        _held(model, images.numpy(), expected) for model in (file, quick)
    )
    own = None if max(difference, quick_difference) <= _GOAL else _own(network, images, expected)
    return Parity(
        len(images),
        difference,
        quick_difference,
        changed,
        quick_changed,
        max(several, quick_several),
        operators(file) == operators(quick),
        float((expected.argmax(1) == labels).mean()),
        len(np.unique(expected.argmax(1))),
        own,
    )


def _own(network: torch.nn.Module, images: torch.Tensor, found: np.ndarray) -> float:
    exact = _of_torch(copy.deepcopy(network).double(), images.double())
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def _of_torch(network: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return torch.cat([network(part) for part in images.split(_RUN_AT_ONCE)]).numpy()


def _held(model: onnx.ModelProto, images: np.ndarray, expected: np.ndarray) -> tuple[float, int, float]:
    """Difference, images with another best class, and the difference in small batches."""
    session = onnx_file.open_session(model.SerializeToString())
    starts = range(0, len(images), _RUN_AT_ONCE)
    found = np.concatenate([onnx_file.run(session, images[at : at + _RUN_AT_ONCE]) for at in starts])
    size = np.abs(expected).max()
    batches = [np.abs(onnx_file.run(session, images[:n]) - expected[:n]).max() / size for n in _BATCHES]
    changed = int((found.argmax(1) != expected.argmax(1)).sum())
    return float(np.abs(found - expected).max() / size), changed, float(max(batches))


def _show(rows: dict[str, Parity], options: Options) -> None:
    table([_line(name, options.sides, rows, options.channels) for name in options.activations])
    for key, row in rows.items():
        if not row.good:
            print(f"off: {key}: {row}")
    every = list(rows.values())
    worst = list(rows)[int(np.argmax([row.difference for row in every]))]  # NaN counts as the most
    summary("parity", f"max|Δ|/max|torch| at most {rows[worst].difference:.1e} ({worst})", f"{_GOAL:g}")
    beyond = [row for row in every if row.own is not None]
    held = sum(row.good for row in beyond)
    text = f"{held} of {len(beyond)} as close as torch's own float32 is to float64 (twice that)"
    summary(f"of those over {_GOAL:g}", text, "all")
    summary("parity of the quick graph", f"at most {_most(row.quick_difference for row in every):.1e}", f"{_GOAL:g}")
    summary("batches of 1, 2, 7", f"at most {_most(row.batches_difference for row in every):.1e}", f"{_GOAL:g}")
    same = sum(not row.changed and not row.quick_changed for row in every)
    images = sum(row.images for row in every)
    summary("same best class", f"in {same} of {len(every)} networks, {images:,} images", "all")
    equal = sum(row.same_operators for row in every)
    summary("quick graph with the file's operators", f"{equal} of {len(every)}", "all")


def _most(differences: Iterable[float]) -> float:
    """The largest value; NaN where one is NaN."""
    return float(np.max(list(differences)))


def _line(name: str, sides: list[int], rows: dict[str, Parity], channels: list[int]) -> dict[str, str]:
    line = {"activation": name}
    for side in sides:
        line[f"{side}²"] = f"{_most(rows[_key(name, each, side)].difference for each in channels):.1e}"
    of_it = [rows[_key(name, each, side)] for each in channels for side in sides]
    line["quick"] = f"{_most(row.quick_difference for row in of_it):.1e}"
    line["changed"] = str(sum(row.changed + row.quick_changed for row in of_it))
    line["accuracy"] = f"{min(row.accuracy for row in of_it):.2f} to {max(row.accuracy for row in of_it):.2f}"
    line["classes"] = f"{min(row.classes for row in of_it)} to {max(row.classes for row in of_it)}"
    return line


if __name__ == "__main__":
    main()
