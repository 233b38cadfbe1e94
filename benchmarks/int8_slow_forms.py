"""Operators whose integer kernels are slow: networks quantised with them on integers, and with them left in float.

First small networks of such nodes between 1×1 convolutions, then random cells of NAS-Bench-201, which average in many
places. Each is quantised twice with made-up ranges, once as `export.quantization.integer_forms.SLOW_FORMS` has it and
once without that table; the two and the float network are timed in one rotation.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import torch
from common import interval, spread, summary, table
from networks import nasbench201
from options import SEED, amount, begin, positive

from export.exporter.graph_builder import quick_graph
from export.quantization import distrust, integer_forms, qdq
from export.quantization.quantize import QuantizationError, quantize_like
from export.quantization.ranges import made_up
from latency_models.devices.device import Device
from latency_models.microbench.graphs import GraphBuilder, Tensor
from latency_models.timing.meter import LatencyMeter

Build = Callable[[GraphBuilder], Tensor]
_FORMS = ("AveragePool", "Conv", "GlobalAveragePool")


def main() -> None:
    options = begin(
        __doc__,
        positive("--candidates", 6, "cells of NAS-Bench-201"),
        amount("--seconds", 1.2, "for each comparison"),
        SEED,
    )
    torch.manual_seed(options.seed)
    with LatencyMeter(Device()) as meter:
        show_forms(meter, options.seconds)
        show_cells(meter, options)


def show_forms(meter: LatencyMeter, seconds: float) -> None:
    """Each form in float against on integers, whatever the table says of it."""
    rows = []
    for name, build in forms():
        source, values = float_model(build)
        left, whole = (quantised(source, each) for each in (values, ()))
        joint = meter.measure_together([left, whole, source.SerializeToString()], budget_s=seconds)
        found, plain = joint.ratios[1:]
        rows.append(
            {
                "form": name,
                "in float, ms": f"{joint.latencies[0].latency_ms:.3f}",
                "on integers / in float": interval(found.ratio, found.low, found.high, ".2f"),
                "fp32 / in float": f"{plain.ratio:.2f}",
                "the table": "float" if stays_float(source) else "integers",
            }
        )
    table(rows)


def show_cells(meter: LatencyMeter, options: Any) -> None:
    """Cells of NAS-Bench-201 on 3×32×32 images."""
    space, chooser, rows = nasbench201(), random.Random(options.seed), []
    gains = []
    while len(rows) < options.candidates:
        cell = space.at(chooser.randrange(space.size()))
        count = sum(value == "avg_pool_3x3" for value in cell.values())
        if not count:
            continue
        plain = quick_graph(space.build(cell).eval(), (3, 32, 32))[0].SerializeToString()
        now = quantize_like(plain)
        with patch.dict(integer_forms.SLOW_FORMS, clear=True):
            before = quantize_like(plain)
        joint = meter.measure_together([now, before, plain], budget_s=options.seconds)
        found, fp32 = joint.ratios[1:]
        gains.append(1 / found.ratio)
        rows.append(
            {
                "cell": space.key(cell),
                "pools": str(count),
                "now, ms": f"{joint.latencies[0].latency_ms:.3f}",
                "before / now": interval(found.ratio, found.low, found.high, ".2f"),
                "fp32 / before": f"{fp32.ratio / found.ratio:.2f}",
                "fp32 / now": f"{fp32.ratio:.2f}",
            }
        )
    print()
    table(rows)
    summary("INT8 latency of cells with average pools, now over before", spread(gains, 2), "below 1")


def forms() -> Iterator[tuple[str, Build]]:
    for channels, side in ((16, 32), (64, 16), (128, 8)):
        yield f"AveragePool 3×3, stride 1, {channels}×{side}²", pools(channels, side, 3, 1)
    for size in (2, 4):
        yield f"AveragePool {size}×{size}, stride {size}, 64×32²", pools(64, 32, size, size, times=1)
    yield "AveragePool 7×7 of the whole map, 64×7²", pools(64, 7, 7, 1, times=1, padded=False)
    for channels, side in ((32, 16), (128, 8)):
        yield f"GlobalAveragePool, {channels}×{side}²", globally(channels, side)
    for channels, side in ((64, 16), (128, 8)):
        for inside in (1, 2, 4, 8, 16):
            yield f"groups of {inside}, 3×3, {channels}×{side}²", groups(channels, side, channels // inside, channels)
    yield "1 channel in, 2 out, 3×3, 64×16²", groups(64, 16, 64, 128)


def pools(channels: int, side: int, size: int, stride: int, *, times: int = 2, padded: bool = True) -> Build:
    def build(g: GraphBuilder) -> Tensor:
        x = g.image(1, channels, side, side)
        pad = size // 2 if padded and stride == 1 else 0
        for _ in range(times):
            x = g.activation(g.conv(x, channels), "Relu")
            after = (x.dims[2] + 2 * pad - size) // stride + 1
            options = {"kernel_shape": [size, size], "strides": [stride, stride], "pads": [pad] * 4}
            x = g.add("AveragePool", [x], (1, channels, after, after), **options)
        return g.conv(x, channels)

    return build


def globally(channels: int, side: int) -> Build:
    def build(g: GraphBuilder) -> Tensor:
        x = g.activation(g.conv(g.image(1, channels, side, side), channels, 3), "Relu")
        return g.conv(g.global_pool(x), channels)

    return build


def groups(channels: int, side: int, count: int, after: int) -> Build:
    def build(g: GraphBuilder) -> Tensor:
        x = g.image(1, channels, side, side)
        for _ in range(2):
            x = g.activation(g.conv(x, channels), "Relu")
            x = g.activation(g.conv(x, after, 3, groups=count), "Relu")
        return g.conv(x, channels)

    return build


def float_model(build: Build) -> Any:
    """The float network, and the values that its nodes of such a form make."""
    g = GraphBuilder(np.random.default_rng(0))
    model = onnx.load_model_from_string(g.model(build(g)))
    values = [node.output[0] for node in model.graph.node if node.op_type in _FORMS and is_form(node)]
    return model, values


def is_form(node: Any) -> bool:
    group = {each.name: each.i for each in node.attribute}.get("group", 1)
    return node.op_type != "Conv" or group > 1


def quantised(model: Any, float_values: Any) -> bytes:
    """The INT8 form with these values' nodes in float, and no others."""
    with patch.dict(integer_forms.SLOW_FORMS, clear=True):
        plan = distrust.planned(model, float_values)
        return bytes(qdq.write(plan, made_up(plan)).SerializeToString())


def stays_float(model: Any) -> bool:
    """Whether the quantiser leaves something of it in float."""
    try:
        return bool(distrust.planned(model).kept)
    except QuantizationError:
        return True


if __name__ == "__main__":
    main()
