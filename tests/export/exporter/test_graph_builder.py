"""The quick builder and the exporter against torch, and against each other."""

import re

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from export import onnx_file
from export.activations import table as activations
from export.errors import ExportError, UnsupportedModuleError
from export.exporter.graph_builder import build_graph, quick_graph
from export.exporter.onnx_export import export_model
from helpers.nets import (
    Chain,
    Inverted,
    Mobile,
    assert_same,
    conv_norm,
    forms,
    histogram,
    images,
    onnx_outputs,
    randomise,
)

PAIRS = {"chain": (Chain, 1), "mobile": (Mobile, 3)}


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest):
    """(network, input channels, quick graph, final export): an export takes seconds, so it is made once."""
    make, channels = PAIRS[request.param]
    model = randomise(make(channels))
    built = build_graph(model, (channels, 12, 12))
    exported = export_model(model, images(1, channels), metadata={"architecture": "a1", "run": "r1"})
    return model, channels, built, exported


@pytest.mark.parametrize("batch", [1, 7])
def test_both_graphs_compute_what_torch_computes(pair, batch):
    model, channels, built, exported = pair
    for graph in (built, exported):
        assert_same(graph, model, images(batch, channels))


def test_both_graphs_have_the_same_nodes(pair):
    _, _, built, exported = pair
    assert histogram(built) == histogram(exported)
    # Operators of one kind in one module are numbered as they come to be.
    found, wanted = (
        sorted(((re.sub(r"_\d+$", "", name), form) for name, form in forms(graph).items()), key=lambda pair: pair[0])
        for graph in (built, exported)
    )
    assert [name for name, _ in found] == [name for name, _ in wanted]
    for (name, (found_op, found_attributes)), (_, (op_type, attributes)) in zip(found, wanted, strict=True):
        assert found_op == op_type
        for attribute, value in attributes.items():
            near = value if isinstance(value, bytes) else pytest.approx(value, rel=1e-6)
            assert found_attributes.get(attribute, value) == near, name


def test_both_files_have_about_the_same_size(pair):
    _, _, built, exported = pair
    assert abs(built.ByteSize() - exported.ByteSize()) <= max(4000, 0.02 * exported.ByteSize())


def test_both_graphs_are_valid_and_of_the_asked_opset(pair):
    _, channels, *graphs = pair
    for graph in graphs:
        onnx.checker.check_model(graph, full_check=True)
        assert onnx_file.opset_of(graph) == 20
        shapes = [
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*graph.graph.input, *graph.graph.output)
        ]
        assert shapes == [["batch", channels, 12, 12], ["batch", 10]]
        assert [graph.graph.input[0].name, graph.graph.output[0].name] == ["input", "logits"]


def test_both_graphs_pool_globally_and_fold_batch_norm(pair):
    model, _, *graphs = pair
    first_norms = 1 if isinstance(model, Mobile) else 0  # nothing stands before that one
    for graph in graphs:
        found = histogram(graph)
        assert found["GlobalAveragePool"] >= 1
        assert found["ReduceMean"] == 0
        assert found["BatchNormalization"] == first_norms


def test_export_keeps_only_our_notes(pair):
    exported = pair[3]
    assert {item.key: item.value for item in exported.metadata_props} == {"architecture": "a1", "run": "r1"}
    assert exported.producer_name == "hwnas"
    assert not exported.graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in exported.graph.node)
    assert not any(tensor.external_data for tensor in exported.graph.initializer)


def test_nodes_are_named_after_their_modules(pair):
    model, _, *graphs = pair
    for graph in graphs:
        names = [node.name for node in graph.graph.node]
        assert len(set(names)) == len(names)
        assert "stem.0/Conv" in names
        for name in names:
            path = name.rpartition("/")[0]
            assert model.get_submodule(path) is not None


