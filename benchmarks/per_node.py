"""Share of a model's time that is led back to modules, and whether the shares are true.

Attribution: quick graphs of `convnet` with each activation of the table, the final exports of some, their INT8 forms,
and published files. Accuracy: a module's share is compared with the change of the network's time when the module is
removed or doubled. Both variants alternate with the whole network, so that disturbances affect them alike.
"""

import copy
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from common import summary, table
from networks import convnet, published_files, random_architecture
from options import SEED, amount, begin, positive

from export.activations import table as activations
from export.exporter.graph_builder import quick_graph
from export.exporter.onnx_export import export_model
from export.lowering.recognition import activations_by_output
from export.quantization.quantize import quantize_like
from latency_models.devices.resolve import resolve_device
from latency_models.errors import CostError
from latency_models.graph.shapes import infer
from latency_models.node_profile import NodeProfile, node_profile
from latency_models.runners.runner import OnnxRuntimeRunner

_SIDE = 32
_FINAL_EXPORTS = 4
_GOAL = 0.96  # reached by names alone


@dataclass(frozen=True)
class Check:
    """A module's share by the profile, and by the change of the time without it or with it twice."""

    module: str
    way: str
    profiled: float
    difference: float


def main() -> None:
    arguments = begin(
        __doc__, amount("--seconds", 1.0, "of a profile or comparison"), positive("--checks", 24, "of shares"), SEED
    )
    _attribute(arguments.seconds, arguments.seed)
    _check_shares(arguments.checks, arguments.seconds, arguments.seed)


def _attribute(seconds: float, seed: int) -> None:
    found: dict[str, list[float]] = {}
    rows = []
    for group, name, model in _models(seed):
        try:
            profile = node_profile(model, resolve_device("cpu"), recognise=activations_by_output, budget_s=seconds)
        except CostError as error:
            print(f"{group} {name}: {error}")
            continue
        found.setdefault(group, []).append(profile.attributed)
        slowest = profile.by_activation[0]
        rows.append(
            {
                "model": f"{group} {name}",
                "ms": f"{profile.latency_ms:.3f}",
                "kernels": str(len(profile.nodes)),
                "attributed": f"{profile.attributed:.2%}",
                "taken off a kernel, µs": f"{profile.profiler_us:.2f}",
                "slowest by activation": f"{slowest.name} {slowest.share:.0%}",
            }
        )
    table(rows)
    for group, shares in found.items():
        summary(
            f"attributed share of the kernels' time, {group}",
            f"median {statistics.median(shares):.2%}, least {min(shares):.2%} of {len(shares)}",
            f"above {_GOAL:.0%}",
        )


