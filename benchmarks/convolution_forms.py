"""A convolution's forward and backward: as torch has it, and in the form that a training of the product gives it.

One thread, channels-last maps, both in alternation; the median of the repeats counts. The form is a matter of the
shape: a matrix product, products of bf16 numbers, or the convolution as it is.
"""

import statistics
import time

import torch
from common import summary, table
from options import Options, begin, positive, some_of
from torch import nn

from pipeline.config.run import TrainOptions
from pipeline.evaluators.convolution_forms import fast_convolutions, may_use_bf16
from pipeline.memory_settings import kept_memory

SHAPES = {
    "1x1": [
        (side, into, out, 1, 1)
        for side in (1, 2, 4, 7, 8, 14, 28)
        for into, out in ((8, 16), (16, 64), (64, 16), (32, 128), (96, 192))
    ],
    "dense": [
        (side, into, out, kernel, 1)
        for side in (4, 7, 14, 28)
        for into, out, kernel in ((8, 16, 3), (16, 16, 3), (16, 16, 5), (32, 32, 3), (32, 32, 5), (64, 64, 3))
    ],
    "strided": [(28, 16, 32, 3, 2), (28, 32, 64, 5, 2), (14, 32, 64, 3, 2), (14, 64, 128, 5, 2), (7, 32, 64, 3, 2)],
}
"""Kind → side of the map, channels before and after, kernel, stride."""
_WARM_UP = 2


def compared(shape: tuple[int, int, int, int, int], options: Options, *, bf16: bool) -> tuple[float, float]:
    """Median seconds of the plain convolution, and of the one in its training form."""
    side, into, out, kernel, stride = shape
    plain, fast = (nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False) for _ in range(2))
    for module in (plain, fast):
        module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    maps = torch.randn(options.batch, into, side, side).to(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.randn_like(plain(maps)).to(memory_format=torch.channels_last)
    seconds: dict[nn.Module, list[float]] = {plain: [], fast: []}
    with fast_convolutions(fast, bf16=bf16):
        for number in range(_WARM_UP + options.repeats):
            for module, found in seconds.items():
                began = time.process_time()
                module(maps).backward(gradient)
                took = time.process_time() - began
                maps.grad = None
                module.zero_grad()
                if number >= _WARM_UP:
                    found.append(took)
    return statistics.median(seconds[plain]), statistics.median(seconds[fast])


def main() -> None:
    options = begin(__doc__, some_of("--kinds", SHAPES), positive("--batch", 64, "images"), positive("--repeats", 7))
    torch.set_num_threads(1)
    bf16 = may_use_bf16(TrainOptions(), torch.device("cpu"))
    print(f"bf16: {'used' if bf16 else 'not used, since this processor has no instructions for it'}")
    rows, ratios = [], []
    with kept_memory():
        for shape in (shape for kind in options.kinds for shape in SHAPES[kind]):
            before, after = compared(shape, options, bf16=bf16)
            side, into, out, kernel, stride = shape
            rows.append(
                {
                    "map": f"{side}×{side}",
                    "channels": f"{into} → {out}",
                    "kernel, stride": f"{kernel}, {stride}",
                    "plain ms": f"{before * 1e3:.2f}",
                    "in training ms": f"{after * 1e3:.2f}",
                    "of plain": f"{after / before:.2f}",
                }
            )
            ratios.append(after / before)
    table(rows)
    summary("the form that gains least", f"{max(ratios):.2f} of the plain convolution's time", "≤ 1.05")


if __name__ == "__main__":
    main()
