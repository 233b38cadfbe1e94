"""Zero-cost scores of networks in a search: the evaluator, its minibatch, and the scores of candidates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.cli import check_message, records, small_config
from helpers.scores import DIGITS, Counting
from pipeline.config.file import load_config
from pipeline.engines.trial import TrialResult, TrialRunner
from pipeline.errors import ConfigError, UnknownNameError
from pipeline.evaluators.zero_cost.candidates import NetworkScores, check_proxies
from pipeline.evaluators.zero_cost.scores import minibatch
from pipeline.trials.reporter import Reporter


class TestEvaluator:
    def test_a_search_to_the_end(self, tmp_path: Path, hwnas: Any) -> None:
        """Trials have the score beside its share; the winner is trained, and its accuracy is one."""
        config = small_config(
            tmp_path / "c.yaml",
            evaluator={"name": "zero_cost", "score": "naswot", "batch_size": 16},
            budget={"trials": 3, "minutes": 5},
        )
        run = tmp_path / "run"
        done = hwnas("search", config, "--run-dir", run, "--json")
        assert done.code == 0, done.stderr
        trials = [record for record in records(run) if record.status == "ok"]
        assert trials
        for record in trials:
            assert record.details["zero_cost"]["naswot"] > 0
            assert 0 < record.objectives["accuracy"] < 1
        by_score = sorted(trials, key=lambda record: record.details["zero_cost"]["naswot"])
        assert by_score == sorted(trials, key=lambda record: record.objectives["accuracy"])
        assert (run / "bundle" / "model.onnx").is_file()
        assert (run / "checkpoints").is_dir()

    def test_is_a_function_of_config_and_architecture(self, tmp_path: Path) -> None:
        def judged() -> TrialResult:
            evaluator = {"name": "zero_cost", "score": "jacob_cov"}
            config = load_config(small_config(tmp_path / "c.yaml", evaluator=evaluator, constraints={}))
            runner = TrialRunner(config)
            torch.rand(7)
            return runner.run(runner.space.at(1))

        first, second = judged(), judged()
        assert first.details["zero_cost"] == second.details["zero_cost"]
        assert first.objectives["accuracy"] == second.objectives["accuracy"]

    def test_a_network_without_a_score_is_a_failed_trial(self, tmp_path: Path, hwnas: Any) -> None:
        config = small_config(
            tmp_path / "c.yaml",
            space={"activations": ["identity"], "blocks": ["inverted"], "squeeze_excitation": [False]},
            evaluator={"name": "zero_cost", "score": "naswot", "batch_size": 512},
            budget={"trials": 1, "minutes": 5},
        )
        run = tmp_path / "run"
        assert hwnas("search", config, "--run-dir", run).code != 0
        assert [record.status for record in records(run)] == ["failed"]
        assert "naswot of this network is -inf" in str(records(run)[0].error)

    @pytest.mark.parametrize(
        ("evaluator", "said"),
        [
            ({"score": "naswott"}, ["evaluator.score", "'naswott'; did you mean 'naswot'", "synflow"]),
            ({"score": "naswot", "batch_size": 1}, ["evaluator.batch_size", "2"]),
            ({"score": "naswot", "epochs": 3}, ["evaluator.epochs"]),
            ({}, ["evaluator.score", "required"]),
        ],
    )
    def test_mistakes_in_the_config(self, tmp_path: Path, hwnas: Any, evaluator: Any, said: list[str]) -> None:
        config = small_config(tmp_path / "c.yaml", evaluator={"name": "zero_cost", **evaluator})
        check_message(hwnas("search", config, "--run-dir", tmp_path / "run"), 2, *said)

    def test_int8_needs_an_evaluator_that_trains(self, tmp_path: Path, hwnas: Any) -> None:
        config = small_config(
            tmp_path / "c.yaml", evaluator={"name": "zero_cost", "score": "params"}, device={"precision": "int8"}
        )
        check_message(hwnas("search", config, "--run-dir", tmp_path / "run"), 2, "zero_cost", "without training")


class TestMinibatch:
    def test_is_always_the_same_and_never_more_than_there_is(self) -> None:
        images, labels = minibatch(DIGITS, 16)
        assert images.shape == (16, 1, 8, 8)
        assert labels.shape == (16,)
        assert (minibatch(DIGITS, 16)[0] == images).all()
        assert len(minibatch(DIGITS, 10**6)[1]) == len(DIGITS.train)

    def test_images_are_those_that_training_sees(self) -> None:
        images, labels = minibatch(DIGITS, 4)
        known = DIGITS.preprocessing.apply(DIGITS.train.images)
        for image, label in zip(images.numpy(), labels.tolist(), strict=True):
            rows = np.flatnonzero((known == image).all(axis=(1, 2, 3)))
            assert label in DIGITS.train.labels[rows]


class TestNetworkScores:
    def test_are_those_of_the_trials_network(self, tmp_path: Path) -> None:
        """The seed of an architecture's weights is its trial's."""
        changes: dict[str, Any] = {"evaluator": {"name": "zero_cost", "score": "naswot"}, "constraints": {}}
        config = load_config(small_config(tmp_path / "c.yaml", **changes))
        runner = TrialRunner(config)
        architecture = runner.space.at(3)
        found = NetworkScores(runner.space, runner.data, ["naswot"], config.seed, Reporter()).scores([architecture])
        assert runner.run(architecture).details["zero_cost"]["naswot"] == pytest.approx(found[0, 0])

    def test_are_computed_once_and_leave_the_generator_alone(self) -> None:
        space = Counting()
        scores = NetworkScores(space, DIGITS, ["params", "synflow"], 0, Reporter())
        torch.manual_seed(3)
        drawn = torch.rand(2)
        torch.manual_seed(3)
        asked = [{"width": 4}, {"width": 6}, {"width": 4}]
        first, second = scores.scores(asked), scores.scores(asked)  # type: ignore[arg-type]
        assert (torch.rand(2) == drawn).all()
        assert space.built == 2
        assert (first == second).all()
        assert first[:, 0].tolist() == [65 * 64 + 650, 65 * 96 + 970, 65 * 64 + 650]

    def test_do_not_depend_on_order_or_company(self) -> None:
        one, other = (NetworkScores(Counting(), DIGITS, ["naswot"], 0, Reporter()) for _ in range(2))
        alone = one.scores([{"width": 6}])
        assert other.scores([{"width": 4}, {"width": 6}])[1] == alone[0]

    def test_a_network_that_raises_has_none(self) -> None:
        scores = NetworkScores(Counting(), DIGITS, ["params", "naswot"], 0, Reporter())
        found = scores.scores([{"width": 0}, {"width": 4}])
        assert np.isnan(found[0]).all()
        assert np.isfinite(found[1]).all()

    def test_tell_how_far_they_are(self) -> None:
        class Hears(Reporter):
            def __init__(self) -> None:
                self.shares: list[float] = []

            def progress(self, text: str, share: float) -> None:
                self.shares.append(share)
                assert "60 candidates" in text

        hears = Hears()
        scores = NetworkScores(Counting(), DIGITS, ["params"], 0, hears)
        scores.scores([{"width": width} for width in range(1, 61)])
        assert hears.shares == sorted(hears.shares)
        assert len(hears.shares) == 60
        assert max(hears.shares) < 1  # the search's bar goes on

    def test_unknown_ones_are_a_mistake_in_the_config(self, tmp_path: Path, hwnas: Any) -> None:
        config = small_config(tmp_path / "c.yaml", strategy={"name": "guided", "proxies": ["params", "synflo"]})
        with pytest.raises(UnknownNameError):
            check_proxies(load_config(config))
        said = ("strategy.proxies", "'synflo'; did you mean 'synflow'")
        check_message(hwnas("search", config, "--run-dir", tmp_path / "run"), 2, *said)

    def test_one_twice_is_too(self, tmp_path: Path) -> None:
        config = small_config(tmp_path / "c.yaml", strategy={"name": "guided", "proxies": ["params", "params"]})
        with pytest.raises(ConfigError, match=r"strategy\.proxies.*lists a score twice"):
            load_config(config)

    def test_in_a_search(self, tmp_path: Path, hwnas: Any) -> None:
        config = small_config(
            tmp_path / "c.yaml",
            strategy={"name": "guided", "initial": 2, "proxies": ["params"]},
            evaluator={"name": "zero_cost", "score": "synflow"},
            space={"kernels": [3, 5], "blocks": ["residual"], "squeeze_excitation": [False]},
            constraints={},
            budget={"trials": 4, "minutes": 5},
        )
        done = hwnas("search", config, "--run-dir", tmp_path / "run", "--json")
        assert done.code == 0, done.stderr
        assert len(records(tmp_path / "run")) == 4
