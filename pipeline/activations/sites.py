"""Behaviour of a trained network's activations on real images: saturation, dead units, gradients, curves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.activations.modules import sites_of
from pipeline.activations.facts import ActivationCurve, ActivationSite, LearnedParameter, Sites
from pipeline.activations.places import name_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt

SATURATED_BELOW = 0.01
"""Magnitude of the derivative below which an input counts as saturated: less than 1 % of a gradient passes."""

# A slope of exactly 0.01, leaky relu's usual one, must not count as saturated.
_SATURATED = SATURATED_BELOW * (1.0 - 1e-3)
_LEAST_IMAGES, _MOST_IMAGES = 32, 256
_MOST_PIXELS = 1 << 21
BATCH_PIXELS = 1 << 18
"""Pixels of the images that pass the network at a time."""
_KEPT_VALUES = 20_000
_BINS = 40
_TAIL = 0.5
_POINTS = 121
_LISTED = 8
_SEED = 0


def images_for(count: int, height: int, width: int) -> npt.NDArray[np.int64]:
    """Indices of the images to use out of `count`: evenly spaced, at most 256, and fewer of large ones."""
    most = max(_LEAST_IMAGES, min(_MOST_IMAGES, _MOST_PIXELS // (height * width)))
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def sites_facts(
    network: nn.Module, start: nn.Module, places: Mapping[str, str], inputs: Tensor, labels: Tensor
) -> Sites:
    """Observe every activation module of a network on labelled images.

    Args:
        network: trained, on the CPU, in eval mode; left as it was.
        start: the same network before the training, for its activations' parameters.
        places: path → place of the architecture; modules without one are fixed by the space.
        inputs: (N, C, H, W), preprocessed.
        labels: (N,).
    """
    # An identity that no decision chose is a placeholder.
    modules = {p: m for p, m in sites_of(network).items() if p in places or type(m) is not nn.Identity}
    if not modules:
        return Sites(0, (), "the network has no activation modules")
    tallies = {path: _Tally(module) for path, module in modules.items()}
    height, width = inputs.shape[2:]
    for batch in torch.split(torch.arange(len(labels)), max(1, BATCH_PIXELS // (height * width))):
        for path, x, gradient in _passed(network, modules, inputs[batch], labels[batch], len(labels)):
            tallies[path].add(x, gradient)
    beginnings = dict(start.named_modules())
    sites = [
        _site(path, places.get(path, ""), tally, beginnings.get(path)) for path, tally in tallies.items() if tally.count
    ]
    return Sites(len(labels), tuple(sites))


def _passed(
    network: nn.Module, modules: Mapping[str, nn.Module], inputs: Tensor, labels: Tensor, images: int
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield for each call of each module its path, its input, and the mean loss's gradient at its output."""
    seen: list[tuple[str, Tensor, Tensor]] = []
    before: list[Tensor] = []

    def enter(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        before.append(arguments[0].detach().clone())  # a module that works in place overwrites it

    def leave(path: str, output: Tensor) -> None:
        seen.append((path, before.pop(), output))

    hooks = []
    for path, module in modules.items():
        hooks.append(module.register_forward_pre_hook(enter))
        hooks.append(module.register_forward_hook(lambda _, __, output, path=path: leave(path, output)))
    try:
        # The input asks for a gradient, so that every output has one, also where weights are frozen.
        logits = network(inputs.clone().requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    loss = F.cross_entropy(logits, labels, reduction="sum") / images
    gradients = torch.autograd.grad(loss, [output for _, _, output in seen], allow_unused=True)
    for (path, x, output), gradient in zip(seen, gradients, strict=True):
        yield path, x, torch.zeros_like(output) if gradient is None else gradient.detach()


@dataclass
class _Tally:
    """Sums over a site's calls."""

    module: nn.Module
    count: int = 0
    rank: int = 0
    units: int = 0
    total: float = 0.0
    squares: float = 0.0
    saturated: int = 0
    alive: Tensor | None = None
    reaching: float = 0.0
    passing: float = 0.0
    outputs: int = 0
    missing: str = ""
    kept: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def add(self, x: Tensor, gradient: Tensor) -> None:
        """Add one call, with its input and the loss's gradient at its output."""
        first = self.count == 0
        self.rank, self.units = x.dim(), x.shape[1] if x.dim() > 1 else 1
        self.count += x.numel()
        self.total += float(x.double().sum())
        self.squares += float(x.double().square().sum())
        values = x.flatten()
        drawn = torch.randint(len(values), (_KEPT_VALUES,), generator=torch.Generator().manual_seed(_SEED))
        self.kept.append((values if len(values) <= _KEPT_VALUES else values[drawn]).numpy())
        self._add_gradient(x, gradient)
        if first:
            self.missing = why_not_elementwise(self.module, x)
        if not self.missing:
            self._add_slopes(x)

    def _add_gradient(self, x: Tensor, gradient: Tensor) -> None:
        leaf = x.clone().requires_grad_()
        (passed,) = torch.autograd.grad(self.module(leaf.clone()), leaf, gradient)
        self.reaching += float(gradient.double().square().sum())
        self.passing += float(passed.double().square().sum())
        self.outputs += gradient.numel()

    def _add_slopes(self, x: Tensor) -> None:
        awake = slopes(self.module, x).abs() >= _SATURATED
        self.saturated += int((~awake).sum())
        units = awake.transpose(0, 1).reshape(self.units, -1).any(1) if x.dim() > 1 else awake.any()[None]
        self.alive = units if self.alive is None else self.alive | units


def slopes(module: nn.Module, x: Tensor) -> Tensor:
    """Derivatives of an elementwise module at each value of x, of x's shape."""
    leaf = x.detach().clone().requires_grad_()
    (derivatives,) = torch.autograd.grad(module(leaf.clone()).sum(), leaf)
    return derivatives


def why_not_elementwise(module: nn.Module, x: Tensor) -> str:
    """The reason why a module is no elementwise function, which has a curve; empty for one that is."""
    leaf = x[:2].detach().clone().requires_grad_()
    output = module(leaf.clone())
    if output.shape != leaf.shape:
        return "its output has another shape than its input"
    generator = torch.Generator().manual_seed(_SEED)
    for at in torch.randint(output.numel(), (3,), generator=generator).tolist():
        (gradient,) = torch.autograd.grad(output.flatten()[at], leaf, retain_graph=True)
        gradient.flatten()[at] = 0.0
        if bool(gradient.any()):
            return "its outputs depend on more than the input at their place"
    return ""


def _site(path: str, place: str, tally: _Tally, beginning: nn.Module | None) -> ActivationSite:
    values = np.concatenate(tally.kept)
    low, p1, p50, p99, high = (float(v) for v in np.percentile(values, [_TAIL, 1, 50, 99, 100 - _TAIL]))
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    counts, edges = np.histogram(values, _BINS, (low, high))
    mean = tally.total / tally.count
    module, reaching = tally.module, math.sqrt(tally.reaching / tally.outputs)
    return ActivationSite(
        path=path,
        place=place,
        activation=name_of(module, tally.units),
        kind=f"{type(module).__qualname__} {module!r}",
        units=tally.units,
        mean=mean,
        std=math.sqrt(max(0.0, tally.squares / tally.count - mean**2)),
        percentile_1=p1,
        percentile_50=p50,
        percentile_99=p99,
        saturated=None if tally.missing else tally.saturated / tally.count,
        dead=None if tally.alive is None else int((~tally.alive).sum()),
        gradient=reaching,
        gain=math.sqrt(tally.passing / tally.reaching) if tally.reaching > 0.0 else None,
        edges=_rounded(edges),
        shares=_rounded(counts / len(values)),
        learnt=learned_parameters(module, beginning, tally.units),
        curve=None if tally.missing else _curve(module, low, high, tally),
        missing=tally.missing,
    )


def learned_parameters(module: nn.Module, beginning: nn.Module | None, units: int) -> tuple[LearnedParameter, ...]:
    """The module's parameters beside their values in `beginning`; up to 8 that no channel owns are listed singly."""
    before = {} if beginning is None else dict(beginning.named_parameters())
    parameters = []
    for name, parameter in module.named_parameters():
        now = parameter.detach().double().flatten()
        then = before[name].detach().double().flatten() if name in before else now
        if 1 < len(now) <= _LISTED and len(now) != units:
            parameters += [_learned(f"{name}[{n}]", then[n : n + 1], now[n : n + 1]) for n in range(len(now))]
        else:
            parameters.append(_learned(name, then, now))
    return tuple(parameters)


def _learned(name: str, then: Tensor, now: Tensor) -> LearnedParameter:
    return LearnedParameter(name, len(now), float(then.mean()), float(now.mean()), float(now.min()), float(now.max()))


def _curve(module: nn.Module, low: float, high: float, tally: _Tally) -> ActivationCurve:
    """The module's curve over all channels, since each may have parameters of its own."""
    points = torch.linspace(low, high, _POINTS)
    shape = (-1, tally.units) + (1,) * (tally.rank - 2)
    x = points.repeat_interleave(tally.units).reshape(shape) if tally.rank > 1 else points
    with torch.no_grad():
        y = module(x.clone()).reshape(_POINTS, -1)
    slope = slopes(module, x).reshape(_POINTS, -1).mean(1)
    across = (points, y.mean(1), y.amin(1), y.amax(1), slope)
    return ActivationCurve(*(_rounded(values.numpy()) for values in across))


def _rounded(values: npt.NDArray[np.floating]) -> tuple[float, ...]:
    """Round to as many digits as a drawing needs."""
    return tuple(float(f"{float(value):.5g}") for value in values)
