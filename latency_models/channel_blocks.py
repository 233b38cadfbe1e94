"""The blocks of channels by which a device computes convolutions: a width within a block costs what the whole one does.

Runtimes lay channels out in blocks of a vector's width and pad the last one. Where the blocks are of 16 channels, a
dense convolution of 24 costs what one of 32 does. The block is found by timing small networks of several widths in one
rotation, and never guessed: where the steps aren't clear there is none, with the reason.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from latency_models.errors import InvalidModelError
from latency_models.microbench.graphs import GraphBuilder
from latency_models.timing.statistics import NORMAL_95, Ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from latency_models.timing.meter import LatencyMeter

BLOCKS = (64, 32, 16, 8, 4, 2, 1)
"""Numbers of channels that are looked for, widest first."""
BUDGET_S = 3.0
"""Seconds for the widths of one kind of convolution; where these don't tell, twice as many once more."""
_BASE = 32
"""The width that times are relative to."""
_CELLS: dict[int, tuple[tuple[int, int], ...]] = {
    64: ((64, 128),),
    32: ((32, 64), (64, 96)),
    16: ((16, 32), (32, 48)),
    8: ((16, 24), (24, 32)),
    4: ((20, 24), (28, 32)),
    2: ((30, 32),),
}
"""For each block two neighbouring multiples of it, between which the middle width is timed too: that one costs what the
wider multiple does where this is the block, and less where the block is smaller."""
WIDTHS = tuple(
    sorted({width for cells in _CELLS.values() for low, high in cells for width in (low, (low + high) // 2, high)})
)
"""The widths that are timed, narrowest first."""
_HALF = 0.5
_LEAST_GROWTH = 0.2
"""The power of the width by which the time has to grow at least from one multiple of a block to the next."""
_TAIL = 0.025
_PATIENCE = 2.5
"""A machine so busy that the first try took this many times its seconds won't tell more in a second one."""
_DRAWS = 4000
_SEED = 20260101


@dataclass(frozen=True)
class ConvolutionKind:
    """A kind of convolution whose widths are timed.

    Attributes:
        name: `dense` or `depthwise`.
        side: of the map, in pixels.
    """

    name: str
    side: int

    def network(self, width: int) -> bytes:
        """Two 3×3 convolutions of `width` channels, each with a ReLU, as serialised ONNX: (1, width, side, side)."""
        g = GraphBuilder(np.random.default_rng(width))
        x = g.image(1, width, self.side, self.side)
        groups = width if self.name == "depthwise" else 1
        for _ in range(2):
            x = g.activation(g.conv(x, width, 3, groups=groups), "Relu")
        return g.model(x)


DENSE = ConvolutionKind("dense", side=16)
DEPTHWISE = ConvolutionKind("depthwise", side=48)


@dataclass(frozen=True)
class Block:
    """The block of one kind of convolution.

    Attributes:
        channels: of a block; None where the times show none.
        unavailable: the reason why there is none; empty where there is one.
        times: width → time relative to that of 32 channels.
    """

    channels: int | None
    unavailable: str
    times: Mapping[int, Ratio]

    def rows(self) -> list[dict[str, float]]:
        """The times for JSON, narrowest first."""
        return [
            {"channels": width, "relative_time": each.ratio, "low": each.low, "high": each.high}
            for width, each in sorted(self.times.items())
        ]


@dataclass(frozen=True)
class ChannelBlocks:
    """The blocks of a device.

    Attributes:
        dense: of convolutions that read all channels.
        depthwise: of those that read one channel each.
    """

    dense: Block
    depthwise: Block

    def as_dict(self) -> dict[str, Any]:
        """The record for JSON: null and `<field>_unavailable` in place of a block that wasn't found."""
        document: dict[str, Any] = {}
        for name, block in (("dense", self.dense), ("depthwise", self.depthwise)):
            document[name] = block.channels
            if block.channels is None:
                document[f"{name}_unavailable"] = block.unavailable
        return {**document, "evidence": {"dense": self.dense.rows(), "depthwise": self.depthwise.rows()}}


def find_channel_blocks(
    meter: LatencyMeter, prepare: Callable[[bytes], bytes] = bytes, *, budget_s: float = BUDGET_S
) -> ChannelBlocks:
    """Time the blocks of a device, in some 5 to 15 seconds.

    Args:
        meter: of the device.
        prepare: makes of a float model the one that the device runs, such as its INT8 form.
        budget_s: for each kind of convolution.

    Raises:
        DeviceError, TimerError: the device can't be used, or was lost on the way.
    """
    return ChannelBlocks(*(_found(meter, prepare, kind, budget_s) for kind in (DENSE, DEPTHWISE)))


def _found(meter: LatencyMeter, prepare: Callable[[bytes], bytes], kind: ConvolutionKind, budget_s: float) -> Block:
    widths = (_BASE, *(width for width in WIDTHS if width != _BASE))
    models = [prepare(kind.network(width)) for width in widths]
    block = Block(None, "", {})
    for seconds in (budget_s, 2.0 * budget_s):
        began = time.monotonic()
        try:
            ratios = meter.measure_together(models, budget_s=seconds).ratios
        except InvalidModelError as error:
            return Block(None, f"the device can't run a {kind.name} 3×3 convolution ({error})", {})
        block = block_of(dict(zip(widths, ratios, strict=True)), kind)
        if block.channels is not None or time.monotonic() - began > _PATIENCE * seconds:
            break
    return block


def block_of(times: Mapping[int, Ratio], kind: ConvolutionKind) -> Block:
    """The block that times show.

    The widest block wins whose middle widths save nothing: each costs more than halfway between its share of the
    next multiple and the whole of it, by the whole of its 95 % interval. Every wider one has to be clearly refuted
    in the same way.

    Args:
        times: width → time relative to a common one, of all widths that `find_channel_blocks` times.
        kind: of the convolutions.
    """
    draws = _drawn(times)
    for block in BLOCKS[:-1]:
        verdicts = [_verdict(draws, low, high, kind) for low, high in _CELLS[block]]
        unclear = next((each.unclear for each in verdicts if each.unclear), "")
        if unclear:
            return Block(None, unclear, times)
        if all(each.padded for each in verdicts):
            return Block(block, "", times)
        if any(each.padded for each in verdicts):
            return Block(None, f"some widths cost as if in blocks of {block} channels, and others don't", times)
    return Block(BLOCKS[-1], "", times)


@dataclass(frozen=True)
class _Verdict:
    """Whether the middle of two widths costs what the wider one does; `unclear` has words where that can't be told."""

    padded: bool = False
    unclear: str = ""


def _verdict(draws: Mapping[int, np.ndarray], low: int, high: int, kind: ConvolutionKind) -> _Verdict:
    middle = (low + high) // 2
    growth = (draws[high] - draws[low]) / math.log(high / low)  # the exponent of time over width
    if np.quantile(growth, _TAIL) < _LEAST_GROWTH:
        noisy = np.median(growth) >= _LEAST_GROWTH
        what = "are too noisy to tell" if noisy else f"hardly differ between {low} and {high} channels"
        return _Verdict(unclear=f"the times of {kind.name} convolutions {what}")
    whole = np.exp(draws[high])
    share = np.exp(draws[low] + growth * math.log(middle / low))
    saved = (whole - np.exp(draws[middle])) / (whole - share)
    least, most = np.quantile(saved, [_TAIL, 1.0 - _TAIL])
    if most < _HALF or least > _HALF:
        return _Verdict(padded=bool(most < _HALF))
    if most - least > _HALF:
        return _Verdict(unclear=f"the times of {kind.name} convolutions are too noisy to tell")
    costs = float(np.exp(np.median(draws[middle] - draws[high])))
    return _Verdict(
        unclear=f"{middle} channels cost {costs:.2f} of what {high} do ({kind.name}): neither the whole nor their share"
    )


def _drawn(times: Mapping[int, Ratio]) -> dict[int, np.ndarray]:
    """Logarithms of the times, each drawn often within its interval, so that its error reaches what is made of it."""
    rng = np.random.default_rng(_SEED)
    drawn = {}
    for width in sorted(times):
        each = times[width]
        sd = math.log(each.high / each.low) / (2.0 * NORMAL_95)
        drawn[width] = math.log(each.ratio) + sd * rng.standard_normal(_DRAWS)
    return drawn


def off_block(widths: Sequence[int], block: int) -> tuple[int, ...]:
    """The widths that are no multiples of a block."""
    return tuple(width for width in widths if width % block)
