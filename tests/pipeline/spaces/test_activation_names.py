"""Activations of the table and of a user's own, from the config to the file."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from export.activations import table as activations
from export.errors import UnsupportedModuleError
from export.exporter import module_template
from export.exporter.graph_builder import cost_graph, quick_graph
from export.exporter.onnx_export import export_model
from export.graph_writer import GraphWriter, Value
from export.lowering.forms import FORMS
from export.lowering.recognition import activations_by_output
from helpers.cli import check_message, small_config
from helpers.places import REPOSITORY
from pipeline.config.run import TrainOptions
from pipeline.config.space import ConvNetOptions
from pipeline.evaluators.optimizers import make_optimizer
from pipeline.spaces.activation_names import resolve_activation
from pipeline.spaces.convnet import ConvNetSpace

SWOOSH, BUMP = "stub_activations:Swoosh", "stub_activations:Bump"
SHAPE = (1, 8, 8)


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test adds to the table goes with it; the stubs lie beside this file."""
    monkeypatch.setattr(activations, "ACTIVATIONS", dict(activations.ACTIVATIONS))
    monkeypatch.setattr(activations, "EMITTERS", dict(activations.EMITTERS))
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests" / "stubs"))


def space_of(*names: str, **options: Any) -> ConvNetSpace:
    small: dict[str, Any] = {"width": 8, "depths": [1, 2], "stages": 2, "width_multipliers": [1.0, 2.0]}
    return ConvNetSpace(ConvNetOptions(name="convnet", activations=list(names), **(small | options)), SHAPE, 3)


