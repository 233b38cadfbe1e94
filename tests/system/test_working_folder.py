"""A user's own modules in the working folder: none is taken for ours, and those that a config names still load."""

from pathlib import Path

import pytest

from helpers.cli import command, records, small_config

NAMESAKES = (
    *("pipeline.py", "export.py", "statistics.py", "torch.py", "latency_models/__init__.py"),
    *("google/__init__.py", "cupy.py", "triton.py", "pandas.py", "own_backend.py"),  # the last: see BACKEND
)
BACKEND = "[torch.backends]\nown = own_backend:start\n"
"""An entry point as installed packages have one; torch imports those that it finds on the path."""
QUICK = {"budget": {"trials": 2}, "final": {"pick": "knee", "epochs": 1}}
EVALUATOR = """
import own_helper
from pipeline.evaluators.base import CandidateEvaluator

class Half(CandidateEvaluator):
    def evaluate(self, model, progress=None):
        return own_helper.HALF
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder in which every namesake of a module that a search imports leaves a mark when it is run."""
    for name in NAMESAKES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(tmp_path / 'mark')!r}, 'a').write({name!r})\n", encoding="utf-8")
    metadata = tmp_path / "own-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text(BACKEND, encoding="utf-8")
    return tmp_path


def test_namesakes_are_left_alone_and_own_evaluators_load(folder: Path) -> None:
    (folder / "own_evaluator.py").write_text(EVALUATOR, encoding="utf-8")
    (folder / "own_helper.py").write_text("HALF = 0.5\n", encoding="utf-8")
    evaluator, engine = {"name": "own_evaluator:Half"}, {"name": "processes", "workers": 2}
    config = small_config(folder / "small.yaml", evaluator=evaluator, engine=engine, **QUICK)
    done = command("search", str(config), "--run-dir", "run", cwd=folder)
    assert not (folder / "mark").exists()
    assert done.code == 0, done.stderr
    assert (folder / "run" / "bundle" / "manifest.json").is_file()
    assert {record.objectives["accuracy"] for record in records(folder / "run") if record.status == "ok"} == {0.5}
