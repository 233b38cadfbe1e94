"""Folders that somebody gave us: each row of the table in docs/security.md, with stand-ins that would leave a mark."""

import json
import os
import re
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hwnas as library
import onnx
import pytest
import yaml

from helpers.cli import Outcome, check_message, command, journal_ids, merged, small_config
from helpers.places import REPOSITORY
from latency_models.devices import device_file
from latency_models.timing.reference_models import ReferenceSpec, build_reference
from pipeline.run import RunDirectory
from pipeline.trust import RIGHTS

Command = Callable[..., Outcome]

LOOKING = {
    "trials": ("trials", "{run}"),
    "trials --csv": ("trials", "{run}", "--csv"),
    "report": ("report", "{run}"),
    "verify": ("verify", "{run}/bundle"),
    "predict": ("predict", "--run", "{run}", "--architecture", "{trial}"),
}
GOING_ON = {"resume": ("resume", "{run}"), "export": ("export", "{run}")}
QUICK = {"final": {"pick": "knee", "epochs": 1}}

DEVICE = {"name": "board", "host": "pi@board", "ssh_options": ["-oProxyCommand=touch mark"], "python": "python3"}

OWN_DATA = """
from pathlib import Path
from pipeline.config.data import DigitsOptions
from pipeline.data.digits import load

def make(options):
    with Path({mark!r}).open("a") as file:
        file.write("x")
    return load(DigitsOptions(name="digits"))
"""


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that is written where something of a stranger's is run."""
    return tmp_path / "mark"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; what is imported from it, or from a run, is forgotten afterwards."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def words(run: Path, name: str) -> list[str]:
    """The arguments of a command on a run."""
    trial = journal_ids(run)[0]
    return [word.format(run=run, trial=trial) for word in {**LOOKING, **GOING_ON}[name]]


def rewrite(run: Path, **changes: Any) -> None:
    """Change a run's config, and make its journal and its bundle fit."""
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(merged(config, changes)), encoding="utf-8")
    database = sqlite3.connect(run / "journal.sqlite", isolation_level=None)
    database.execute("UPDATE meta SET value = ? WHERE key = 'config'", (RunDirectory.open(run).digest(),))
    database.close()


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """All that a folder holds: names, modes, times of change and content."""
    paths = [folder, *folder.rglob("*")]
    seen = {path: path.lstat() for path in paths}
    return {
        str(path): (one.st_mode, one.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path, one in seen.items()
    }


def test_the_table_is_the_one_that_is_enforced() -> None:
    text = (REPOSITORY / "docs" / "security.md").read_text(encoding="utf-8")
    rows = {}
    for line in re.findall(r"^\| (`.*) \|$", text, re.MULTILINE):
        name, of, names, device, _, writes = line.split(" | ")
        if of in ("run", "bundle", "config in a run"):
            rows[name.strip("`")] = (names, device, writes)
    assert rows.keys() == RIGHTS.keys()
    reaches = {
        "built-ins": "built-ins",
        "plug-ins": "built-ins, plug-ins",
        "modules": "built-ins, plug-ins, modules of your own folder",
    }
    for name, (names, device, writes) in rows.items():
        rights = RIGHTS[name]
        assert names == reaches[rights.reach], name
        if name != "bench":  # it measures nothing
            assert (device != "no") == rights.uses_device, name
        if rights.writes is not None:
            assert writes == (", ".join(f"`{each}`" for each in rights.writes) or "nothing"), name


@pytest.mark.parametrize("name", list(LOOKING))
def test_looking_leaves_no_trace(hwnas: Command, run_copy: Path, here: Path, name: str) -> None:
    (run_copy / "report.html").unlink()
    asked = words(run_copy, name)
    before = state(run_copy)
    done = hwnas(*asked)
    assert done.code == 0 or (name == "predict" and "no cost model yet" in done.stderr), done.stderr
    after = state(run_copy)
    if name == "report":
        assert b"<html" in after.pop(str(run_copy / "report.html"))[2]
        del after[str(run_copy)], before[str(run_copy)]
    assert after == before
    assert not list(here.iterdir())


@pytest.mark.parametrize("name", ["trials", "report", "verify"])
def test_looking_runs_nothing(hwnas: Command, run_copy: Path, here: Path, mark: Path, name: str) -> None:
    """Neither from the run's folder nor from the user's own."""
    for folder in (run_copy, run_copy / "bundle", here):
        (folder / "evil.py").write_text(OWN_DATA.format(mark=str(mark)), encoding="utf-8")
    names = {"space": {"name": "evil:make"}, "strategy": {"name": "evil:make"}, "engine": {"name": "evil:make"}}
    rewrite(run_copy, data={"name": "evil:make"}, evaluator={"name": "evil:make"}, **names)
    manifest = run_copy / "bundle" / "manifest.json"
    document = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps({**document, "data": {"name": "evil:make"}}), encoding="utf-8")
    done = hwnas(*words(run_copy, name))
    assert done.code == (3 if name == "verify" else 0), done.stderr
    assert "Traceback" not in done.stderr
    assert not mark.exists()


