"""Scores that a run keeps, so that a resumed one reads what it computed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.config.file import parse_config
from pipeline.data import load_data
from pipeline.evaluators.zero_cost import candidates as networks
from pipeline.evaluators.zero_cost.candidates import NetworkScores, check_proxies, proxies_of
from pipeline.spaces.make import make_space
from pipeline.trials.reporter import Reporter

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = parse_config({"data": {"name": "digits"}, "space": {"name": "convnet", "width": 8, "stages": 2}}, "a test")
DATA = load_data(CONFIG.data)
SPACE = make_space(CONFIG, DATA)
SOME = [SPACE.at(rank) for rank in (0, 1000, 2000)]


def scores(path: Path, names: tuple[str, ...] = ("params", "naswot")) -> NetworkScores:
    return NetworkScores(SPACE, DATA, names, 0, Reporter(), path)


def test_what_is_kept_is_read_and_not_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.jsonl"
    before = scores(path).scores(SOME)
    assert np.isfinite(before).all()
    monkeypatch.setattr(networks, "score_of", lambda *_: pytest.fail("it was kept"))
    assert np.array_equal(scores(path).scores(SOME), before)


def test_no_score_is_kept_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "score_of", lambda *_: math.nan)
    path = tmp_path / "kept.jsonl"
    scores(path).scores(SOME)
    monkeypatch.setattr(networks, "score_of", lambda *_: 1.0)
    assert np.isnan(scores(path).scores(SOME)).all()


@pytest.mark.parametrize("cut", [1, 20])
def test_a_line_that_was_cut_off_is_computed_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "kept.jsonl"
    before = scores(path).scores(SOME)
    path.write_text(path.read_text()[:-cut])
    assert np.array_equal(scores(path).scores(SOME), before)
    assert np.array_equal(scores(path).scores(SOME), before)


def test_other_scores_are_not_taken_for_these(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    scores(path).scores(SOME)
    assert scores(path, ("params",)).scores(SOME).shape == (3, 1)


class Section:
    """As a third party's strategy may be told."""

    def __init__(self, proxies: object) -> None:
        self.proxies = proxies


@pytest.mark.parametrize("proxies", [None, "naswot", 3, {"naswot": 1}, [1]])
def test_a_third_partys_option_of_that_name_is_its_own(proxies: object) -> None:
    config = CONFIG.model_copy(update={"strategy": Section(proxies)})
    check_proxies(config)
    assert proxies_of(config, DATA, SPACE, Reporter()) is None
