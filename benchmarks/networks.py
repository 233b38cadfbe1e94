"""Networks that benchmarks measure: random ones of a search space, torchvision's and published files."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from common import SHARED

from pipeline.config.space import ConvNetOptions, NasBench201Options
from pipeline.shims import import_torchvision
from pipeline.spaces.base import architecture_id
from pipeline.spaces.convnet import ConvNetSpace
from pipeline.spaces.nasbench201 import NasBench201Space

NASBENCH201 = SHARED / "data" / "nasbench201.csv.gz"
NASBENCH201_DEVICES = ("gold_6226_ms", "1080ti_1_ms", "raspi4_ms", "samsung_a50_ms", "fpga_ms", "edgegpu_ms")
"""The table of all its networks, and the columns of latencies."""
TORCHVISION = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "efficientnet_b0")


def convnet(input_shape: tuple[int, int, int], classes: int = 10, **options: Any) -> ConvNetSpace:
    """The space `convnet` without any data; `options` are its keys in a config."""
    return ConvNetSpace(ConvNetOptions(name="convnet", **options), input_shape, classes)


def nasbench201(cells: int = 1) -> NasBench201Space:
    """The space `nasbench201` for images of CIFAR-10's size."""
    return NasBench201Space(NasBench201Options(name="nasbench201", cells=cells), (3, 32, 32), 10)


def random_architecture(space: Any, rng: random.Random) -> dict[str, Any]:
    """An architecture with each label drawn uniformly, as NNI's random strategy does, in canonical form."""
    return dict(space.canonical({choice.label: rng.choice(choice.values) for choice in space.choices}))


def distinct_architectures(space: Any, rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Random architectures without repeats; fewer than `count` where a small space gives out."""
    found: dict[str, dict[str, Any]] = {}
    for _ in range(50 * count):
        if len(found) == count:
            break
        architecture = random_architecture(space, rng)
        found[architecture_id(architecture)] = architecture
    return list(found.values())


def parameters(model: Any) -> int:
    """Number of a network's trainable numbers."""
    return sum(parameter.numel() for parameter in model.parameters())


def torchvision_net(name: str) -> Any:
    """A network of torchvision with random weights, in evaluation mode."""
    return import_torchvision().models.get_model(name, weights=None).eval()


def published_files() -> list[Path]:
    """The ONNX files of the shared data."""
    return sorted((SHARED / "data" / "onnx_models").glob("*.onnx"))


def operators(model: onnx.ModelProto) -> Counter[str]:
    """How often each operator stands in a graph; those of other domains as `domain:operator`."""
    return Counter(f"{node.domain}:{node.op_type}" if node.domain else node.op_type for node in model.graph.node)


def deviation(found: np.ndarray, wanted: np.ndarray) -> float:
    """Root mean square of the difference, over the standard deviation."""
    return float(np.sqrt(((found - wanted) ** 2).mean()) / wanted.std())
