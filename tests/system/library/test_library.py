"""`import hwnas`: its example runs and type-checks against an installed wheel, and namesakes are refused by name."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import hwnas
import pytest

from helpers.cli import small_config
from helpers.cost_graphs import small_net
from helpers.places import REPOSITORY

EXAMPLE = Path(__file__).with_name("example.py")
API = Path(hwnas.__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel of this checkout; what the wheel needs is found where this test runs."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # building leaves files beside the sources
    source.mkdir()
    for name in ("pipeline", "export", "latency_models", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run([*map(str, build)], check=True, capture_output=True, timeout=120)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True, timeout=60)
    site = next((folder / "venv" / "lib").glob("python*/site-packages"))
    shutil.unpack_archive(next(folder.glob("hwnas-*.whl")), site, "zip")
    (site / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "venv" / "bin" / "python"


def run(command: list[object], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MYPYPATH")}
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=environment, text=True, capture_output=True, timeout=300, check=False)


def test_the_example_is_the_documentations() -> None:
    for page in ("README.md", "docs/library.md"):
        assert f"```python\n{EXAMPLE.read_text(encoding='utf-8')}```" in (REPOSITORY / page).read_text(encoding="utf-8")


def test_the_example_runs_on_the_wheel(wheel: Path, tmp_path: Path) -> None:
    small_config(tmp_path / "config.yaml", final={"epochs": 1}, export={"quantize": "never"})
    for name in ("model.onnx", "other.onnx"):
        (tmp_path / name).write_bytes(small_net().SerializeToString())
    done = run([wheel, EXAMPLE], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nothing is said that nobody asked for
    costs, first, second, result, *front = done.stdout.splitlines()
    assert len(costs.split()) == 4
    assert first == "model.onnx 1.0 False"
    assert second.startswith("other.onnx ")
    assert Path(result.split()[-1]).name == "bundle"
    assert front
    home = run([wheel, "-c", "import hwnas, pipeline; print(hwnas.__file__, pipeline.__file__)"], tmp_path)
    assert str(REPOSITORY) not in home.stdout


def test_the_examples_types_are_checked(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text('import hwnas\nhwnas.profile("m.onnx").latency_ms + "ms"\n', encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", wheel, "--config-file", os.devnull]
    command += ["--follow-imports", "silent", "--cache-dir", tmp_path / "cache", EXAMPLE, tmp_path / "wrong.py"]
    (found,) = [line for line in run(command, tmp_path).stdout.splitlines() if "error:" in line]
    assert found.startswith("wrong.py:2: error: Unsupported operand types")


@pytest.mark.parametrize("name", ["pipeline.py", "export.py", "latency_models/__init__.py", "pipeline/__init__.py"])
def test_a_file_in_the_way_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("print('I was run')\n", encoding="utf-8")
    (tmp_path / "script.py").write_text("import hwnas\nprint(hwnas.__version__)\n", encoding="utf-8")
    refused = run([sys.executable, "script.py"], tmp_path)
    assert refused.returncode == 1
    assert "I was run" not in refused.stdout
    (said,) = [line for line in refused.stderr.splitlines() if line.startswith("ImportError")]
    assert str(tmp_path / name) in said
    assert "-P" in said
    assert run([sys.executable, "-P", "script.py"], tmp_path).stdout.strip() == hwnas.__version__


def test_nothing_heavy_is_imported_before_it_is_needed(tmp_path: Path) -> None:
    code = "import sys, hwnas; hwnas.ERRORS; print(sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = json.loads(run([sys.executable, "-c", code], tmp_path).stdout.replace("'", '"'))
    assert not {"torch", "nni", "onnx", "onnxruntime", "numpy", "pydantic"} & set(loaded)


def test_every_name_is_there() -> None:
    assert {"search", "resume", "profile", "compare", "predict", "optimize", "verify", "load_run"} <= set(hwnas.__all__)
    for name in hwnas.__all__:
        assert getattr(hwnas, name) is not None
    assert set(hwnas.__all__) <= set(dir(hwnas))
    with pytest.raises(AttributeError, match="serach"):
        hwnas.serach  # type: ignore[attr-defined]  # noqa: B018


def test_overrides_are_a_mapping_or_texts(tmp_path: Path) -> None:
    config = small_config(tmp_path / "small.yaml")
    for overrides in ({"budget.trials": "many"}, ["budget.trials=many"]):
        with pytest.raises(hwnas.HwnasError, match=r"budget\.trials"):
            hwnas.search(config, overrides=overrides)
    with pytest.raises(hwnas.HwnasError, match="mapping or a list"):
        hwnas.search(config, overrides="budget.trials=3")


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(hwnas.ERRORS, match=r"nothing\.onnx"):
        hwnas.profile(tmp_path / "nothing.onnx")
    with pytest.raises(hwnas.ERRORS, match="two ONNX files"):
        hwnas.compare("a.onnx")


@pytest.mark.parametrize("sizes", [5, (1, -2), (1, 2.5), (1, None), "1,2"], ids=str)
def test_sizes_that_are_none(sizes: Any, tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    model.write_bytes(small_net().SerializeToString())
    with pytest.raises(hwnas.HwnasError, match="the sizes of input 'x' must be whole numbers from 0 on"):
        hwnas.profile(model, shapes={"x": sizes})


def test_a_value_that_is_no_array(tmp_path: Path) -> None:
    with pytest.raises(hwnas.HwnasError, match="the value of input 'x' is no number, and no array of numbers"):
        hwnas.profile(tmp_path / "net.onnx", inputs={"x": [[1], [2, 3]]})


def test_an_objective_that_cant_be_had_is_none() -> None:
    texts = dict.fromkeys(("run_dir", "bundle_dir", "report", "picked"), "x")
    sections: dict[str, dict[str, float]] = {"limits": {}, "metrics": {}, "int8": {}}
    result = hwnas.SearchResult.of({**texts, **sections, "objectives": {"accuracy": 0.9, "energy_mj": None}})
    assert result.objectives == {"accuracy": 0.9, "energy_mj": None}
    assert result.as_dict()["run_dir"] == "x"
    assert result.run_dir == Path("x")
