from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import RandomState

from pipeline.config.space import ConvNetOptions
from pipeline.nni_types import SimplifiedModelSpace
from pipeline.spaces.base import ArchitectureError, SearchSpace, architecture_id
from pipeline.spaces.convnet import ConvNetSpace


def space_of(shape: tuple[int, int, int] = (1, 8, 8), classes: int = 10, **options: Any) -> ConvNetSpace:
    return ConvNetSpace(ConvNetOptions(name="convnet", **{"width": 8, **options}), shape, classes)


TINY = {
    "stages": 1,
    "depths": [1, 2],
    "kernels": [3],
    "expansions": [2, 4],
    "blocks": ["residual", "inverted"],
    "squeeze_excitation": [False],
    "width_multipliers": [1],
    "activations": ["relu", "silu"],
    "activation_scope": "network",
}
SCOPES = ["network", "stage", "block"]


@pytest.fixture(scope="module", params=SCOPES)
def space(request: pytest.FixtureRequest) -> ConvNetSpace:
    return space_of(activation_scope=request.param)


@pytest.fixture(scope="module")
def nni_space(space: ConvNetSpace) -> Any:
    return SimplifiedModelSpace.from_model(space.model_space())


@pytest.fixture(scope="module")
def samples(nni_space: Any) -> list[dict[str, Any]]:
    """Random samples as NNI's strategies draw them."""
    state = RandomState(0)
    found = []
    for _ in range(40):
        sample: dict[str, Any] = {}
        nni_space.random(random_state=state, memo=sample)
        found.append(sample)
    return found


class TestNniView:
    def test_labels_and_values_are_those_of_the_choices(self, space: ConvNetSpace, nni_space: Any) -> None:
        theirs = dict(nni_space.simplify())
        assert theirs.keys() == {choice.label for choice in space.choices}
        for choice in space.choices:
            assert set(theirs[choice.label].grid()) == set(choice.values)

    def test_its_samples_are_architectures(self, space: ConvNetSpace, samples: list[dict[str, Any]]) -> None:
        for sample in samples:
            architecture = space.canonical(sample)
            assert architecture.items() <= sample.items()
            assert space.canonical(space.complete(architecture)) == architecture
            assert space.complete(architecture).keys() == sample.keys()

    def test_the_built_network_is_the_frozen_one(self, space: ConvNetSpace, samples: list[dict[str, Any]]) -> None:
        supernet = space.model_space()
        for sample in samples[:4]:
            frozen = supernet.freeze(sample)
            built = space.build(space.canonical(sample))
            shapes = [{k: tuple(v.shape) for k, v in m.state_dict().items()} for m in (frozen, built)]
            # NNI keeps the chosen alternative where the choice was: only the names may differ.
            assert list(shapes[0].values()) == list(shapes[1].values())
            frozen.load_state_dict(dict(zip(shapes[0], built.state_dict().values(), strict=True)))
            images = torch.randn(2, 1, 8, 8)
            with torch.inference_mode():
                assert torch.equal(frozen.eval()(images), built.eval()(images))


class TestCanonicalForm:
    def test_inactive_differences_have_the_same_id(self, space: ConvNetSpace, samples: list[dict[str, Any]]) -> None:
        for sample in samples:
            architecture = space.canonical(sample)
            for choice in space.choices:
                for value in choice.values:
                    changed = space.canonical({**sample, choice.label: value})
                    same = architecture_id(changed) == architecture_id(architecture)
                    inactive = choice.label not in architecture
                    assert same is (inactive or value == sample[choice.label])

    def test_inactive_choices_dont_change_the_network(self, space: ConvNetSpace, samples: list[dict[str, Any]]) -> None:
        for sample in samples[:5]:
            other = {c.label: c.values[-1] for c in space.choices} | space.canonical(sample)
            assert str(space.build(other)) == str(space.build(sample))

    def test_different_ids_are_different_networks(self) -> None:
        space = space_of(**TINY)
        printed = [str(space.build(a)) for a in space.architectures()]
        assert len(set(printed)) == len(printed)

    def test_enumerates_a_tiny_space_once(self) -> None:
        space = space_of(**TINY)
        every = list(space.architectures())
        # Two activations; each block is residual, or inverted with one of two expansions; one block or two.
        assert len(every) == 2 * (3 + 3 * 3)
        assert len({architecture_id(a) for a in every}) == len(every)
        assert all(space.canonical(a) == a for a in every)
        assert space.size() == len(every)
        assert [space.at(rank) for rank in range(space.size())] == every
        state = RandomState(1)
        nni_space = SimplifiedModelSpace.from_model(space.model_space())
        drawn = set()
        for _ in range(400):
            sample: dict[str, Any] = {}
            nni_space.random(random_state=state, memo=sample)
            drawn.add(architecture_id(space.canonical(sample)))
        assert drawn == {architecture_id(a) for a in every}

    def test_the_id_doesnt_hang_on_the_order_of_labels(self) -> None:
        assert architecture_id({"a": 1, "b": "x"}) == architecture_id({"b": "x", "a": 1})
        assert architecture_id({"a": 1}) != architecture_id({"a": "1"})
        assert len(architecture_id({})) == 12

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"activation": "rellu"}, ["activation", "'rellu'", "did you mean 'relu'?", "silu"]),
            ({"stage0_depth": 3}, ["stage0_depth", "3", "1, 2"]),
            ({"stage0_depth": True}, ["stage0_depth", "True"]),
            ({"stage0_depth": "1"}, ["stage0_depth", "'1'"]),
        ],
    )
    def test_names_what_is_no_choice(self, change: dict[str, Any], words: list[str]) -> None:
        space = space_of(**TINY)
        first = next(space.architectures())
        with pytest.raises(ArchitectureError) as caught:
            space.canonical({**first, **change})
        assert all(word in str(caught.value) for word in words)

    def test_names_what_is_missing(self) -> None:
        space = space_of(**TINY)
        first = next(space.architectures())
        del first["stage0_depth"]
        with pytest.raises(ArchitectureError, match="lacks stage0_depth; valid: 1, 2"):
            space.canonical(first)


