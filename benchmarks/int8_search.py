"""INT8 in a search: time to quantise a candidate, and whether made-up ranges cost the same as calibrated ones.

Random candidates with an activation of the whole table in each block. Each is quantised twice, with made-up ranges (for
its costs) and calibrated on 256 images (for its accuracy); the two are timed in alternation, and so are the calibrated
one and the float network. Beside it ONNX Runtime's own quantize_static, in the same form.
"""

import logging
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from common import interval, spread, summary, table
from networks import convnet, deviation, distinct_architectures, operators, parameters
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from options import SEED, Options, amount, begin, option, positive

from export import onnx_file
from export.activations import table as activations
from export.exporter.graph_builder import quick_graph
from export.quantization.quantize import quantize_int8, quantize_like
from latency_models.devices.device import Device
from latency_models.timing.meter import LatencyMeter

IMAGES = 256


def main() -> None:
    options = begin(
        __doc__,
        positive("--candidates", 10, "how many"),
        positive("--size", 32, "of the images"),
        amount("--seconds", 2.0, "for each comparison"),
        option("--parameters", (4e5, 8e5), "least and most of a candidate", type=float, nargs=2),
        SEED,
    )
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    shape = (3, options.size, options.size)
    images = np.random.default_rng(options.seed).standard_normal((IMAGES, *shape)).astype(np.float32)
    meter = LatencyMeter(Device())
    rows: list[dict[str, Any]] = []
    for graph, size in candidates(shape, options):
        rows.append({"parameters": size, **judged(graph, images, meter, options.seconds)})
        print(f"  {len(rows)} of {options.candidates}", flush=True)
    show(rows)


def candidates(shape: tuple[int, int, int], options: Options) -> Any:
    """Quick graphs of random candidates of the size asked for, and how many parameters each has."""
    space = convnet(shape, activations=list(activations.names()), activation_scope="block")
    found = 0
    for architecture in distinct_architectures(space, random.Random(options.seed), 50 * options.candidates):
        network = space.build(architecture).eval()
        if options.parameters[0] <= parameters(network) <= options.parameters[1]:
            found += 1
            yield quick_graph(network, shape)[0], parameters(network)
        if found == options.candidates:
            return


def judged(graph: onnx.ModelProto, images: Any, meter: LatencyMeter, seconds: float) -> dict[str, Any]:
    plain = graph.SerializeToString()
    like, like_s = timed(lambda: quantize_like(plain))
    calibrated, int8_s = timed(lambda: quantize_int8(graph, images))
    static, static_s = timed(lambda: by_quantize_static(graph, images))
    content = calibrated.SerializeToString()
    wanted = outputs(plain, images)
    return {
        "like_ms": like_s * 1e3,
        "int8_s": int8_s,
        "static_s": static_s,
        "same": operators(onnx.load_model_from_string(like)) == operators(calibrated) and fused(like) == fused(content),
        "ratio": meter.compare(like, content, budget_s=seconds),
        "int8": meter.compare(content, plain, budget_s=seconds).ratio,
        "static": meter.compare(static, plain, budget_s=seconds).ratio,
        "off": deviation(outputs(content, images), wanted),
        "static_off": deviation(outputs(static, images), wanted),
    }


def timed(work: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


class Batches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """The images in batches of 32."""

    def __init__(self, images: Any) -> None:
        self._batches = iter([{"input": images[start : start + 32]} for start in range(0, len(images), 32)])

    def get_next(self) -> Any:
        return next(self._batches, None)


def by_quantize_static(graph: onnx.ModelProto, images: Any) -> bytes:
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        quantize_static(copy, target, Batches(images), per_channel=True, **kinds)
        return target.read_bytes()


def outputs(model: bytes, images: Any) -> Any:
    return onnx_file.run(onnx_file.open_session(model), images)


def fused(model: bytes) -> Any:
    """The operators that ONNX Runtime runs in the end."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "fused.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return operators(onnx.load(Path(folder) / "fused.onnx"))


def show(rows: list[dict[str, Any]]) -> None:
    table(
        {
            "parameters": f"{row['parameters']:,}",
            "made up, ms": f"{row['like_ms']:.1f}",
            "calibrated, s": f"{row['int8_s']:.2f}",
            "quantize_static, s": f"{row['static_s']:.2f}",
            "same operators": "yes" if row["same"] else "no",
            "made up / calibrated": interval(row["ratio"].ratio, row["ratio"].low, row["ratio"].high, ".4f"),
            "INT8 / fp32": f"{row['int8']:.3f}",
            "quantize_static / fp32": f"{row['static']:.3f}",
            "off": f"{row['off']:.4f}",
            "quantize_static off": f"{row['static_off']:.4f}",
        }
        for row in rows
    )
    worst = max(rows, key=lambda row: abs(row["ratio"].ratio - 1))["ratio"].ratio
    within = sum(abs(row["ratio"].ratio - 1) <= 0.02 for row in rows)
    same = sum(row["same"] for row in rows)
    gains = [row["int8"] / row["static"] for row in rows]
    summary("made-up over calibrated latency", f"worst {worst:.4f}, {within} of {len(rows)} within 2 %", "all")
    summary("same operators, before and after fusion", f"{same} of {len(rows)}", "all")
    summary("quantising with made-up ranges, ms", spread([row["like_ms"] for row in rows]), "at most 50")
    summary("quantising with 256 images, s", spread([row["int8_s"] for row in rows], 2), "at most 1")
    summary("latency over quantize_static's", spread(gains, 3), "at most 1")


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
