import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from helpers.driven import Choices, accuracy_of, deep, drive, flat, huge, judged, problem_of
from pipeline.config.strategy import ControllerOptions
from pipeline.engines.trial import TrialResult
from pipeline.spaces.base import Architecture, Choice, architecture_id
from pipeline.strategies.controller import Controller
from pipeline.strategies.neighbours import random_architecture
from pipeline.strategies.policy import Policy


def policy_of(space: Choices, seed: int = 0) -> Policy:
    return Policy(space, 8, np.random.default_rng(seed))


def search(space: Choices, seed: int = 0, **options: float) -> Controller:
    return Controller(ControllerOptions(name="controller", **options), problem_of(space, seed))  # type: ignore[arg-type]


def probability(policy: Policy, architecture: Architecture) -> float:
    return math.exp(policy(architecture)[0].item())


class TestPolicy:
    @pytest.mark.parametrize("space", [deep(3, 2), flat(3, 3)], ids=["deep", "flat"])
    def test_is_a_distribution_over_architectures(self, space: Choices) -> None:
        """Inactive choices are in no probability: the architectures' own add up to one."""
        policy = policy_of(space)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(20)  # far from uniform
        assert sum(probability(policy, each) for each in space.architectures()) == pytest.approx(1.0)

    def test_samples_with_the_probabilities_that_it_tells(self) -> None:
        space = deep(2, 2)
        policy = policy_of(space)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(20)
        generator = np.random.default_rng(1)
        drawn = Counter(architecture_id(policy.sample(generator)) for _ in range(3000))
        for each in space.architectures():
            assert drawn[architecture_id(each)] / 3000 == pytest.approx(probability(policy, each), abs=0.03)

    def test_begins_nearly_uniform(self) -> None:
        policy, architecture = policy_of(flat(6, 4)), dict.fromkeys((f"c{n}" for n in range(6)), 1)
        log_probability, entropy = policy(architecture)
        assert entropy.item() == pytest.approx(6 * math.log(4), rel=0.01)
        assert log_probability.item() == pytest.approx(-6 * math.log(4), rel=0.1)

    @pytest.mark.parametrize("space", [deep(), flat(), huge()], ids=["deep", "flat", "huge"])
    def test_the_gradient_reaches_every_weight_matrix(self, space: Choices) -> None:
        policy = policy_of(space)
        log_probability, _ = policy(random_architecture(space, np.random.default_rng(0)))
        log_probability.backward()
        for name, parameter in policy.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name

    def test_the_gradient_is_that_of_the_probability(self) -> None:
        policy, architecture = policy_of(deep(3, 2)), {"depth": 2, "block1.kind": 1, "block1.width": 0}
        architecture |= {"block2.kind": 0, "block2.width": 1}
        policy(architecture)[0].backward()
        for parameter in policy.parameters():
            assert parameter.grad is not None
            place = int(parameter.grad.abs().argmax())
            with torch.no_grad():
                flat_view, step = parameter.view(-1), 1e-6
                values = []
                for sign in (1, -1):
                    flat_view[place] += sign * step
                    values.append(policy(architecture)[0].item())
                    flat_view[place] -= sign * step
            assert parameter.grad.view(-1)[place].item() == pytest.approx(
                (values[0] - values[1]) / (2 * step), rel=1e-4
            )

    def test_a_space_without_decisions(self) -> None:
        policy = policy_of(Choices(Choice("only", ("this",))))
        assert policy.sample(np.random.default_rng(0)) == {"only": "this"}
        assert policy({"only": "this"})[0].item() == 0


class TestController:
    def test_what_is_rewarded_becomes_more_probable(self) -> None:
        """One choice alone is rewarded; the others are left about as they were."""
        strategy = search(flat(6, 4))
        drive(strategy, lambda a: judged(float(a["c2"] == 3)), 150)
        generator = np.random.default_rng(0)
        drawn = [strategy.policy.sample(generator) for _ in range(300)]
        assert np.mean([architecture["c2"] == 3 for architecture in drawn]) > 0.7
        for label in ("c0", "c5"):
            assert max(Counter(architecture[label] for architecture in drawn).values()) < 0.75 * 300

    def test_finds_better_ones_than_chance(self) -> None:
        space = flat(8, 4)
        late = [drive(search(space, seed), lambda a: judged(accuracy_of(a)), 120)[-30:] for seed in range(2)]
        assert np.mean([record.score for run in late for record in run]) > 0.25 + 0.2  # a random one has 0.25

    @pytest.mark.parametrize("scale", [1e-3, 1e3])
    def test_the_rewards_scale_doesnt_matter(self, scale: float) -> None:
        ids = [
            [record.id for record in drive(search(flat()), lambda a, s=s: judged(s * accuracy_of(a)), 40)]  # type: ignore[misc]
            for s in (1.0, scale)
        ]
        assert ids[0] == ids[1]

    def test_a_failure_costs_no_more_than_the_worst_result(self) -> None:
        strategy = search(flat())
        drive(strategy, lambda a: judged(0.9), 10)
        before = strategy.baseline
        drive(strategy, lambda a: TrialResult("failed", error="x"), 11)
        assert before - strategy.baseline <= 0.1 * before + 1e-12

    def test_learns_from_what_it_remembers_without_a_trial(self) -> None:
        """In a space with two architectures the policy samples known ones nearly always."""
        space = Choices(Choice("a", (0, 1)), Choice("b", tuple(range(40)), (("a", (1,)),)))
        strategy = search(space, repeats=20)
        found = drive(strategy, lambda a: judged(float(a["a"] == 0)), 30)
        assert len({record.id for record in found}) == 30
        (record,) = [record for record in found if record.architecture["a"] == 0]
        assert probability(strategy.policy, record.architecture) > 0.5
        assert strategy.random_ids

    def test_several_results_a_step(self) -> None:
        strategy = search(flat(), batch_size=4)
        before = [parameter.clone() for parameter in strategy.policy.parameters()]
        drive(strategy, lambda a: judged(accuracy_of(a)), 3)
        assert all(torch.equal(*pair) for pair in zip(before, strategy.policy.parameters(), strict=True))
        drive(strategy, lambda a: judged(accuracy_of(a)), 4)
        assert not any(torch.equal(*pair) for pair in zip(before, strategy.policy.parameters(), strict=True))

    def test_computes_in_one_thread_and_leaves_the_callers_as_they_were(self, monkeypatch: pytest.MonkeyPatch) -> None:
        strategy, threads, used = search(flat()), torch.get_num_threads(), []
        for name in ("sample", "forward"):
            own = getattr(strategy.policy, name)

            def noted(*arguments: Any, own: Any = own) -> Any:
                used.append(torch.get_num_threads())
                return own(*arguments)

            monkeypatch.setattr(strategy.policy, name, noted)
        torch.set_num_threads(3)
        try:
            drive(strategy, lambda a: judged(accuracy_of(a)), 3)
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(threads)
        assert len(used) >= 6
        assert set(used) == {1}

    @pytest.mark.parametrize("space", [deep(), huge()], ids=["deep", "huge"])
    def test_conditional_and_large_spaces_with_four_workers(self, space: Choices) -> None:
        found = drive(search(space), lambda a: judged(accuracy_of(a)), 40, workers=4)
        assert len({record.id for record in found}) == 40
