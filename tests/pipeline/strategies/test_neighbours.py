from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from helpers.driven import Choices, deep, flat, huge
from pipeline.spaces.base import Architecture, Choice, architecture_id
from pipeline.strategies.neighbours import (
    change,
    crossover,
    moves,
    mutate,
    random_architecture,
    untried_at_random,
    untried_by_choice,
)

SHORT = {"depth": 1, "block1.kind": 0, "block1.width": 2}


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestRandom:
    def test_is_uniform_over_architectures_not_over_samples(self) -> None:
        """A depth of 2 has nine times the architectures of a depth of 1."""
        space, draws = deep(2), generator()
        depths = Counter(random_architecture(space, draws)["depth"] for _ in range(5000))
        assert depths[1] / 5000 == pytest.approx(9 / 90, abs=0.02)

    def test_reaches_all_of_a_space_beyond_64_bits(self) -> None:
        space = flat(choices=50, values=4)
        assert space.size() > 2**64
        drawn = [random_architecture(space, generator(seed)) for seed in range(200)]
        for choice in space.choices:
            assert {architecture[choice.label] for architecture in drawn} == set(choice.values)

    def test_a_space_with_one_architecture(self) -> None:
        space = Choices(Choice("only", ("this",)))
        assert random_architecture(space, generator()) == {"only": "this"}
        assert untried_at_random(space, {architecture_id({"only": "this"})}, generator()) is None

    def test_drawn_choice_by_choice_the_small_are_as_many_as_the_large(self) -> None:
        space, draws = deep(4), generator()
        drawn = [untried_by_choice(space, set(), draws) for _ in range(4000)]
        depths = Counter(each["depth"] for each in drawn if each is not None)
        for depth in range(1, 5):
            assert depths[depth] / 4000 == pytest.approx(1 / 4, abs=0.03)

    @pytest.mark.parametrize("draw", [untried_at_random, untried_by_choice])
    @pytest.mark.parametrize("space", [deep(2), flat(3, 3)], ids=["deep", "flat"])
    def test_untried_ones_are_found_to_the_last(self, space: Choices, draw: Callable[..., Architecture | None]) -> None:
        tried: set[str] = set()
        for seed in range(space.size()):
            found = draw(space, tried, generator(seed))
            assert found is not None
            assert space.canonical(found) == found
            assert architecture_id(found) not in tried
            tried.add(architecture_id(found))
        assert draw(space, tried, generator()) is None


class TestNeighbours:
    def test_one_for_each_active_choice_and_other_value(self) -> None:
        space = deep()
        assert len(moves(space, SHORT)) == 3 + 2 + 2
        assert ("depth", 3) in moves(space, SHORT)
        assert all(label in SHORT for label, _ in moves(space, SHORT))

    def test_differ_in_what_matters(self) -> None:
        space = deep()
        for seed in range(50):
            architecture = random_architecture(space, generator(seed))
            draws = generator(seed)
            found = [change(space, architecture, {label: value}, draws) for label, value in moves(space, architecture)]
            assert len({architecture_id(each) for each in [architecture, *found]}) == 1 + len(found)
            for each in found:
                assert space.canonical(each) == each
                shared = [label for label in architecture if label in each]
                assert sum(architecture[label] != each[label] for label in shared) == 1

    def test_what_becomes_active_is_drawn(self) -> None:
        space = deep()
        grown = [change(space, SHORT, {"depth": 4}, generator(seed)) for seed in range(60)]
        assert {architecture["block4.kind"] for architecture in grown} == {0, 1, 2}
        assert all(each["block1.kind"] == 0 and each["block1.width"] == 2 for each in grown)

    def test_what_becomes_inactive_is_dropped(self) -> None:
        space = deep()
        large = change(space, SHORT, {"depth": 4}, generator())
        assert change(space, large, {"depth": 1}, generator()) == SHORT


class TestMutation:
    def test_strikes_each_active_choice_with_its_rate(self) -> None:
        space = flat(10, 3)
        architecture = random_architecture(space, generator())
        differences = [
            sum(
                mutate(space, architecture, generator(seed), rate=0.3)[label] != architecture[label]
                for label in architecture
            )
            for seed in range(400)
        ]
        assert np.mean(differences) == pytest.approx(3.0, abs=0.25)
        assert mutate(space, architecture, generator(), rate=1.0).items().isdisjoint(architecture.items())

    def test_strikes_one_choice_on_average(self) -> None:
        space = flat(10, 3)
        architecture = random_architecture(space, generator())
        changes = [
            sum(
                a != b
                for a, b in zip(
                    mutate(space, architecture, generator(seed)).values(), architecture.values(), strict=True
                )
            )
            for seed in range(400)
        ]
        assert np.mean(changes) == pytest.approx(1.0, abs=0.15)

    @pytest.mark.parametrize("space", [deep(), huge()], ids=["deep", "huge"])
    def test_stays_in_the_space(self, space: Choices) -> None:
        for seed in range(50):
            architecture = mutate(space, random_architecture(space, generator(seed)), generator(seed), rate=0.5)
            assert space.canonical(architecture) == architecture


class TestCrossover:
    def test_each_choice_is_a_parents(self) -> None:
        space = deep()
        for seed in range(100):
            first, second = (random_architecture(space, generator(number)) for number in (seed, 1000 + seed))
            child = crossover(space, first, second, generator(seed))
            assert space.canonical(child) == child
            assert all(value in (first.get(label), second.get(label)) for label, value in child.items())

    def test_takes_from_both(self) -> None:
        space = flat(20, 2)
        first, second = ({choice.label: value for choice in space.choices} for value in (0, 1))
        assert 4 <= sum(crossover(space, first, second, generator()).values()) <= 16

    def test_draws_what_neither_parent_has(self) -> None:
        both = (("a", (1,)), ("b", (1,)))
        space = Choices(Choice("a", (0, 1)), Choice("b", (0, 1)), Choice("c", ("x", "y"), both))
        children = [crossover(space, {"a": 1, "b": 0}, {"a": 0, "b": 1}, generator(seed)) for seed in range(60)]
        assert {child["c"] for child in children if "c" in child} == {"x", "y"}
