"""What trials tell about activations, on records whose effects are known."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers.instant import config_of, space_of
from pipeline.activations.effects import LEAST_TRIALS, effects_of
from pipeline.activations.facts import EVERYWHERE, Effect
from pipeline.spaces.base import Architecture, SearchSpace, activations_of, architecture_id
from pipeline.trials.journal import TrialRecord

NAMES = ["relu", "hardswish", "silu", "leaky_relu"]
TRUE = {"relu": 0.0, "hardswish": 0.01, "silu": 0.02, "leaky_relu": -0.02}
SLOWER = {"relu": 0.0, "hardswish": 0.1, "silu": 0.3, "leaky_relu": 0.05}


def space(scope: str, names: Sequence[str] = NAMES) -> SearchSpace:
    return space_of(config_of({"name": "random"}, 30, activations=list(names), activation_scope=scope, depths=[1, 2]))


def record(number: int, architecture: Architecture, status: Any = "ok", **objectives: float) -> TrialRecord:
    return TrialRecord(number, architecture_id(architecture), architecture, status, 0.0, objectives, "", 1.0, 1.0)


def made_up(of: SearchSpace, count: int, seed: int, true: dict[str, float] = TRUE) -> list[TrialRecord]:
    """Random candidates: an activation's effect at its share of the places, other choices' effects, and noise."""
    random = np.random.default_rng(seed)
    others: dict[Any, float] = {}
    found = []
    for number, rank in enumerate(random.choice(10_000, count, replace=False)):
        architecture = of.at(int(rank) * (of.size() // 10_000))
        chosen = activations_of(architecture)
        other = sum(
            others.setdefault((k, v), random.normal(0, 0.005))
            for k, v in architecture.items()
            if not k.endswith("activation")
        )
        accuracy = 0.8 + other + np.mean([true[name] for name in chosen.values()]) + random.normal(0, 0.005)
        latency = math.exp(10 * other + np.mean([SLOWER[name] for name in chosen.values()]) + random.normal(0, 0.02))
        found.append(record(number, architecture, accuracy=float(accuracy), latency_ms=latency, macs=1e6, params=1e4))
    return found


@pytest.mark.parametrize(
    "details",
    [{"stopped_after": 1, "epochs": 4, "stopped_by": "a rule"}, {"zero_cost": {"naswot": 3.0}}],
    ids=["stopped", "scored"],
)
def test_what_was_not_trained_to_the_end_tells_nothing_of_accuracies(details: dict[str, Any]) -> None:
    records = made_up(space("stage"), 40, 0)
    worse = [replace(r, details=details, objectives={**r.objectives, "accuracy": 0.1}) for r in records[30:]]
    found, without = effects_of([*records[:30], *worse]), effects_of(records[:30])
    assert found.trained == 30
    assert found.timed == 40
    assert found.accuracy == without.accuracy


def by_name(effects: Sequence[Effect], place: str) -> dict[str, Effect]:
    return {effect.activation: effect for effect in effects if effect.place == place}


@pytest.mark.parametrize(("scope", "pooled"), [("network", "network"), ("stage", EVERYWHERE), ("block", EVERYWHERE)])
def test_known_effects_are_recovered(scope: str, pooled: str) -> None:
    found = effects_of(made_up(space(scope), 400, 1))
    assert (found.baseline, found.trained, found.timed) == ("relu", 400, 400)
    accuracy, latency = by_name(found.accuracy, pooled), by_name(found.latency, pooled)
    assert accuracy.keys() == latency.keys() == set(NAMES) - {"relu"}
    for name, effect in accuracy.items():
        assert effect.value == pytest.approx(TRUE[name], abs=0.006)
    assert accuracy["silu"].is_significant
    assert accuracy["silu"].low > 0 > accuracy["leaky_relu"].high
    assert latency["silu"].value == pytest.approx(math.expm1(0.3), abs=0.08)


@pytest.mark.parametrize("count", [8, 25])
@pytest.mark.parametrize("true", [TRUE, dict.fromkeys(NAMES, 0.0), {**TRUE, "silu": 0.08}])
def test_intervals_hold_the_truth_about_as_often_as_they_say(true: dict[str, float], count: int) -> None:
    of = space("stage")
    effects = [
        (effect, true[effect.activation] - true["relu"])
        for seed in range(30)
        if (found := effects_of(made_up(of, count, seed, true))).baseline
        for effect in found.accuracy
        if effect.place == EVERYWHERE
    ]
    held = np.mean([effect.low <= truth <= effect.high for effect, truth in effects])
    assert len(effects) >= 60
    assert held >= 0.8


def test_an_effect_at_one_place_alone_is_found_there() -> None:
    of = space("stage")
    records = []
    random = np.random.default_rng(0)
    for number, r in enumerate(made_up(of, 300, 2, dict.fromkeys(NAMES, 0.0))):
        gain = 0.04 if r.architecture["stage1_activation"] == "silu" else 0.0
        records.append(record(number, r.architecture, accuracy=0.5 + gain + random.normal(0, 0.004)))
    found = effects_of(records)
    at = {place: by_name(found.accuracy, place)["silu"] for place in ("stage0", "stage1", "stage2")}
    assert at["stage1"].value == pytest.approx(0.04, abs=0.005)
    assert abs(at["stage0"].value) < 0.005
    assert at["stage1"].trials == sum(r.architecture["stage1_activation"] == "silu" for r in records)


def test_choices_that_always_go_together_are_not_told_apart() -> None:
    """Each activation came with one width alone: what the two did together has no owner."""
    records = [
        record(
            n, {"width": 8 if n % 2 else 16, "activation": "relu" if n % 2 else "silu"}, accuracy=0.8 + 0.1 * (n % 2)
        )
        for n in range(12)
    ]
    (effect,) = effects_of(records).accuracy
    assert math.isfinite(effect.low)
    assert effect.low < -0.05
    assert not effect.is_significant


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (lambda: made_up(space("stage"), LEAST_TRIALS - 1, 0), "4 trials are too few to tell; 5 are the least"),
        (lambda: [], "0 trials are too few to tell; 5 are the least"),
        (
            lambda: [record(n, {"width": n, "activation": "relu"}, accuracy=n / 9) for n in range(8)],
            "all 8 trials have the same activation",
        ),
        (lambda: [record(n, {"width": n}, accuracy=n / 9) for n in range(8)], "the space has no activations"),
        (
            lambda: [record(n, {"w": n, "activation": NAMES[n % 2]}, accuracy=0.5) for n in range(8)],
            "all 8 trials reached the same value",
        ),
    ],
)
def test_what_cannot_be_told_says_why(records: Callable[[], list[TrialRecord]], reason: str) -> None:
    found = effects_of(records())
    assert found.accuracy == ()
    assert found.accuracy_missing == reason


def test_without_relu_effects_are_against_the_mean() -> None:
    true = {"silu": 0.03, "tanh": -0.03, "hardswish": 0.0}
    of = space("network", list(true))
    random = np.random.default_rng(3)
    records = [
        record(n, (a := of.at(int(random.integers(of.size())))), accuracy=0.5 + true[str(a["activation"])] + n * 1e-6)
        for n in range(60)
    ]
    found = effects_of(records)
    assert found.baseline == ""
    values = {name: effect.value for name, effect in by_name(found.accuracy, "network").items()}
    assert values == pytest.approx(true, abs=0.003)
    assert sum(values.values()) == pytest.approx(0.0, abs=1e-9)


def test_latencies_of_candidates_over_a_limit_count_and_failed_ones_do_not() -> None:
    records = made_up(space("network"), 40, 4)
    for n in range(20):
        records[n] = record(n, records[n].architecture, "infeasible", latency_ms=records[n].objectives["latency_ms"])
    records[20] = record(20, records[20].architecture, "failed")
    found = effects_of(records)
    assert (found.trained, found.timed) == (19, 39)
