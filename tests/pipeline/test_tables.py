"""The tables: every row can be had, and a row is all that a new thing needs beside its file and its options."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from helpers.cli import small_config
from helpers.places import REPOSITORY
from helpers.published import bench_config
from pipeline.config.base import Section
from pipeline.registry import Entry, load
from pipeline.tables import REFERENCES, SECTIONS

ROWS = [(kind, name) for kind, table in SECTIONS.items() for name in table]
TOY = '''
from typing import Literal

from pipeline.config.base import Section
from pipeline.registry import Entry
from pipeline.strategies.base import ProposingStrategy
from pipeline.strategies.neighbours import untried_at_random
from pipeline.tables import STRATEGIES


class ToyOptions(Section):
    """Random search without repeats."""

    name: Literal["toy"]
    shift: int = 0


class Toy(ProposingStrategy):
    """An example."""

    def __init__(self, options: ToyOptions, problem):
        super().__init__(problem)
        self._shift = options.shift

    def propose(self, generator):
        generator.bytes(self._shift)
        return untried_at_random(self.problem.space, self.tried(), generator)


STRATEGIES["toy"] = Entry("toy_strategy:Toy", "an example", "toy_strategy:ToyOptions")
'''


@pytest.mark.parametrize(("kind", "name"), ROWS)
def test_a_row_has_its_class_and_the_model_of_its_options(kind: str, name: str) -> None:
    entry = SECTIONS[kind][name]
    model = entry.options_model()
    assert issubclass(model, Section)
    assert name in get_args(model.model_fields["name"].annotation)
    assert callable(load(kind, name, SECTIONS[kind]))


@pytest.mark.parametrize("entry", [*REFERENCES.values(), *(SECTIONS[kind][name] for kind, name in ROWS)])
def test_a_row_tells_what_it_is_in_one_line(entry: Entry) -> None:
    assert 10 < len(entry.description) <= 110
    assert "\n" not in entry.description


class TestANewStrategyIsAFileItsOptionsAndARow:
    @pytest.fixture
    def python(self, tmp_path: Path) -> list[str]:
        """Python that has the toy among its strategies."""
        (tmp_path / "toy_strategy.py").write_text(TOY)
        return [sys.executable, "-c", "import sys, toy_strategy; from pipeline.cli.app import main; main()"]

    def run(self, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)

    def test_it_is_listed(self, tmp_path: Path, python: list[str]) -> None:
        assert re.search(r"^toy +an example$", self.run(tmp_path, *python, "list", "strategies").stdout, re.MULTILINE)

    def test_mistakes_name_it_and_its_options(self, tmp_path: Path, python: list[str]) -> None:
        config = str(small_config(tmp_path / "c.yaml"))
        for name, message in (("{name: tyo}", "did you mean 'toy'"), ("{name: toy, shfit: 1}", "did you mean 'shift'")):
            ended = self.run(tmp_path, *python, "search", config, "--set", f"strategy={name}")
            assert ended.returncode == 2
            assert message in ended.stderr

    def test_it_searches(self, tmp_path: Path, python: list[str]) -> None:
        config = str(bench_config(tmp_path, strategies=["toy", {"name": "toy", "shift": 3}]))
        ended = self.run(tmp_path, *python, "bench", config, "--output", str(tmp_path / "out"), "--jobs", "1")
        assert ended.returncode == 0, ended.stderr
        assert "toy(shift=3)" in (tmp_path / "out" / "bench.html").read_text()

    def test_the_contract_of_strategies_covers_it(self, tmp_path: Path, python: list[str]) -> None:
        tests = "tests/pipeline/strategies/test_base.py"
        ended = self.run(tmp_path, sys.executable, "-m", "pytest", "-p", "toy_strategy", "-k", "toy", "-v", tests)
        assert ended.returncode == 0, ended.stdout
        passed = re.search(r"(\d+) passed", ended.stdout)
        assert passed
        assert int(passed[1]) > 8