def test_an_activation_keeps_its_own_options():
    model = nn.Sequential(
        nn.LeakyReLU(0.2), nn.ELU(0.7), nn.GELU("tanh"), nn.Softplus(threshold=1.0), nn.PReLU(2, init=0.4)
    )
    with torch.no_grad():
        model[4].weight[1] = 0.1
    assert_same(build_graph(model, (2, 4, 4)), model, 3 * images(3, 2, 4))


def test_silu_shares_the_operators_that_the_runtime_fuses():
    graph = build_graph(nn.Sequential(nn.Conv2d(1, 2, 1), nn.SiLU()), (1, 4, 4))
    assert [node.op_type for node in graph.graph.node] == ["Conv", "Sigmoid", "Mul"]


class Functional(nn.Module):
    """The forward that people write by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.conv(x), inplace=True)
        y = F.leaky_relu(y.add(0.25), 0.3) + F.gelu(y, approximate="tanh")
        y += F.hardswish(y.mul(2.0))
        y = y * y.mean((-1, -2), keepdim=True).sigmoid()
        return torch.flatten(y, 1)


def test_functions_and_methods_match_torch():
    model = Functional()
    assert_same(build_graph(model, (2, 4, 4)), model, images(3, 2, 4))


def test_a_norm_without_affine_and_one_after_a_biased_convolution_fold():
    model = randomise(
        nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4, affine=False),
            nn.Conv2d(4, 4, 1, bias=False),
            nn.BatchNorm2d(4),
        )
    )
    graph = build_graph(model, (3, 6, 6))
    assert histogram(graph) == {"Conv": 2}
    assert_same(graph, model, images(2, 3, 6))


class SharedConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1, bias=False)
        self.one, self.two = nn.BatchNorm2d(2), nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.conv(self.one(self.conv(x))))


def test_a_shared_convolution_is_not_folded():
    model = randomise(SharedConvolution())
    graph = build_graph(model, (2, 4, 4))
    assert histogram(graph) == {"Conv": 2, "BatchNormalization": 2}
    assert_same(graph, model, images(2, 2, 4))


class BothSidesOfNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + y


def test_a_convolution_that_is_read_before_the_norm_is_not_folded():
    model = randomise(BothSidesOfNorm())
    assert_same(build_graph(model, (2, 4, 4)), model, images(2, 2, 4))


def test_an_untrained_net_weighs_what_a_trained_one_weighs():
    fresh, trained = conv_norm(3, 8), randomise(conv_norm(3, 8))
    sizes = [build_graph(model, (3, 8, 8)).ByteSize() for model in (fresh, trained)]
    assert sizes[0] == sizes[1]


def test_a_network_that_does_nothing_still_has_an_output():
    graph = build_graph(nn.Sequential(nn.Identity(), nn.Dropout(0.3)), (2, 4, 4))
    assert histogram(graph) == {"Identity": 1}
    assert_same(graph, nn.Identity(), images(2, 2, 4))


def test_modes_are_given_back():
    model = Inverted(4, 4, 1, "relu").train()
    model.expand[1].eval()
    before = [module.training for module in model.modules()]
    build_graph(model, (4, 8, 8))
    assert [module.training for module in model.modules()] == before
    with pytest.raises(ExportError):
        export_model(model, torch.zeros(2, 3, 8, 8))  # one channel short
    assert [module.training for module in model.modules()] == before


class InPlaceOnShared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.keep, self.activation = nn.Conv2d(2, 2, 1), nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return y + self.activation(self.keep(y))


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class TwoOutputs(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + 1, x * 2


class OwnParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def _hooked() -> nn.Module:
    module = nn.Conv2d(2, 2, 1)
    module.register_forward_hook(lambda module, arguments, output: output + 1)
    return module


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (InPlaceOnShared(), "in place"),
        (Branches(), "traced"),
        (TwoOutputs(), "tuple"),
        (OwnParameter(), "scale"),
        (_hooked(), "hook"),
        (nn.GroupNorm(1, 2), "GroupNorm"),
        (nn.Conv2d(2, 2, 3, padding="same"), "same"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "reflect"),
        (nn.Conv2d(3, 2, 1), "3 channels"),
        (nn.Conv2d(2, 2, 9), "window"),
        (nn.Conv2d(2, 2, 1).double(), "float64"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)).half(), "float16"),
        (nn.Linear(4, 2), "Linear"),
        (nn.AdaptiveAvgPool2d(2), "AdaptiveAvgPool2d"),
        (nn.Flatten(0), "Flatten"),
        (nn.Softplus(beta=2.0), "beta"),
        (nn.BatchNorm2d(2, track_running_stats=False), "BatchNorm2d"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(model, what):
    with pytest.raises(UnsupportedModuleError, match=what):
        build_graph(nn.Sequential(model), (2, 4, 4))


def test_an_operator_newer_than_the_opset_is_refused():
    with pytest.raises(UnsupportedModuleError, match="Gelu at opset 19"):
        build_graph(nn.GELU(), (2, 4, 4), opset=19)


def test_quick_graph_goes_to_the_exporter_for_the_rest():
    known, by = quick_graph(nn.ReLU(), (2, 4, 4))
    assert (by, histogram(known)) == ("builder", {"Relu": 1})
    model = InPlaceOnShared()
    other, by = quick_graph(model, (2, 4, 4))
    assert by == "exporter"
    assert_same(other, model, images(3, 2, 4))


class Cubed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x * x


def test_a_users_own_activation_joins_the_table(monkeypatch):
    monkeypatch.setattr(activations, "ACTIVATIONS", dict(activations.ACTIVATIONS))
    monkeypatch.setattr(activations, "EMITTERS", dict(activations.EMITTERS))

    def emit(writer, module, x):
        return writer.node("Pow", x, writer.scalar(3.0))

    row = activations.Activation("cubed", lambda channels: Cubed(), emit, "x³", "–", "two products")
    activations.register(row)
    model = nn.Sequential(nn.Conv2d(2, 2, 1), activations.create("cubed", 2))
    graph = build_graph(model, (2, 4, 4))
    assert histogram(graph) == {"Conv": 1, "Pow": 1}
    assert_same(graph, model, images(2, 2, 4))
    with pytest.raises(ValueError, match="already"):
        activations.register(row)


def test_unknown_activation_names_the_nearest():
    with pytest.raises(activations.UnknownActivationError, match=r"did you mean 'hardswish'\?.*squared_relu") as info:
        activations.create("hard_swish", 1)
    assert info.value.exit_code == 2


def test_an_opset_that_torch_would_raise_is_refused():
    with pytest.raises(ExportError, match="opset 17 can't be exported; the lowest is 18"):
        export_model(nn.ReLU(), images(2), opset=17)


def test_an_opset_that_torch_cannot_reach_is_an_error(capsys):
    with pytest.raises(ExportError, match="opset 26"):
        export_model(nn.Sequential(nn.Conv2d(3, 2, 1), nn.GELU()), images(2), opset=26)
    assert capsys.readouterr().out == ""


def test_export_is_silent_and_repeatable(capfd):
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.SiLU())
    first, second = (export_model(model, images(2)).SerializeToString() for _ in range(2))
    assert first == second
    assert capfd.readouterr() == ("", "")


def test_export_says_what_torch_cannot_do():
    with pytest.raises(ExportError, match="Branches"):
        export_model(Branches(), images(2))
    with pytest.raises(ExportError, match="2 tensors"):
        export_model(TwoOutputs(), images(2))


def test_saved_and_loaded_graphs_agree(tmp_path):
    model = randomise(Inverted(4, 4, 1, "mish"))
    graph = build_graph(model, (4, 8, 8))
    path = tmp_path / "model.onnx"
    onnx.save(graph, path)
    x = images(2, 4, 8)
    loaded = onnx_file.run(onnx_file.open_session(path), x.numpy())
    assert (loaded == onnx_outputs(graph, x)).all()
