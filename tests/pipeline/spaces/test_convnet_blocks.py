"""The blocks of the space convnet against the networks that it builds: what is summed up is what runs."""

import math
import random
import re
from collections import Counter
from itertools import pairwise
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from export.exporter.graph_builder import plain_graph
from helpers.cost_graphs import count
from latency_models.predictors.operators import Operator
from pipeline.config.space import ConvNetOptions
from pipeline.spaces.base import Architecture, Block
from pipeline.spaces.convnet import ConvNetSpace
from pipeline.spaces.convnet_net import FusedBlock, InvertedBlock, ResidualBlock, SqueezeExcitation

CLASSES = 7
PER_CASE = 3
# Each activation is one ONNX node, in a kind of its own.
ACTIVATIONS = {"leaky_relu": "LeakyRelu", "hardswish": "HardSwish", "tanh": "Tanh"}
CASES: list[tuple[tuple[int, int, int], dict[str, Any]]] = [
    ((1, 8, 8), {"width": 8, "activation_scope": "network"}),
    ((1, 28, 28), {"width": 8, "activation_scope": "block", "expansions": [1, 3]}),
    ((3, 32, 32), {"stages": 2, "kernels": [3, 5, 7], "activation_scope": "stage"}),
    ((3, 33, 47), {"stages": 3, "depths": [1, 2, 4], "activation_scope": "block"}),
    ((3, 64, 64), {"blocks": ["residual"], "width_multipliers": [1.0], "squeeze_excitation": [True]}),
    ((2, 96, 96), {"blocks": ["inverted", "fused"], "width_multipliers": [0.5], "squeeze_excitation": [False]}),
    ((3, 128, 128), {"stages": 5, "depths": [1, 2]}),
]


def space_of(shape: tuple[int, int, int], options: dict[str, Any]) -> ConvNetSpace:
    named = {"name": "convnet", "activations": list(ACTIVATIONS), **options}
    return ConvNetSpace(ConvNetOptions(**named), shape, CLASSES)


def drawn(space: ConvNetSpace, count: int, seed: int = 0) -> list[Architecture]:
    rng = random.Random(seed)
    return [space.at(rng.randrange(space.size())) for _ in range(count)]


def histogram(graph: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph.node)


def kernel_of(operator: Operator) -> int:
    return 3 if operator.kind == "stem" else int(re.match(r"(?:conv|depthwise)(\d)", operator.kind)[1])  # type: ignore[index]


def is_convolution(operator: Operator) -> bool:
    return operator.kind == "stem" or operator.kind.startswith(("conv", "depthwise"))


