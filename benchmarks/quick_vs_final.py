"""Whether the quick graph that a search times is the file that is deployed in the end.

Random candidates of `convnet` with trained-like weights are written twice, by the quick builder and by the final
export. Their latencies are compared in alternation, and their sizes, operators and outputs with them. The mix:
inputs of 8, 28, 32 and 64 pixels, 1 and 3 channels, activations chosen for the network, a stage or a block from
the whole table. What lies outside the goal is compared once more for longer, because a short comparison on a busy
machine errs; both ratios are printed and the longer one counts.
"""

import random
import statistics
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from common import interval, summary
from networks import convnet, operators, parameters, random_architecture
from options import SEED, amount, begin, positive
from torch import nn

from export import onnx_file
from export.activations import table as activations
from export.exporter.graph_builder import quick_graph
from export.exporter.onnx_export import export_model
from latency_models.devices.resolve import resolve_device
from latency_models.timing.meter import LatencyMeter, Ratio
from pipeline.spaces.base import activations_of, architecture_id

_GOAL = 0.03
_LONGER = 3.0
_SIZES = (8, 28, 32, 64)
_CHANNELS = (1, 3)
_SCOPES = ("network", "stage", "block")
_IMAGES = 8


@dataclass(frozen=True)
class Pair:
    """One candidate, written twice; the difference of outputs is relative to torch's largest output."""

    activations: frozenset[str]
    ratio: Ratio
    first_ratio: Ratio | None
    size_ratio: float
    quick_difference: float
    final_difference: float
    same_operators: bool

    @property
    def off(self) -> float:
        """How far the latencies are apart, as a share."""
        return abs(self.ratio.ratio - 1.0)


def main() -> None:
    arguments = begin(__doc__, positive("--candidates", 30), amount("--seconds", 1.5, "of a comparison"), SEED)
    rng = random.Random(arguments.seed)
    torch.manual_seed(arguments.seed)
    meter = LatencyMeter(resolve_device("cpu"))
    pairs = [_pair(number, rng, meter, arguments.seconds) for number in range(arguments.candidates)]
    _print_summary(pairs)


def _pair(number: int, rng: random.Random, meter: LatencyMeter, seconds: float) -> Pair:
    size = _SIZES[number % len(_SIZES)]
    shape = (_CHANNELS[number // len(_SIZES) % len(_CHANNELS)], size, size)
    scope = _SCOPES[number % len(_SCOPES)]
    space = convnet(shape, activations=list(activations.names()), activation_scope=scope)
    architecture = random_architecture(space, rng)
    if scope == "network":  # one activation a candidate: all of the table in turn rather than by chance
        names = activations.names()
        architecture["activation"] = names[number // len(_SCOPES) % len(names)]
    model = space.build(architecture)
    _make_trained_like(model, shape)
    quick, built_by = quick_graph(model, shape)
    final = export_model(model, torch.zeros(2, *shape))
    contents = quick.SerializeToString(), final.SerializeToString()
    ratio, first_ratio = meter.compare(*contents, budget_s=seconds), None
    if abs(ratio.ratio - 1.0) > _GOAL:
        first_ratio, ratio = ratio, meter.compare(*contents, budget_s=_LONGER * seconds)
    pair = Pair(
        frozenset(activations_of(architecture).values()),
        ratio,
        first_ratio,
        len(contents[0]) / len(contents[1]),
        *_differences(model, torch.randn(_IMAGES, *shape), contents),
        same_operators=operators(quick) == operators(final),
    )
    retried = f", {pair.first_ratio.ratio:.4f} at first" if pair.first_ratio else ""
    print(
        f"{number + 1:2d} {architecture_id(architecture)} {shape[1]:2d}²×{shape[0]} {scope:7s}"
        f" {parameters(model) / 1e6:.2f} M {built_by}"
        f" | latency {pair.ratio.ratio:.4f} ({pair.ratio.low:.4f} to {pair.ratio.high:.4f}{retried})"
        f" | size {pair.size_ratio:.4f}"
        f" | off torch {pair.quick_difference:.1e} quick, {pair.final_difference:.1e} final"
        f" | operators {'same' if pair.same_operators else _operator_difference(quick, final)}"
        f" | {' '.join(sorted(pair.activations))}",
        flush=True,
    )
    return pair


def _make_trained_like(model: nn.Module, shape: tuple[int, int, int]) -> None:
    """Batch norm as after training: statistics of data, none of them exactly what the weights alone would give."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain average of what it sees
        norm.reset_running_stats()
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0.0, 0.2)
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, *shape))
        for norm in norms:
            norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
        for module in model.modules():
            if isinstance(module, nn.PReLU):
                module.weight.uniform_(0.05, 0.4)
    model.eval()


def _differences(model: nn.Module, images: torch.Tensor, contents: tuple[bytes, bytes]) -> list[float]:
    """How far each file's outputs are from torch's."""
    with torch.inference_mode():
        expected = model.eval()(images).numpy()
    found = [onnx_file.run(onnx_file.open_session(content), images.numpy()) for content in contents]
    return [float(np.abs(each - expected).max() / np.abs(expected).max()) for each in found]


def _operator_difference(quick: onnx.ModelProto, final: onnx.ModelProto) -> str:
    more, fewer = operators(quick) - operators(final), operators(final) - operators(quick)
    return f"quick has {dict(more)}, final has {dict(fewer)}"


def _print_summary(pairs: list[Pair]) -> None:
    many = len(pairs)
    ratios = [pair.ratio.ratio for pair in pairs]
    worst = max(pairs, key=lambda pair: pair.off)
    worst_words = interval(worst.ratio.ratio, worst.ratio.low, worst.ratio.high, ".4f")
    within = sum(pair.off <= _GOAL for pair in pairs)
    again = sum(pair.first_ratio is not None for pair in pairs)
    unseen = sorted(set(activations.names()).difference(*(pair.activations for pair in pairs)))
    print(f"\nactivations that no candidate had: {', '.join(unseen) or 'none'}")
    print(f"compared again for {_LONGER:g} times as long: {again} of {many}")
    summary(
        "latency of the quick graph over the final file's",
        f"median {statistics.median(ratios):.4f}, worst {worst_words}, {within} of {many} within 3 %",
        "all within 3 %",
    )
    sizes = [pair.size_ratio for pair in pairs]
    summary("size", f"quick over final {min(sizes):.4f} to {max(sizes):.4f}", "none set")
    same = sum(pair.same_operators for pair in pairs)
    summary("operators", f"same histogram in {same} of {many}", "all")
    quick = max(pair.quick_difference for pair in pairs)
    final = max(pair.final_difference for pair in pairs)
    summary("outputs", f"at most {quick:.1e} (quick) and {final:.1e} (final) off torch's", "1e-4, as for a bundle")


if __name__ == "__main__":
    main()