@pytest.mark.parametrize("name", ["predict", *GOING_ON])
class TestModulesThatARunNames:
    @pytest.fixture
    def given(self, run_copy: Path) -> Path:
        rewrite(run_copy, data={"name": "own_data:make"}, **QUICK)
        return run_copy

    def test_not_from_the_run(self, hwnas: Command, given: Path, here: Path, mark: Path, name: str) -> None:
        (given / "own_data.py").write_text(OWN_DATA.format(mark=str(mark)), encoding="utf-8")
        asked = words(given, name)
        check_message(hwnas(*asked), 2, "own_data", "No module named")
        os.chdir(given)
        check_message(hwnas(*asked), 2, "own_data", "nothing is imported from a run's or bundle's folder")
        check_message(hwnas(*asked, "--code", given), 2, "--code", "nothing is imported from a run's")
        assert not mark.exists()

    @pytest.mark.parametrize("place", ["here", "code"])
    def test_from_the_users_own_folder(
        self, hwnas: Command, given: Path, here: Path, mark: Path, tmp_path: Path, name: str, place: str
    ) -> None:
        folder = here if place == "here" else tmp_path / "code"
        folder.mkdir(exist_ok=True)
        (folder / "own_data.py").write_text(OWN_DATA.format(mark=str(mark)), encoding="utf-8")
        done = hwnas(*words(given, name), *(("--code", folder) if place == "code" else ()))
        assert done.code == 0 or (name == "predict" and "no cost model yet" in done.stderr), done.stderr
        assert mark.exists()

    def test_not_what_is_installed(self, hwnas: Command, given: Path, here: Path, name: str) -> None:
        rewrite(given, data={"name": "http.server:test"})
        check_message(hwnas(*words(given, name)), 2, "http.server", "offers nothing to hwnas", "--code")