def _models(seed: int) -> Iterator[tuple[str, str, bytes | Path]]:
    rng = random.Random(seed)
    shape = (3, _SIDE, _SIDE)
    for number, name in enumerate(activations.names()):
        space = convnet(shape, activations=[name], activation_scope="network")
        net = space.build(random_architecture(space, rng))
        quick = quick_graph(net, shape)[0].SerializeToString()
        yield "quick graph", name, quick
        if number % (len(activations.names()) // _FINAL_EXPORTS) == 0:
            yield "final export", name, export_model(net.eval(), torch.zeros(2, *shape)).SerializeToString()
            yield "INT8", name, quantize_like(quick)
    for path in published_files():
        yield "file", path.stem, path


def _check_shares(count: int, seconds: float, seed: int) -> None:
    rng = random.Random(seed + 1)
    checks: list[Check] = []
    for _ in range(20 * count):
        if len(checks) >= count:
            break
        space = convnet((3, _SIDE, _SIDE), activations=list(activations.names()), activation_scope="block")
        model = quick_graph(space.build(random_architecture(space, rng)), (3, _SIDE, _SIDE))[0]
        checks += _checks_of(model, seconds, rng)
    if not checks:
        return
    print("\nshares by the profile and by the difference that a module makes:")
    table(
        {
            "module": check.module,
            "way": check.way,
            "profiled": f"{check.profiled:.2%}",
            "difference": f"{check.difference:.2%}",
        }
        for check in checks[:count]
    )
    errors = [abs(check.profiled - check.difference) for check in checks]
    pairs = np.array([[check.profiled, check.difference] for check in checks])
    summary(
        "share by the profile against the difference",
        f"off by {100 * statistics.median(errors):.2f} points in the median, {100 * max(errors):.2f} at most;"
        f" correlation {np.corrcoef(pairs.T)[0, 1]:.4f}; together {pairs[:, 0].sum():.3f} and {pairs[:, 1].sum():.3f}",
        "within 2 points, of both signs",
    )


def _checks_of(model: onnx.ModelProto, seconds: float, rng: random.Random) -> list[Check]:
    """Two modules of a network, one removed and one doubled."""
    whole = model.SerializeToString()
    profile: NodeProfile = node_profile(whole, resolve_device("cpu"), recognise=activations_by_output, budget_s=seconds)
    shares = {group.name: group.share for group in profile.by_module}
    possible = [name for name, share in shares.items() if share > 0.02 and _ends(model, name) is not None]
    found = []
    for way, name in zip(("removed", "doubled"), rng.sample(possible, min(2, len(possible))), strict=False):
        changed = _changed(model, name, twice=way == "doubled")
        difference = _difference(changed.SerializeToString(), whole, seconds)
        found.append(Check(name, way, shares[name], difference if way == "doubled" else -difference))
    return found


def _ends(model: onnx.ModelProto, module: str) -> tuple[str, str] | None:
    """The one value that a module reads and the one that it makes, where both have the same shape."""
    inside = [node for node in model.graph.node if _belongs(node, module)]
    stored = {tensor.name for tensor in model.graph.initializer}
    made = {name for node in inside for name in node.output}
    read = {name for node in inside for name in node.input if name not in stored | made}
    outside = {name for node in model.graph.node if not _belongs(node, module) for name in node.input}
    left = made & outside
    if len(read) != 1 or len(left) != 1:
        return None
    (entry,), (end,) = read, left
    shapes = infer(model)
    return (entry, end) if shapes.of(entry) == shapes.of(end) else None


def _belongs(node: onnx.NodeProto, module: str) -> bool:
    return str(node.name).startswith((f"{module}/", f"{module}."))


def _changed(model: onnx.ModelProto, module: str, *, twice: bool) -> onnx.ModelProto:
    """The network without the module, or with it two times in a row."""
    ends = _ends(model, module)
    assert ends is not None
    entry, end = ends
    changed = copy.deepcopy(model)
    nodes: list[Any] = []
    again = {entry: end}
    copies = []
    for node in changed.graph.node:
        if not _belongs(node, module):
            for at, name in enumerate(node.input):
                if name == end:
                    node.input[at] = f"{end}/again" if twice else entry
            nodes.append(node)
        elif twice:
            nodes.append(node)
            copies.append(copy.deepcopy(node))
    for node in copies:
        again.update({name: f"{name}/again" for name in node.output})
    for node in copies:
        node.name += "/again"
        node.input[:] = [again.get(name, name) for name in node.input]
        node.output[:] = [again[name] for name in node.output]
    last = max((at for at, node in enumerate(nodes) if end in node.output), default=-1)
    ordered = [copy.deepcopy(node) for node in (*nodes[: last + 1], *copies, *nodes[last + 1 :])]
    del changed.graph.node[:]
    changed.graph.node.extend(ordered)
    return changed


def _difference(changed: bytes, whole: bytes, seconds: float) -> float:
    """The additional time of the changed network, as a share of the whole one's."""
    device = resolve_device("cpu")
    ratios = []
    for _ in range(3):  # the speed of a session depends a little on where its memory lies
        with OnnxRuntimeRunner(whole, device) as one, OnnxRuntimeRunner(changed, device) as other:
            ends_at = time.perf_counter() + seconds / 3
            times: list[tuple[float, float]] = []
            while len(times) < 10 or time.perf_counter() < ends_at:
                times.append((_timed(one), _timed(other)))
        first, second = (np.quantile(column, 0.3) for column in np.array(times).T)
        ratios.append(float(second / first) - 1.0)
    return statistics.median(ratios)


def _timed(runner: OnnxRuntimeRunner) -> float:
    runner.run()
    began = time.perf_counter()
    runner.run()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
