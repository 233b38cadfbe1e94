"""The space `nasbench201`: the published one, buildable, exportable, and with activations to choose."""

import csv
import gzip
from random import Random
from typing import Any

import onnxruntime
import pytest
import torch
from numpy.random import RandomState
from torch import nn

from export.exporter.graph_builder import quick_graph
from helpers.places import shared_data
from pipeline.config.space import NasBench201Options
from pipeline.nni_types import SimplifiedModelSpace
from pipeline.spaces.base import Architecture, ArchitectureError
from pipeline.spaces.nasbench201 import NasBench201Space
from pipeline.spaces.nasbench201_features import OPERATORS, cell_key, parse
from pipeline.spaces.nasbench201_net import LABELS

IMAGES = (3, 16, 16)
PLAIN = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
CELLS = {
    "everything": PLAIN.format(*OPERATORS, "nor_conv_3x3"),
    "convolutions": PLAIN.format(*["nor_conv_3x3"] * 6),
    "nothing": PLAIN.format(*["none"] * 6),
    "a skip": PLAIN.format("none", "none", "none", "skip_connect", "none", "none"),
    "a node of zeros": PLAIN.format("none", "nor_conv_1x1", "nor_conv_3x3", "none", "nor_conv_1x1", "avg_pool_3x3"),
    "a dead end": PLAIN.format("nor_conv_3x3", "nor_conv_1x1", "none", "skip_connect", "none", "none"),
}


def space_of(shape: tuple[int, int, int] = IMAGES, **options: Any) -> NasBench201Space:
    return NasBench201Space(NasBench201Options(name="nasbench201", **{"width": 8, **options}), shape, 10)


def named(space: NasBench201Space, key: str) -> Architecture:
    """The architecture of a table's name, with the first of the activations."""
    cell = dict(zip(LABELS, (OPERATORS[index] for index in parse(key)), strict=True))
    return space.canonical({"activation": space.plan.activations[0], **cell})


def random_key(generator: Random) -> str:
    return PLAIN.format(*generator.choices(OPERATORS, k=6))


def test_it_has_the_published_number_of_architectures() -> None:
    assert space_of().size() == 15_625
    assert space_of(activations=["relu", "silu"]).size() == 2 * 15_625


def test_keys_are_the_tables_own() -> None:
    space, generator = space_of(), Random(0)
    for key in [*CELLS.values(), *(random_key(generator) for _ in range(50))]:
        assert cell_key([OPERATORS[index] for index in parse(key)]) == key
        assert space.key(named(space, key)) == key
    assert len({space.key(a) for a in space.architectures()}) == 15_625
    assert named(space, CELLS["a skip"])["edge_0_3"] == "skip_connect"


def test_tables_know_no_other_activations() -> None:
    with pytest.raises(ArchitectureError, match="'silu'"):
        space_of(activations=["silu"]).key(space_of(activations=["silu"]).at(0))
    space = space_of(activations=["relu", "silu"])
    assert space.key(space.at(0)) == CELLS["nothing"]
    with pytest.raises(ArchitectureError, match="'silu'"):
        space.key(space.at(1))


def test_sides_that_cant_be_halved_twice() -> None:
    with pytest.raises(ArchitectureError, match="multiples of 4"):
        space_of((1, 30, 30))


@pytest.mark.parametrize("activations", [["relu"], ["relu", "prelu"]])
def test_nni_sees_the_same_space(activations: list[str]) -> None:
    space = space_of(activations=activations)
    nni_space = SimplifiedModelSpace.from_model(space.model_space())
    theirs = dict(nni_space.simplify())
    assert {label: set(each.grid()) for label, each in theirs.items()} == {
        c.label: set(c.values) for c in space.choices
    }
    supernet, state = space.model_space(), RandomState(0)
    for _ in range(4):
        sample: dict[str, Any] = {}
        nni_space.random(random_state=state, memo=sample)
        frozen, built = supernet.freeze(sample), space.build(space.canonical(sample))
        ours = list(built.state_dict().values())
        assert [tuple(v.shape) for v in frozen.state_dict().values()] == [tuple(v.shape) for v in ours]
        frozen.load_state_dict(dict(zip(frozen.state_dict(), ours, strict=True)))
        images = torch.randn(2, *IMAGES)
        with torch.inference_mode():
            torch.testing.assert_close(frozen.eval()(images), built.eval()(images))


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("activation", ["relu", "silu", "prelu"])
def test_the_quick_graph_is_the_network(cell: str, activation: str) -> None:
    torch.manual_seed(0)
    space = space_of(activations=[activation], cells=2)
    network = space.build(named(space, cell)).eval()
    model, by = quick_graph(network, IMAGES)
    assert by == "builder"
    images = torch.randn(3, *IMAGES)
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"input": images.numpy()})[0]
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(found), network(images), rtol=1e-4, atol=1e-4)


def test_a_network_learns() -> None:
    torch.manual_seed(0)
    space = space_of()
    network = space.build(named(space, CELLS["everything"]))
    images, labels = torch.randn(16, *IMAGES), torch.arange(16) % 10
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_activations_are_of_the_table_and_everywhere() -> None:
    space = space_of(activations=["relu", "hardswish"])
    network = space.build({**named(space, CELLS["convolutions"]), "activation": "hardswish"})
    kinds = {type(module) for module in network.modules()}
    assert nn.Hardswish in kinds
    assert nn.ReLU not in kinds


def test_with_the_papers_size_it_is_the_published_network() -> None:
    """Parameters and operations of 40 random rows, to the last digit that the table has."""
    path = shared_data("nasbench201.csv.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = Random(0).sample(list(csv.DictReader(file)), 40)
    space = space_of((3, 32, 32), width=16, cells=5)
    for row in rows:
        network = space.build(named(space, row["arch_str"]))
        assert sum(p.numel() for p in network.parameters()) == round(float(row["params_m_cifar10"]) * 1e6)
        assert operations(network) == round(float(row["flops_m_cifar10"]) * 1e6)


def operations(network: nn.Module) -> int:
    """Multiply-adds of convolutions and the head, and the head's bias, as the table counts them.

    What can't reach the output is not run here, but was there: its hooks are called on the side.
    """
    counted = 0

    def hook(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal counted
        if isinstance(module, nn.Conv2d):
            counted += output.shape[2] * output.shape[3] * module.weight.numel()
        elif isinstance(module, nn.Linear):
            counted += module.weight.numel() + module.bias.numel()

    for module in network.modules():
        module.register_forward_hook(hook)
        if hasattr(module, "edges_run"):  # a cell: every edge, as the published code does
            module.edges_run, module.nodes_needed = frozenset(range(6)), frozenset(range(4))
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 3, 32, 32))
    return counted