def sampled(space: SearchSpace, data: Any) -> dict[str, Any]:
    return {choice.label: data.draw(st.sampled_from(choice.values), choice.label) for choice in space.choices}


class TestNetworks:
    @pytest.mark.parametrize("size", [8, 12, 16, 28, 32, 64, 96, 224])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_images_of_every_size(self, size: int, channels: int) -> None:
        space = space_of((channels, size, size), 7)
        largest = {choice.label: choice.values[-1] for choice in space.choices}
        for sample in ({choice.label: choice.values[0] for choice in space.choices}, largest):
            network = space.build(space.canonical(sample))
            assert network(torch.zeros(2, channels, size, size)).shape == (2, 7)

    @pytest.mark.parametrize("stages", [1, 2, 3, 4, 5, 6])
    def test_every_number_of_stages(self, stages: int) -> None:
        for size in (8, 32):
            space = space_of((3, size, size), stages=stages, depths=[1])
            network = space.build({choice.label: choice.values[0] for choice in space.choices})
            assert network(torch.zeros(2, 3, size, size)).shape == (2, 10)

    def test_images_that_are_not_square(self) -> None:
        space = space_of((3, 16, 40))
        network = space.build({choice.label: choice.values[0] for choice in space.choices})
        assert network(torch.zeros(2, 3, 16, 40)).shape == (2, 10)

    @settings(max_examples=6, deadline=None)
    @given(st.data())
    def test_every_architecture_runs_and_learns(self, data: Any) -> None:
        space = space_of(activation_scope="block", depths=[1, 2], width_multipliers=[1])
        network = space.build(sampled(space, data))
        logits = network(torch.randn(4, 1, 8, 8))
        logits.square().sum().backward()
        assert torch.isfinite(logits).all()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())

    def test_is_deterministic_under_a_seed(self) -> None:
        space = space_of()
        sample = {choice.label: choice.values[-1] for choice in space.choices}
        weights = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            weights.append(space.build(sample).state_dict())
        assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
        assert not all(torch.equal(weights[0][k], weights[2][k]) for k in weights[0])

    def test_widths_are_eights(self) -> None:
        space = space_of(width=20, width_multipliers=[0.1, 0.5, 1.0, 1.3])
        for choice in space.choices:
            if choice.label.endswith("width"):
                assert all(value % 8 == 0 and value >= 8 for value in choice.values)
                assert list(choice.values) == sorted(set(choice.values))


class TestScopes:
    @pytest.mark.parametrize(
        ("scope", "labels"),
        [
            ("network", {"activation"}),
            ("stage", {"stage0_activation", "stage1_activation"}),
            ("block", {f"stage{s}_block{b}_activation" for s in (0, 1) for b in (0, 1)}),
        ],
    )
    def test_activations_are_choices_there(self, scope: str, labels: set[str]) -> None:
        space = space_of(activation_scope=scope, stages=2, depths=[1, 2])
        assert {c.label for c in space.choices if c.label.endswith("activation")} == labels

    def test_the_chosen_activation_is_in_the_network(self) -> None:
        space = space_of(
            activation_scope="stage", stages=2, activations=["silu", "hardswish"], squeeze_excitation=[False]
        )
        sample = {choice.label: choice.values[0] for choice in space.choices}
        for first, second in (("silu", "hardswish"), ("hardswish", "silu")):
            network = space.build({**sample, "stage0_activation": first, "stage1_activation": second})
            for stage, name in enumerate((first, second)):
                kinds = {type(m).__name__.lower() for m in network.stages[stage].modules()}
                assert name in kinds
                assert ({"silu", "hardswish"} - {name}).isdisjoint(kinds)

    def test_a_block_of_one_choice_is_still_a_choice(self) -> None:
        one = {"blocks": ["fused"], "kernels": [3], "expansions": [2], "squeeze_excitation": [False]}
        space = space_of(depths=[1], stages=1, width_multipliers=[1], activations=["relu"], **one)
        assert len(list(space.architectures())) == 1
        frozen = SimplifiedModelSpace.from_model(space.model_space())
        assert frozen.simplify().keys() == {choice.label for choice in space.choices}


@pytest.mark.parametrize(("old", "new"), [("pieces", "blocks"), ("probe", "chain")])
def test_a_space_with_a_methods_old_name_is_refused(old: str, new: str) -> None:
    with pytest.raises(TypeError, match=f"Mine.{old} is called {new}"):
        type("Mine", (SearchSpace,), {old: lambda self: None})