class TestTheDeviceOfARun:
    """A stand-in for ssh leaves the mark."""

    @pytest.fixture
    def given(self, run_copy: Path, here: Path, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        ssh = tmp_path / "bin" / "ssh"
        ssh.parent.mkdir()
        ssh.write_text(f"#!/bin/sh\ntouch {mark}\nexit 255\n", encoding="utf-8")
        ssh.chmod(0o755)
        monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
        monkeypatch.setattr(device_file.platformdirs, "user_config_path", lambda name: tmp_path / "config")
        rewrite(run_copy, device=DEVICE, **QUICK)
        return run_copy

    @pytest.mark.parametrize("name", ["predict", *GOING_ON])
    def test_it_is_not_used_on_the_runs_word(self, hwnas: Command, given: Path, mark: Path, name: str) -> None:
        done = hwnas(*words(given, name))
        check_message(done, 2, "'board' isn't used on a file's word", "--trust-device", "ProxyCommand=touch mark")
        (given.parent / "here" / "devices.yaml").write_text(self.defined(), encoding="utf-8")
        check_message(hwnas(*words(given, name)), 2, "'board' isn't used on a file's word")
        assert not mark.exists()

    def test_it_is_used_where_the_user_says_so(self, hwnas: Command, given: Path, mark: Path) -> None:
        done = hwnas(*words(given, "predict"), "--trust-device")
        assert (done.code, mark.exists()) == (2, True), done.stderr
        assert "pi@board" in done.stderr

    def test_it_is_used_where_the_users_own_file_has_the_same(self, hwnas: Command, given: Path, mark: Path) -> None:
        (given.parent / "config").mkdir()
        (given.parent / "config" / "devices.yaml").write_text(self.defined(), encoding="utf-8")
        done = hwnas(*words(given, "predict"))
        assert (done.code, mark.exists()) == (2, True), done.stderr

    def test_a_run_can_be_looked_at_without_it(self, hwnas: Command, given: Path, mark: Path) -> None:
        for name in ("trials", "report", "verify"):
            assert hwnas(*words(given, name)).code == 0
        assert not mark.exists()

    @pytest.mark.parametrize("name", ["search", "calibrate"])
    def test_a_config_in_a_run_is_the_runs(self, hwnas: Command, given: Path, mark: Path, name: str) -> None:
        check_message(hwnas(name, given / "config.yaml"), 2, "'board' isn't used on a file's word", "copy it out")
        assert not mark.exists()
        shutil.copyfile(given / "config.yaml", "own.yaml")
        done = hwnas(name, "own.yaml")
        assert mark.exists(), done.stderr

    def defined(self) -> str:
        keys = {key: value for key, value in DEVICE.items() if key != "name"}
        return yaml.safe_dump({"devices": {"board": keys}})


@pytest.mark.parametrize("name", ["search", "calibrate", "bench"])
def test_names_in_a_config_of_a_run(hwnas: Command, run_copy: Path, here: Path, mark: Path, name: str) -> None:
    (run_copy / "evil.py").write_text(OWN_DATA.format(mark=str(mark)), encoding="utf-8")
    rewrite(run_copy, data={"name": "evil:make"})
    os.chdir(run_copy)
    done = hwnas(name, "config.yaml")
    assert done.code == 2
    assert not mark.exists()
    if name == "bench":  # takes no such config
        return
    assert "nothing is imported from a run's" in done.stderr
    for file in ("evil.py", "config.yaml"):
        shutil.copy(run_copy / file, here)
    os.chdir(here)
    check_message(hwnas(name, "config.yaml", "--set", "space.activations=[nope]"), 2, "nope")  # its space comes last
    assert mark.exists()


PARTS = ("config.yaml", "journal.sqlite", "journal.sqlite-wal", "report.html", "search.log", "references.json", ".lock")


@pytest.mark.parametrize("name", ["trials", "report", "predict", *GOING_ON])
def test_links_in_a_run_are_not_followed(hwnas: Command, run_copy: Path, tmp_path: Path, name: str) -> None:
    asked, elsewhere = words(run_copy, name), tmp_path / "elsewhere"
    for part in (*PARTS, "bundle", "checkpoints"):
        link, was_there = run_copy / part, (run_copy / part).exists()
        if was_there:
            link.rename(elsewhere)
        else:
            elsewhere.write_bytes(b"precious")
        before = state(elsewhere)
        link.symlink_to(elsewhere)
        check_message(hwnas(*asked), 2, part, "is a link", "in its place")
        assert state(elsewhere) == before
        link.unlink()
        if was_there:
            elsewhere.rename(link)
    assert hwnas("trials", run_copy).code == 0


def test_a_run_may_be_reached_through_a_link(hwnas: Command, run_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(run_copy)
    for name in ("trials", "report", "resume"):
        assert hwnas(*words(tmp_path / "way", name)).code == 0


@pytest.mark.parametrize("name", list(GOING_ON))
@pytest.mark.parametrize("part", ["journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm", "search.log", ".lock"])
def test_files_with_another_name_elsewhere_are_not_written(
    hwnas: Command, run_copy: Path, tmp_path: Path, name: str, part: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (run_copy / part).touch()
    elsewhere.hardlink_to(run_copy / part)
    elsewhere.chmod(0o600)
    content = elsewhere.read_bytes()
    done = hwnas(*words(run_copy, name))
    assert done.code in (2, 3)
    check_message(done, done.code, part, "a hard link", "put a copy in its place")
    assert (elsewhere.read_bytes(), elsewhere.stat().st_mode & 0o777) == (content, 0o600)
    elsewhere.unlink()  # the way out, or a copy
    assert hwnas(*words(run_copy, "trials")).code == 0


@pytest.mark.parametrize("name", ["trials", "report", "predict", *GOING_ON])
def test_special_files_hang_nothing(
    hwnas: Command, run_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked, kept = words(run_copy, name), tmp_path / "kept"
    for part in (*PARTS, "checkpoints/special", "bundle/manifest.json"):
        path, was_there = run_copy / part, (run_copy / part).exists()
        if was_there:
            path.rename(kept)
        os.mkfifo(path)
        check_message(hwnas(*asked), 2, path.name, "is a pipe")
        path.unlink()
        if was_there:
            kept.rename(path)
    monkeypatch.chdir(run_copy)  # a socket's name may not be long
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("zero_cost.jsonl")
    check_message(hwnas(*asked), 2, "zero_cost.jsonl", "is a socket")


HUGE = {
    "config.yaml": (2, "is too large"),
    "references.json": (3, "is too large"),
    "journal.sqlite": (3, "more than a journal ever has"),
    "journal.sqlite-wal": (3, "more than a journal ever has"),
}


@pytest.mark.parametrize("part", list(HUGE))
def test_huge_files_fill_neither_memory_nor_disk(hwnas: Command, run_copy: Path, part: str) -> None:
    with (run_copy / part).open("ab") as file:
        file.truncate(10**12)
    code, said = HUGE[part]
    for name in ("resume", "trials") if part != "references.json" else ("resume",):
        check_message(hwnas(name, run_copy), code, part, said)


def test_weights_that_are_larger_than_their_network(hwnas: Command, run_copy: Path) -> None:
    for path in (run_copy / "checkpoints").iterdir():
        with path.open("ab") as file:
            file.truncate(10**12)
    shutil.rmtree(run_copy / "bundle")
    check_message(hwnas("export", run_copy), 3, "safetensors", "more than weights of this network take", "delete it")


def test_a_rollback_journal_is_left_alone(hwnas: Command, run_copy: Path, tmp_path: Path) -> None:
    rollback = run_copy / "journal.sqlite-journal"
    rollback.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(600))
    before = state(run_copy)
    for name in ("trials", "report", "predict", *GOING_ON):
        done = hwnas(*[word.format(run=run_copy, trial="0" * 12) for word in {**LOOKING, **GOING_ON}[name]])
        check_message(done, 3, "journal.sqlite-journal", "delete it")
    (run_copy / ".lock").unlink(missing_ok=True)
    after = state(run_copy)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {Path(path).name for path in changed} <= {"copy", ".lock", "search.log"}
    rollback.unlink()
    assert hwnas("trials", run_copy).code == 0


def test_an_id_that_is_a_path_writes_nothing_elsewhere(hwnas: Command, run_copy: Path, tmp_path: Path) -> None:
    database = sqlite3.connect(run_copy / "journal.sqlite", isolation_level=None)
    database.execute("UPDATE trials SET id = '../../escaped' || number")
    database.close()
    before = set(tmp_path.rglob("*"))
    for asked in (("export", run_copy), ("export", run_copy, "--pick", "../../escaped0"), ("trials", run_copy)):
        check_message(hwnas(*asked), 3, "journal.sqlite", "id")
    assert not [path for path in set(tmp_path.rglob("*")) - before if "escaped" in path.name]


class TestForeignNames:
    HOSTILE = "\x1b[2J\x1b]0;x\x07\u202e<script>alert(1)</script>"

    @pytest.fixture
    def given(self, run_copy: Path) -> Path:
        database = sqlite3.connect(run_copy / "journal.sqlite", isolation_level=None)
        database.execute("UPDATE trials SET status = 'failed', error = ? WHERE number = 0", (self.HOSTILE,))
        database.close()
        return run_copy

    @pytest.mark.parametrize("form", [(), ("--csv",), ("--json",)])
    def test_steer_no_terminal(self, hwnas: Command, given: Path, form: tuple[str, ...]) -> None:
        done = hwnas("trials", given, *form)
        assert done.code == 0, done.stderr
        assert not set(done.stdout + done.stderr) & {"\x1b", "\x07", "\u202e"}
        assert (r"\u001b[2J" if form == ("--json",) else r"\x1b[2J\x1b]0;x") in done.stdout
        assert r"\u202e<script>" in done.stdout

    def test_are_text_in_the_report(self, hwnas: Command, given: Path) -> None:
        assert hwnas("report", given).code == 0
        page = (given / "report.html").read_text(encoding="utf-8")
        assert "&lt;script&gt;alert(1)" in page
        assert "<script>" not in page


MODEL_COMMANDS = {
    "profile": ("profile", "{model}", "--seconds", "0.2"),
    "compare": ("compare", "{model}", "{model}", "--seconds", "0.4"),
    "predict": ("predict", "{model}"),
    "optimize": ("optimize", "{model}", "--output", "{folder}/../new.onnx", "--seconds", "0.5"),
}


class TestAModel:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A folder with a model whose weights lie beside it."""
        folder = tmp_path / "given"
        folder.mkdir()
        model = onnx.load_from_string(build_reference(ReferenceSpec("net", 8, 8, 2, 1.0)))
        onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights", size_threshold=0)
        return folder

    def asked(self, folder: Path, name: str) -> list[str]:
        return [word.format(model=folder / "model.onnx", folder=folder) for word in MODEL_COMMANDS[name]]

    @pytest.mark.parametrize("name", ["profile", "compare", "optimize"])
    def test_it_is_read_with_its_weights_and_nothing_is_left(self, hwnas: Command, folder: Path, name: str) -> None:
        before = state(folder)
        done = hwnas(*self.asked(folder, name))
        assert done.code == 0, done.stderr
        assert state(folder) == before

    @pytest.mark.parametrize("name", list(MODEL_COMMANDS))
    def test_nothing_else_is_read(self, hwnas: Command, folder: Path, tmp_path: Path, name: str) -> None:
        (folder / "weights").rename(tmp_path / "weights")
        (folder / "weights").symlink_to(tmp_path / "weights")
        check_message(hwnas(*self.asked(folder, name)), 2, "model.onnx", "weights")
        (folder / "weights").unlink()
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                entry.value = "../weights" if entry.key == "location" else entry.value
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        check_message(hwnas(*self.asked(folder, name)), 2, "model.onnx", "weights")
        (folder / "model.onnx").unlink()
        os.mkfifo(folder / "model.onnx")
        check_message(hwnas(*self.asked(folder, name)), 2, "model.onnx")


def test_files_of_the_working_folder_that_are_called_like_libraries(tmp_path: Path, mark: Path) -> None:
    """Neither the command, nor its trials' process, nor a benchmark's servers run one."""
    for name in ("socket", "selectors", "signal", "multiprocessing", "torch", "json", "google", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r})\n", encoding="utf-8")
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"open({str(mark)!r}, 'a').write({name!r})\n", encoding="utf-8")
    rows = "\n".join(f"{a}{b},0.{a}{b},1{b}" for a in range(3) for b in range(3))
    (tmp_path / "table.csv").write_text(f"arch,accuracy,ms\n{rows}\n", encoding="utf-8")
    config = {
        "name": "bench",
        "data": {"name": "digits"},
        "space": {"name": "table", "choices": 2, "alternatives": [0, 1, 2]},
        "evaluator": {
            "name": "table", "path": "table.csv", "key": "arch", "accuracy": "accuracy", "costs": {"latency_ms": "ms"},
        },
        "strategies": [{"name": "random"}, {"name": "grid"}],
        "seeds": 1,
        "report_at": [2, 4],
    }  # fmt: skip
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = command("bench", "bench.yaml", "--jobs", "2", "--output", "results", cwd=tmp_path)
    assert not mark.exists(), mark.read_text(encoding="utf-8")
    assert done.code == 0, done.stderr
    small_config(tmp_path / "small.yaml", budget={"trials": 1}, **QUICK)
    done = command("search", "small.yaml", "--run-dir", "run", cwd=tmp_path)
    assert not mark.exists(), mark.read_text(encoding="utf-8")
    assert done.code == 0, done.stderr


def test_the_library_takes_the_same_options(run_copy: Path, here: Path, mark: Path, tmp_path: Path) -> None:
    rewrite(run_copy, data={"name": "own_data:make"}, **QUICK)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own_data.py").write_text(OWN_DATA.format(mark=str(mark)), encoding="utf-8")
    assert library.load_run(run_copy).trials
    with pytest.raises(library.HwnasError, match="No module named 'own_data'"):
        library.export(run_copy)
    assert not mark.exists()
    assert library.export(run_copy, code=tmp_path / "code").bundle_dir == run_copy / "bundle"
    assert mark.exists()
