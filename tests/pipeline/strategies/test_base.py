"""What every strategy of the table must do, through an engine that knows the answers."""

from pathlib import Path
from typing import Any

import pytest

from helpers.instant import by_hash, config_of, search, space_of
from pipeline.engines.trial import TrialResult
from pipeline.spaces.base import architecture_id
from pipeline.tables import STRATEGIES
from pipeline.trials.journal import TrialRecord

OPTIONS: dict[str, dict[str, Any]] = {
    "evolution": {"population": 8, "sample": 3},
    "nsga2": {"population": 8},
    "tpe": {"startup": 8},
    "controller": {"hidden_size": 16, "repeats": 3},
}
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


MANY_REPEATS = {
    "stages": 1,
    "depths": [1, 2, 3, 8],  # three samples of four have a depth with a handful of architectures
    "kernels": [3, 5],
    "expansions": [2],
    "blocks": ["residual"],
    "squeeze_excitation": [False],
    "width_multipliers": [1],
    "activations": ["relu"],
    "activation_scope": "network",
}


@pytest.fixture(scope="module", params=list(STRATEGIES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def whole(name: str, tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    """An unbroken run of thirty trials."""
    return search(tmp_path_factory.mktemp(name) / "j", TestContract.config(name))[0]


class TestContract:
    @staticmethod
    def config(name: str, trials: int = 30, seed: int = 0, **space: Any) -> Any:
        return config_of({"name": name, **OPTIONS.get(name, {})}, trials, seed, **{"stages": 2, **space})

    def test_spends_the_budget_and_no_more(self, whole: list[TrialRecord]) -> None:
        found = whole
        assert sum(record.status != "infeasible" for record in found) == 30
        assert found[-1].status != "infeasible"
        assert len({record.id for record in found}) == len(found)
        assert [record.number for record in found] == list(range(len(found)))

    def test_is_a_function_of_the_seed(self, tmp_path: Path, name: str, whole: list[TrialRecord]) -> None:
        again, other = (search(tmp_path / str(seed), self.config(name, seed=seed))[0] for seed in (0, 1))
        assert [record.id for record in again] == [record.id for record in whole]
        assert [record.id for record in other] != [record.id for record in whole]

    def test_proposes_architectures_of_the_space(self, name: str, whole: list[TrialRecord]) -> None:
        config = self.config(name)
        for record in whole:
            assert space_of(config).canonical(record.architecture) == record.architecture
            assert architecture_id(record.architecture) == record.id

    @pytest.mark.parametrize("killed_at", [0, 8, 29])
    def test_replays_what_was_recorded(
        self, tmp_path: Path, name: str, whole: list[TrialRecord], killed_at: int
    ) -> None:
        config = self.config(name)
        first, _ = search(tmp_path / "broken", config, killed_at=killed_at)
        assert len(first) == killed_at
        resumed, judged = search(tmp_path / "broken", config)
        assert [record.id for record in resumed] == [record.id for record in whole]
        assert [record.score for record in resumed] == [record.score for record in whole]
        assert judged == [record.id for record in whole[killed_at:]]

    def test_survives_many_kills(self, tmp_path: Path, name: str, whole: list[TrialRecord]) -> None:
        config = self.config(name)
        for killed_at in (3, 3, 7, 18, 19):
            search(tmp_path / "broken", config, killed_at=killed_at)
        resumed, _ = search(tmp_path / "broken", config)
        assert [record.id for record in resumed] == [record.id for record in whole]

    @pytest.mark.parametrize("space", [TINY, MANY_REPEATS], ids=["tiny", "many repeats"])
    def test_exhausts_a_space_the_same_way_after_a_kill(self, tmp_path: Path, name: str, space: Any) -> None:
        """Repeats of known architectures are many here; those that are replayed must not end the search early."""
        config = self.config(name, trials=100, **space)
        whole, _ = search(tmp_path / "whole", config, judge=_fine)
        size = len(list(space_of(config).architectures()))
        assert len(whole) == min(100, size) or name == "evolution"  # which may go round in circles before
        killed_at = len(whole) - 1
        search(tmp_path / "broken", config, judge=_fine, killed_at=killed_at)
        resumed, _ = search(tmp_path / "broken", config, judge=_fine)
        assert [record.id for record in resumed] == [record.id for record in whole]

    def test_ends_when_everything_fails_or_breaks_a_limit(self, tmp_path: Path, name: str) -> None:
        failed, _ = search(
            tmp_path / "f", self.config(name, trials=12), judge=lambda _: TrialResult("failed", error="x")
        )
        assert [record.status for record in failed] == ["failed"] * 12

        def over(_: object) -> TrialResult:
            return TrialResult("infeasible", {"macs": 2.0}, {"excess": {"macs": 1.0}})

        infeasible, _ = search(tmp_path / "i", self.config(name, trials=2), judge=over)
        assert len(infeasible) == 200  # the cap

    def test_a_longer_budget_goes_on_where_the_shorter_ended(
        self, tmp_path: Path, name: str, whole: list[TrialRecord]
    ) -> None:
        short = self.config(name, trials=15)
        first, _ = search(tmp_path / "j", short)
        longer = short.model_copy(update={"budget": short.budget.model_copy(update={"trials": 30})})
        both, judged = search(tmp_path / "j", longer)
        assert both[: len(first)] == first
        assert [record.id for record in both[len(first) :]] == judged
        assert [record.id for record in both] == [record.id for record in whole]


def _fine(architecture: Any) -> TrialResult:
    accuracy = int(architecture_id(architecture)[:6], 16) / 16**6
    return TrialResult("ok", {"accuracy": accuracy, "macs": 1e6}, {})


@pytest.mark.parametrize("shuffle", [True, False])
def test_grid_enumerates_a_tiny_space_once(tmp_path: Path, shuffle: bool) -> None:
    config = config_of({"name": "grid", "shuffle": shuffle}, 1000, **TINY)
    found, _ = search(tmp_path / "j", config, judge=_fine)
    every = [architecture_id(a) for a in space_of(config).architectures()]
    ids = [record.id for record in found]
    assert sorted(ids) == sorted(every)
    assert (ids == every) is not shuffle


def test_grid_shuffles_a_large_space_as_a_whole(tmp_path: Path) -> None:
    """Thirty of a shuffled grid look everywhere, not only where the first choices have their first values."""
    config = config_of({"name": "grid"}, 30, activations=["relu", "silu"], activation_scope="network")
    found, _ = search(tmp_path / "j", config, judge=_fine)
    assert {record.architecture["activation"] for record in found} == {"relu", "silu"}


def test_evolution_learns(tmp_path: Path) -> None:
    """With the share of ReLU6 as accuracy, late candidates of evolution have more of it than random ones."""

    def judge(architecture: Any) -> TrialResult:
        values = [value for label, value in architecture.items() if label.endswith("activation")]
        return TrialResult("ok", {"accuracy": values.count("relu6") / len(values), "macs": 1.0}, {})

    space = {"activations": ["relu", "silu", "relu6", "hardswish"], "activation_scope": "block"}
    late = {}
    for name in ("evolution", "random"):
        config = config_of({"name": name, **OPTIONS.get(name, {})}, 120, **space)
        found, _ = search(tmp_path / name, config, judge=judge)
        late[name] = sum(record.objectives["accuracy"] for record in found[-40:]) / 40
    assert late["evolution"] > late["random"] + 0.2


def test_evolutions_population_follows_the_first_budget() -> None:
    assert config_of({"name": "evolution"}, 100).strategy.population == 25
    assert config_of({"name": "evolution"}, 8).strategy.population == 8
    assert config_of({"name": "evolution"}, 1000).strategy.population == 50
    assert config_of({"name": "evolution", "sample": 12}, 8).strategy.population == 12


def test_the_judge_of_these_tests_gives_every_status() -> None:
    space = space_of(config_of({"name": "random"}, 1))
    statuses = {by_hash(a).status for a, _ in zip(space.architectures(), range(200), strict=False)}
    assert statuses == {"ok", "infeasible", "failed"}