def rebuilt(name: str, **options: Any) -> nn.Module:
    """A network of this activation alone, its parameters off their start."""
    space = space_of(name, activation_scope="network", **options)
    torch.manual_seed(0)
    network = space.build(space.at(space.size() // 2)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.rand_like(parameter) / 20)
    return network


def outputs(graph: onnx.ModelProto, images: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


# --- training


@pytest.mark.parametrize("name", [*activations.names(), SWOOSH, BUMP])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_no_weight_decay_on_what_an_activation_learns(name: str, optimizer: str) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 1), activations.create(resolve_activation(name), 4), nn.Linear(4, 2))
    own = {id(parameter) for parameter in network[1].parameters()}
    groups = make_optimizer(network, TrainOptions(optimizer=optimizer, weight_decay=0.1)).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    others = {id(p) for group in groups if not group["weight_decay"] for p in group["params"]}
    assert decayed == {id(network[0].weight), id(network[2].weight)}
    assert own <= others


@pytest.mark.filterwarnings("ignore")  # NNI 3.0's and Lightning's own
def test_darts_trains_a_supernet_of_what_has_parameters_for_each_channel() -> None:
    from nni.nas.evaluator.pytorch import Classification, DataLoader
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.space import RawFormatModelSpace
    from nni.nas.strategy import DARTS

    space = space_of("prelu_channel", "acon", SWOOSH, BUMP)
    images, labels = torch.rand(32, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3
    loader = DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=16)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    evaluator = Classification(train_dataloaders=loader, val_dataloaders=loader, num_classes=3, max_epochs=1, **quiet)
    strategy = DARTS()
    strategy(RawFormatModelSpace.from_model(space.model_space(), evaluator), SequentialExecutionEngine())
    (best,) = strategy.list_models(limit=1)
    architecture = space.canonical(best.sample)
    assert set(space.canonical(architecture).values()) == set(architecture.values())
    assert space.build(architecture)(images).shape == (32, 3)


def test_a_supernet_gives_every_site_the_widest_choice() -> None:
    space = space_of("prelu_channel", blocks=["inverted"], expansions=[2, 3], depths=[1], stages=1)
    widths = {m.num_parameters for m in space.model_space().modules() if isinstance(m, nn.PReLU)}
    assert widths == {24}  # a stem of 8 channels, expanded by 3


def test_a_name_with_dots_is_an_nni_choice_and_comes_back() -> None:
    space = space_of(SWOOSH, "swish", "silu")
    assert space.choices[2].values == (SWOOSH, "silu")
    supernet = space.model_space()
    assert supernet(torch.zeros(2, *SHAPE)).shape == (2, 3)
    mutables = supernet.simplify()
    samples = [{label: each.values[at] for label, each in mutables.items()} for at in (0, -1)]
    found = {space.canonical(sample)["stage0_activation"] for sample in samples}
    assert found == {SWOOSH, "silu"}


# --- a user's own


@pytest.mark.parametrize("name", [SWOOSH, BUMP, "torch.nn:Hardshrink"])
def test_its_quick_graph_is_that_of_the_exporter(name: str) -> None:
    network, images = rebuilt(name), 2 * torch.randn(4, *SHAPE)
    built, by = quick_graph(network, SHAPE)
    exported = export_model(network, images)
    assert by == "builder"
    assert sorted(n.op_type for n in built.graph.node) == sorted(n.op_type for n in exported.graph.node)
    with torch.no_grad():
        wanted = network(images).numpy()
    for graph in (built, exported):
        np.testing.assert_allclose(outputs(graph, images), wanted, rtol=1e-4, atol=1e-5)


def test_each_instance_keeps_its_own_parameters_and_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_activation(BUMP)
    bump = sys.modules["stub_activations"].Bump
    network = nn.Sequential(bump(), bump(), bump(1.5)).eval()
    with torch.no_grad():
        for number, module in enumerate(network):
            module.base.fill_(number / 4)
    images = torch.randn(2, *SHAPE)
    for graph in (quick_graph(network, SHAPE)[0], quick_graph(network, SHAPE)[0]):
        np.testing.assert_allclose(outputs(graph, images), network(images).detach().numpy(), rtol=1e-5, atol=1e-6)
    # From here on an export would be one too many: values differ, kinds do not.
    monkeypatch.setattr(torch.onnx, "export", None)
    with torch.no_grad():
        network[0].base.fill_(-3.0)
    graph, by = quick_graph(network, SHAPE)
    assert by == "builder"
    np.testing.assert_allclose(outputs(graph, images), network(images).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_what_no_template_can_hold_goes_to_the_exporter() -> None:
    name = resolve_activation("stub_activations:OtherWhenWide")
    images = torch.randn(2, *SHAPE)
    for channels, by in ((4, "builder"), (6, "exporter")):
        network = nn.Sequential(nn.Conv2d(1, channels, 1), activations.create(name, channels)).eval()
        graph, found = quick_graph(network, SHAPE)
        assert found == by
        np.testing.assert_allclose(outputs(graph, images), network(images).detach().numpy(), rtol=1e-4, atol=1e-5)


class Holding(nn.Module):
    """With an attribute in which the template's key can't look."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


@pytest.mark.parametrize("module", [Holding(object()), Holding([nn.ReLU()]), nn.PReLU().double()])
def test_what_can_not_be_told_apart_is_refused(module: nn.Module) -> None:
    with pytest.raises(UnsupportedModuleError):
        module_template.emit(GraphWriter(20), module.eval(), Value("x", SHAPE))


def test_attributes_of_every_plain_kind_tell_kinds_apart() -> None:
    for held in ("a", {"a": [1, (None, torch.float32)]}, torch.relu):
        value = module_template.emit(GraphWriter(20), Holding(held).eval(), Value("x", SHAPE))
        assert value.shape == SHAPE
    structures = [module_template._structure(Holding(held)) for held in (1, 1.0, True, torch.ones(1), torch.zeros(1))]
    assert len(set(structures)) == len(structures)


def test_its_row_says_what_it_is() -> None:
    row = activations.ACTIVATIONS[resolve_activation(SWOOSH)]
    assert row.name == SWOOSH
    assert row.learnable
    assert row.description.startswith("x σ(exp(w) x), one w for each channel · learnable · ")


def test_its_operators_have_a_kind_of_their_own() -> None:
    space = space_of(SWOOSH, "prelu_channel", activation_scope="network")
    for name in (SWOOSH, "prelu_channel"):
        architecture = {**space.at(0), "activation": name}
        kinds = {operator.kind for block in space.blocks(architecture) for operator in block.operators}
        assert name in kinds
        probe = space.chain(space.blocks(architecture)[1:2])
        assert quick_graph(probe.model, probe.input_shape)[1] == "builder"


def test_a_search_with_ones_own_activation_ends_in_a_bundle(hwnas: Any, tmp_path: Path) -> None:
    config = small_config(
        tmp_path / "own.yaml",
        space={"activations": [SWOOSH]},
        budget={"trials": 2},
        final={"epochs": 1},
    )
    result = hwnas("search", config, "--run-dir", tmp_path / "run", "--json")
    assert result.code == 0, result.stderr
    assert f'"{SWOOSH}"' in (tmp_path / "run" / "bundle" / "manifest.json").read_text(encoding="utf-8")


WRONG = [
    ("no_module:Act", ("no_module", "can't be imported")),
    ("stub_activations:Nothing", ("Nothing", "can't be imported")),
    ("stub_activations:NUMBER", ("NUMBER", "something of type int", "not a class or function")),
    ("stub_activations:MADE", ("made already", "give its class")),
    ("stub_activations:no_module", ("gives something of type int", "not a torch.nn.Module")),
    ("stub_activations:swoosh", ("a function of a tensor", "wrap it in a torch.nn.Module")),
    ("torch:tanh", ("a function of a tensor", "wrap it in a torch.nn.Module")),
    ("swoosh", ("unknown activation 'swoosh'", "'swish'", "module:attribute", "'my_module:swoosh'")),
    ("stub_activations.Swoosh", ("unknown activation", "module:attribute", "'stub_activations:Swoosh'")),
    ("stub_activations:Halving", ("(2, 8, 5, 7)", "(2, 8, 5, 4)", "keeps the shape")),
    ("stub_activations:Doubling", ("(2, 16, 5, 7)", "keeps the shape")),
    ("stub_activations:InPlace", ("in place",)),
    ("stub_activations:Pair", ("tuple", "not a tensor")),
    ("stub_activations:Fussy", ("RuntimeError: not today",)),
    ("stub_activations:Demanding", ("can't be made", "width")),
    ("stub_activations:Neighbourly", ("the others in the batch",)),
    ("stub_activations:Chancy", ("chance",)),
    ("stub_activations:Wide", ("float64",)),
    ("stub_activations:Numberless", ("NaN",)),
    ("stub_activations:Deaf", ("gradient",)),
]


@pytest.mark.parametrize(("name", "words"), WRONG, ids=[name for name, _ in WRONG])
def test_what_can_not_be_one_is_told_before_a_run_is_made(
    hwnas: Any, tmp_path: Path, name: str, words: tuple[str, ...]
) -> None:
    config = small_config(tmp_path / "wrong.yaml", space={"activations": ["relu", name]})
    check_message(hwnas("search", config, "--run-dir", tmp_path / "run"), 2, str(config), name, *words)
    assert not (tmp_path / "run").exists()


# --- what is listed and profiled


def test_the_list_tells_formula_learnable_and_cost(hwnas: Any) -> None:
    rows = hwnas("list", "activations", "--json").document()
    assert list(rows) == list(activations.names())
    assert rows["prelu_channel"] == "x where x > 0, else a x; one a for each channel · learnable · " + (
        activations.ACTIVATIONS["prelu_channel"].cost
    )


# These have the form of another row, of which nothing tells them apart; scales of some are in the weights around.
SAME_FORM = {
    "prelu": "leaky_relu",
    "celu": "elu",
    "swish_beta": "silu",
    "scaled_sigmoid": "sigmoid",
}
PREFERRED = [(family, form.name) for family, forms in FORMS.items() for form in forms if len(forms) > 1]


@pytest.mark.parametrize("name", [name for name in activations.names() if name != "identity"])
def test_a_profile_names_it_in_every_form(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 1), activations.create(name, 8), nn.Conv2d(8, 2, 1))
    for preferred in ({}, *(dict([pair]) for pair in PREFERRED)):
        graph = cost_graph(model, (2, 4, 4), forms=preferred)[0]
        assert set(activations_by_output(graph).values()) == {SAME_FORM.get(name, name)}, preferred
