"""What several test modules share: calling `hwnas`, small configs, waiting for things to happen."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

HWNAS = Path(sys.executable).with_name("hwnas")

SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"name": "digits"},
    "space": {
        "name": "convnet",
        "width": 8,
        "width_multipliers": [1, 2],
        "depths": [1],
        "kernels": [3],
        "activations": ["relu", "silu"],
        "activation_scope": "network",
    },
    "strategy": {"name": "random"},
    "evaluator": {"name": "train", "epochs": 1},
    "train": {"learning_rate": 0.006, "batch_size": 32},
    "engine": {"name": "inline"},  # one trial at a time: two searches of one seed are the same
    "objectives": ["accuracy", "macs"],
    "constraints": {"macs": 3_000_000},
    "budget": {"trials": 6, "minutes": 5},
    "final": {"pick": "knee", "epochs": 3},
    "export": {"quantize": "never"},  # looking for an INT8 form takes longer than all else
}


@dataclass(frozen=True)
class Outcome:
    """What a call of the command line left."""

    code: int
    stdout: str
    stderr: str

    def document(self) -> Any:
        """Its stdout, which must be one JSON document and nothing else."""
        return json.loads(self.stdout)


@dataclass(frozen=True)
class Finished:
    run: Path
    config: Path
    result: Outcome


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config with sections changed; a section that is chosen by name is replaced when the name differs."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        same = (
            isinstance(value, dict) and isinstance(old, dict) and value.get("name", old.get("name")) == old.get("name")
        )
        result[key] = {**old, **value} if same and key != "constraints" else value
    if "device" in changes and "export" not in changes:
        result.pop("export", None)  # a device of INT8 can't do without it
    return result


def small_config(path: Path, **changes: Any) -> Path:
    """Write the small digits config, with sections changed."""
    path.write_text(yaml.safe_dump(merged(SMALL, changes)), encoding="utf-8")
    return path


def search_once(factory: pytest.TempPathFactory, name: str, *options: str, **changes: Any) -> Finished:
    """A small search through the real command, made once for all workers of a test run; take a copy to change it."""
    base = factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = root / f"{name}-search"
    config, run, outcome = folder / "small.yaml", folder / "run", folder / "outcome.json"
    with FileLock(root / f"{name}-search.lock"):
        if not outcome.exists():
            folder.mkdir()
            small_config(config, **changes)
            result = command("search", str(config), "--run-dir", str(run), "--json", *options, cwd=folder)
            assert result.code == 0, result.stderr
            outcome.write_text(json.dumps(asdict(result)), encoding="utf-8")
    return Finished(run, config, Outcome(**json.loads(outcome.read_text(encoding="utf-8"))))


def command(*arguments: str, cwd: Path | None = None, timeout: float = 240) -> Outcome:
    """The installed command, in a process of its own."""
    done = subprocess.run([str(HWNAS), *arguments], cwd=cwd, capture_output=True, text=True, timeout=timeout)
    return Outcome(done.returncode, done.stdout, done.stderr)


def spawn(*arguments: str, cwd: Path, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """The installed command, running; it hears Ctrl-C even where the test run itself was told to ignore it."""
    return subprocess.Popen(
        [str(HWNAS), *arguments],
        cwd=cwd,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def in_process(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Outcome:
    from pipeline.cli import app as cli

    monkeypatch.setattr(sys, "argv", ["hwnas", *map(str, arguments)])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capfd.readouterr()
    code = ended.value.code
    return Outcome(code if isinstance(code, int) else int(code is not None), out, err)


def wait_for(happened: Callable[[], Any], limit_s: float = 120) -> Any:
    """The first true answer; fails when there is none within a limit that is far beyond what is needed."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if answer := happened():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"it didn't happen within {limit_s} s")


def journal_ids(run: Path) -> list[str]:
    """The ids of a run's trials so far; none where there is no journal yet."""
    return [record.id for record in records(run)]


def records(run: Path) -> list[Any]:
    """A run's trials so far."""
    from pipeline.trials.journal import Journal

    path = run / "journal.sqlite"
    if not path.exists():
        return []
    journal = Journal.open_for_reading(path)
    try:
        return journal.trials()
    finally:
        journal.close()


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie doesn't)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def check_message(result: Outcome, code: int, *words: str, as_json: bool = False) -> None:
    """One message for the user: the exit code, the prefix, the decisive words, and no traceback."""
    assert result.code == code, (result.code, result.stderr)
    if not as_json:
        assert result.stdout == ""
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    said = [line for line in lines if line.startswith("hwnas: ")]
    assert len(said) == 1, result.stderr
    message = result.stderr[result.stderr.index("hwnas: ") :]
    missing = [word for word in words if word not in message]
    assert not missing, (missing, message)
    if as_json:
        said_in_json = message.removeprefix("hwnas: ").removesuffix("\n")
        assert result.document() == {"error": {"message": said_in_json, "exit_code": code}}
