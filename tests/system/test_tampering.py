"""Every case of `benchmarks/tampering.py` through the real command: exit 3, and the check that tells what was done."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.benchmark_scripts import scripts
from helpers.cli import Finished

(tampering,) = scripts("tampering")


@pytest.fixture(scope="module")
def sound(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run's bundle with every kind of model in it."""
    return Path(tampering.completed(finished.run / "bundle", tmp_path_factory.mktemp("sound") / "bundle"))


@pytest.fixture
def bundle(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("pipeline.winner.verify.BUDGET_S", 0.1)
    return Path(shutil.copytree(sound, tmp_path / "bundle"))


def test_as_it_was_made_it_is_sound(hwnas: Any, bundle: Path) -> None:
    result = hwnas("verify", bundle, "--json")
    assert result.code == 0, result.stdout
    passed = {check["name"] for check in result.document()["checks"] if check["ok"]}
    assert {"parity", "accuracy", "evaluation", "classes", "int8 parity", "image parity", "limit macs"} <= passed


@pytest.mark.parametrize("case", tampering.CASES, ids=lambda case: case.name)
def test_it_is_found(hwnas: Any, bundle: Path, case: Any) -> None:
    case.damage(bundle, *case.arguments)
    result = hwnas("verify", bundle, "--json")
    assert result.code == 3, result.stderr
    assert "Traceback" not in result.stderr
    failed = {check["name"]: check["detail"] for check in result.document()["checks"] if check["ok"] is False}
    assert case.words in failed[case.check]


def test_verifying_needs_no_torch(sound: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pipeline.cli import app as cli\n"
        f"sys.argv = ['hwnas', 'verify', {str(sound)!r}]\n"
        "try:\n    cli.main()\n"
        "except SystemExit as end:\n    print('exit', end.code)\n"
        "print([name for name in ('torch', 'torchvision', 'nni') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["exit 0", "[]"]
