"""Differences that `hwnas compare` sees: a file against itself, and a net against the same net with 5 % more work.

A convolutional net of 20 blocks meets itself, and one of 21; each comparison starts anew. Both nets come small (about
0.25 ms) and large (about 2 ms).
"""

import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

from common import summary
from options import amount, begin, positive, some_of

from latency_models.devices.resolve import resolve_device
from latency_models.timing.meter import LatencyMeter, Ratio
from latency_models.timing.reference_models import ReferenceSpec, build_reference

_SIZES = {"small": (16, 8), "large": (32, 14)}
"""Channels and side of the nets."""


def main() -> None:
    arguments = begin(
        __doc__,
        positive("--repeats", 20, "comparisons each"),
        amount("--seconds", 2.0, "budget of each"),
        some_of("--sizes", _SIZES),
    )
    with TemporaryDirectory() as folder:
        store = Path(folder) / "references.json"
        for size in arguments.sizes:
            channels, side = _SIZES[size]
            base, more = (build_reference(ReferenceSpec("net", channels, side, blocks, 1.0)) for blocks in (20, 21))
            for label, other, wanted in (("itself", base, False), ("5 % more work", more, True)):
                ratios = [_compared(base, other, store, arguments.seconds) for _ in range(arguments.repeats)]
                _told(f"{size} net against {label}", ratios, wanted=wanted)


def _compared(base: bytes, other: bytes, store: Path, seconds: float) -> Ratio:
    with LatencyMeter(resolve_device("cpu"), store=store) as meter:
        return meter.compare(other, base, budget_s=seconds)


def _told(label: str, ratios: list[Ratio], *, wanted: bool) -> None:
    right = sum(ratio.different is wanted for ratio in ratios)
    middle = statistics.median(ratio.ratio for ratio in ratios)
    width = statistics.median(ratio.half_width for ratio in ratios)
    found = f"{'a difference' if wanted else 'no difference'} seen in {right} of {len(ratios)}"
    summary(label, f"{found}, median ratio {middle:.4f} ±{width:.2%}", f"{round(0.95 * len(ratios))} of {len(ratios)}")


if __name__ == "__main__":
    main()