def macs_of(operator: Operator) -> float:
    """Of a convolution, a squeeze-excitation or the head, from the sizes alone."""
    if operator.kind == "linear":
        return operator.sizes[0]
    if operator.kind == "attention":
        return 2.0 * operator.sizes[0] * (operator.sizes[0] // 4)
    if not is_convolution(operator):
        return 0.0
    *channels, side = operator.sizes
    return math.prod(channels) * kernel_of(operator) ** 2 * side**2


@pytest.fixture(scope="module", params=range(len(CASES)), ids=lambda at: str(CASES[at]))
def case(request: pytest.FixtureRequest) -> tuple[ConvNetSpace, list[tuple[Architecture, tuple[Block, ...], Any]]]:
    """Some architectures of one space: their blocks, and their graph."""
    shape, options = CASES[request.param]
    space = space_of(shape, options)
    rows = []
    for architecture in drawn(space, PER_CASE, request.param):
        graph = plain_graph(space.build(architecture), shape)
        rows.append((architecture, space.blocks(architecture), graph))
    return space, rows


class TestPieces:
    def test_shapes_chain_up(self, case: Any) -> None:
        for architecture, blocks, _ in case[1]:
            assert [block.kind for block in blocks][:: len(blocks) - 1] == ["stem", "head"]
            assert len(blocks) - 2 == sum(int(v) for k, v in architecture.items() if k.endswith("_depth"))
            for before, after in pairwise(blocks):
                assert before.output_shape == after.input_shape
            assert blocks[-1].output_shape == (CLASSES, 1, 1)

    def test_shapes_are_those_of_the_network(self, case: Any) -> None:
        space, rows = case
        for architecture, blocks, _ in rows[:1]:
            network, x = space.build(architecture).eval(), torch.zeros(1, *blocks[0].input_shape)
            with torch.inference_mode():
                x = network.stem(x)
                modules = [module for stage in network.stages for module in stage]
                for block, module in zip(blocks[1:-1], modules, strict=True):
                    assert tuple(x.shape[1:]) == block.input_shape
                    x = module(x)
                assert tuple(x.shape[1:]) == blocks[-1].input_shape

    def test_multiply_accumulates_are_the_graphs(self, case: Any) -> None:
        for _, blocks, graph in case[1]:
            told = sum(macs_of(operator) for block in blocks for operator in block.operators)
            assert told == pytest.approx(count(graph).macs, rel=1e-9)

    def test_work_is_that_of_padded_channels(self, case: Any) -> None:
        for _, blocks, _ in case[1]:
            for operator in (o for block in blocks for o in block.operators if is_convolution(o)):
                *channels, side = operator.sizes
                padded = math.prod(16 * math.ceil(each / 16) for each in channels)
                assert operator.work[0] == pytest.approx(padded * kernel_of(operator) ** 2 * side**2)

    def test_operators_are_as_many_as_the_graphs(self, case: Any) -> None:
        for _, blocks, graph in case[1]:
            kinds = Counter(operator.kind for block in blocks for operator in block.operators)
            depthwise = sum(count for kind, count in kinds.items() if kind.startswith("depthwise"))
            dense = sum(count for kind, count in kinds.items() if kind.startswith(("conv", "stem")))
            nodes = histogram(graph)
            grouped = sum(
                node.op_type == "Conv" and any(a.name == "group" and a.i > 1 for a in node.attribute)
                for node in graph.graph.node
            )
            assert depthwise == grouped
            assert dense + depthwise + 2 * kinds["attention"] == nodes["Conv"]
            assert kinds["add"] == nodes["Add"]
            assert kinds["attention"] == nodes["HardSigmoid"]
            assert kinds["linear"] == nodes["Gemm"] == 1
            for name, op_type in ACTIVATIONS.items():
                assert kinds[name] + kinds[f"add+{name}"] == nodes[op_type]

    def test_work_and_sizes_suit_a_cost_model(self, case: Any) -> None:
        widths: dict[str, set[tuple[int, int]]] = {}
        for _, blocks, _ in case[1]:
            for operator in (operator for block in blocks for operator in block.operators):
                assert all(size > 0 for size in operator.sizes)
                assert all(amount > 0 for amount in operator.work)
                widths.setdefault(operator.kind, set()).add((len(operator.sizes), len(operator.work)))
        assert all(len(found) == 1 for found in widths.values())

    def test_blocks_with_equal_settings_are_equal(self) -> None:
        options = {"depths": [3], "kernels": [3], "blocks": ["residual"], "squeeze_excitation": [False]}
        space = space_of((3, 32, 32), {**options, "activations": ["relu"]})
        first, second, third = space.blocks(space.at(0))[1:4]
        assert second == third
        assert hash(second) == hash(third)
        assert first != second


class TestProbe:
    def test_of_all_blocks_is_the_network_itself(self, case: Any) -> None:
        for _, blocks, graph in case[1]:
            chain = case[0].chain(blocks)
            found = plain_graph(chain.model, chain.input_shape)
            assert [node.op_type for node in found.graph.node] == [node.op_type for node in graph.graph.node]
            costs, wanted = (count(each) for each in (found, graph))
            assert (costs.macs, costs.params) == (wanted.macs, wanted.params)
            assert chain.operators[0].kind == "call"
            assert chain.operators[1:] == tuple(operator for block in blocks for operator in block.operators)

    def test_of_some_blocks_lies_between_two_convolutions(self, case: Any) -> None:
        for _, blocks, _ in case[1]:
            for part in (blocks[:2], blocks[1:-1], blocks[1:2], blocks[-2:-1], blocks[-2:]):
                chain = case[0].chain(part)
                graph = plain_graph(chain.model, chain.input_shape)
                told = sum(macs_of(operator) for operator in chain.operators)
                assert told == pytest.approx(count(graph).macs, rel=1e-9)
                kinds = Counter(operator.kind for operator in chain.operators)
                assert kinds["enter"] == (part[0].kind != "stem")
                assert kinds["leave"] == (part[-1].kind != "head")
                x = torch.zeros(2, *part[0].input_shape)
                wanted = (CLASSES,) if part[-1].kind == "head" else part[-1].output_shape
                with torch.inference_mode():
                    assert tuple(chain.model.eval()(x).shape) == (2, *wanted)

    def test_is_a_network_of_plain_modules(self, case: Any) -> None:
        space, rows = case
        for _, blocks, _ in rows:
            network = space.chain(blocks[1:-1]).model
            assert not any(type(module).__name__ in ("LayerChoice", "Repeat") for module in network.modules())


class TestShortcuts:
    """An identity shortcut wherever it is not the first block of a stage, also where that one keeps width and map."""

    def space(self) -> ConvNetSpace:
        options = {"width": 16, "width_multipliers": [0.5, 1.0], "depths": [1, 2], "activation_scope": "block"}
        space = space_of((3, 16, 16), options)
        assert space.plan.stages[0].stride == 1
        assert space.plan.stem_width in space.plan.stages[0].widths
        return space

    def identities(self, block: nn.Module) -> bool:
        if isinstance(block, ResidualBlock):
            return isinstance(block.shortcut, nn.Identity)
        assert isinstance(block, FusedBlock | InvertedBlock)
        return block.keeps_shape

    def test_supernet_and_frozen_network_agree(self) -> None:
        space = self.space()
        supernet = space.model_space()
        for architecture in drawn(space, 8):
            sample = space.complete(architecture)
            built, frozen = space.build(architecture), supernet.freeze(sample)
            for stages in (built.stages, frozen.stages):
                for stage in stages:
                    assert [self.identities(block) for block in stage] == [at > 0 for at in range(len(stage))]
            histograms = [histogram(plain_graph(network, (3, 16, 16))) for network in (built, frozen)]
            assert histograms[0] == histograms[1]

    def test_every_alternative_of_the_supernet_agrees(self) -> None:
        kinds = (ResidualBlock, FusedBlock, InvertedBlock)
        seen: Counter[bool] = Counter()
        for name, module in self.space().model_space().named_modules():
            if isinstance(module, kinds):
                index = int(re.match(r"stages\.\d+\.(?:blocks\.)?(\d+)", name)[1])  # type: ignore[index]
                assert self.identities(module) == (index > 0), name
                seen[index > 0] += 1
        assert seen == {True: 9, False: 9}

    def test_blocks_know_it(self) -> None:
        space = self.space()
        for architecture in drawn(space, 8, seed=1):
            adds = [sum(o.kind == "add" for o in block.operators) for block in space.blocks(architecture)[1:-1]]
            modules = [module for stage in space.build(architecture).stages for module in stage]
            assert adds == [isinstance(module, ResidualBlock) or self.identities(module) for module in modules]

    def test_attention_is_where_it_was_chosen(self) -> None:
        space = self.space()
        for architecture in drawn(space, 8, seed=2):
            attended = [any(o.kind == "attention" for o in block.operators) for block in space.blocks(architecture)]
            modules = [module for stage in space.build(architecture).stages for module in stage]
            found = [any(isinstance(m, SqueezeExcitation) for m in module.modules()) for module in modules]
            assert attended[1:-1] == found
