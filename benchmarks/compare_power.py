"""Differences that `hwnas compare` sees: a file against itself, and a net against the same net with 5 % more work.

A convolutional net of 20 blocks meets itself, and one of 21; each comparison starts anew. Both nets come small (about
0.25 ms) and large (about 2 ms).
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from common import at_least_one, heading, summary

from latency_models.devices.resolve import resolve_device
from latency_models.timing.meter import LatencyMeter, Ratio
from latency_models.timing.reference_models import ReferenceSpec, build_reference

if TYPE_CHECKING:
    from latency_models.devices.device import Device

_SIZES = {"small": (16, 8), "large": (32, 14)}
"""Channels and side of the nets."""


def main() -> None:
    """Compare, and count what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=at_least_one, default=20, help="comparisons each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="budget of each (default: %(default)s)")
    parser.add_argument("--sizes", nargs="+", choices=_SIZES, default=list(_SIZES))
    arguments = parser.parse_args()
    heading(__doc__)
    device = resolve_device("cpu")
    with TemporaryDirectory() as folder:
        store = Path(folder) / "references.json"
        for size in arguments.sizes:
            channels, side = _SIZES[size]
            base, more = (build_reference(ReferenceSpec("net", channels, side, blocks, 1.0)) for blocks in (20, 21))
            for label, other, wanted in (("itself", base, False), ("5 % more work", more, True)):
                ratios = [_compared(base, other, device, store, arguments.seconds) for _ in range(arguments.repeats)]
                _told(f"{size} net against {label}", ratios, wanted=wanted)


def _compared(base: bytes, other: bytes, device: Device, store: Path, seconds: float) -> Ratio:
    with LatencyMeter(device, store=store) as meter:
        return meter.compare(other, base, budget_s=seconds)


def _told(label: str, ratios: list[Ratio], *, wanted: bool) -> None:
    right = sum(ratio.different is wanted for ratio in ratios)
    middle = statistics.median(ratio.ratio for ratio in ratios)
    width = statistics.median(ratio.half_width for ratio in ratios)
    found = f"{'a difference' if wanted else 'no difference'} seen in {right} of {len(ratios)}"
    summary(label, f"{found}, median ratio {middle:.4f} ±{width:.2%}", f"{round(0.95 * len(ratios))} of {len(ratios)}")


if __name__ == "__main__":
    main()
