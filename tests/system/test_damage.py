"""Damaged files of a run, of a bundle, of a model: found out, named, and never used."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from export.bundle.manifest import file_record, manifest_sha256
from helpers.cli import Finished, check_message, records


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _garbage(path: Path) -> None:
    path.write_bytes(b"no database at all" * 500)


def _zero_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 : len(content)] = bytes(len(content) - 4096)
    path.write_bytes(content)


def _sql(statement: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute(statement)
        connection.close()

    return change


JOURNAL_DAMAGE = {
    "truncated": _truncate,
    "garbage": _garbage,
    "zeroed pages": _zero_pages,
    "emptied": lambda path: path.write_bytes(b""),
    "deleted table": _sql("DROP TABLE trials"),
    "no JSON": _sql("UPDATE trials SET objectives = '{' WHERE number = 2"),
    "unknown status": _sql("UPDATE trials SET status = 'great' WHERE number = 2"),
    "lost objectives": _sql("UPDATE trials SET objectives = '{}'"),
    "objectives that are no mapping": _sql("UPDATE trials SET objectives = '[1]'"),
    "a choice that is null": _sql("UPDATE trials SET architecture = '{\"depth\": null}' WHERE number = 1"),
    "an id that is a path": _sql("UPDATE trials SET id = '../../elsewhere' WHERE number = 1"),
    "a start that is a number": _sql("UPDATE trials SET started = 5 WHERE number = 1"),
    "a lost trial": _sql("DELETE FROM trials WHERE number = 1"),
    "another version": _sql("UPDATE meta SET value = '99' WHERE key = 'schema_version'"),
}


@pytest.mark.parametrize("name", ["trials", "resume"])
@pytest.mark.parametrize("damage", list(JOURNAL_DAMAGE))
def test_a_damaged_journal(hwnas: Any, run_copy: Path, damage: str, name: str) -> None:
    journal = run_copy / "journal.sqlite"
    JOURNAL_DAMAGE[damage](journal)
    check_message(hwnas(name, run_copy), 3, str(journal))


def _exchange(path: Path, first: int, second: int) -> None:
    """Exchange the numbers of two trials: each row alone is as it should be."""
    connection = sqlite3.connect(path, isolation_level=None)
    for old, new in ((first, -1), (second, first), (-1, second)):
        connection.execute("UPDATE trials SET number = ? WHERE number = ?", (new, old))
    connection.close()


def test_a_journal_that_doesnt_follow_from_the_config(hwnas: Any, run_copy: Path) -> None:
    first = records(run_copy)[1].id
    _exchange(run_copy / "journal.sqlite", 0, 1)
    values = yaml.safe_load((run_copy / "config.yaml").read_text(encoding="utf-8"))
    values["budget"]["trials"] = 7
    (run_copy / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    check_message(hwnas("resume", run_copy), 3, first, "doesn't follow from config and seed")


class TestPicks:
    @pytest.mark.parametrize(
        ("pick", "words"),
        [("kneee", ("did you mean 'knee'?",)), ("ffffffffffff", ("'ffffffffffff'", "knee, fastest")), ("", ())],
    )
    def test_one_that_names_nothing(self, hwnas: Any, run_copy: Path, pick: str, words: tuple[str, ...]) -> None:
        if not pick:
            result = hwnas("export", run_copy, "--pick", "4")  # too short for an id
            check_message(result, 2, "no single trial '4'")
            return
        check_message(hwnas("export", run_copy, "--pick", pick), 2, *words)

    @pytest.mark.parametrize("status", ["infeasible", "failed"])
    def test_one_that_cant_win(self, hwnas: Any, run_copy: Path, status: str) -> None:
        journal = run_copy / "journal.sqlite"
        _sql(f"UPDATE trials SET status = '{status}' WHERE number = 0")(journal)
        connection = sqlite3.connect(journal)
        (identity,) = connection.execute("SELECT id FROM trials WHERE number = 0").fetchone()
        connection.close()
        check_message(hwnas("export", run_copy, "--pick", identity), 2, identity, f"is {status}")


class TestCheckpoints:
    """Weights that can't be used stop the export; they are never silently replaced."""

    @pytest.fixture
    def weights(self, run_copy: Path, finished: Finished) -> Path:
        return run_copy / "checkpoints" / f"{finished.result.document()['picked']}.safetensors"

    @pytest.mark.parametrize("damage", ["truncated", "empty", "a pickle", "flipped header"])
    def test_damaged(self, hwnas: Any, run_copy: Path, weights: Path, damage: str) -> None:
        content = weights.read_bytes()
        damaged = {
            "truncated": content[: len(content) // 2],
            "empty": b"",
            "a pickle": b"\x80\x04cos\nsystem\n(S'touch pwned'\ntR." + bytes(100),
            "flipped header": content[:20] + bytes([content[20] ^ 0xFF]) + content[21:],
        }[damage]
        weights.write_bytes(damaged)
        check_message(hwnas("export", run_copy), 3, str(weights), "delete it to train again")
        assert not Path("pwned").exists()

    def test_of_another_architecture(self, hwnas: Any, run_copy: Path, weights: Path) -> None:
        other = _another_checkpoint(run_copy, weights, renamed=False)
        check_message(hwnas("export", run_copy), 3, str(weights), other, weights.stem)

    def test_of_another_architecture_that_claims_to_be_this_one(
        self, hwnas: Any, run_copy: Path, weights: Path
    ) -> None:
        _another_checkpoint(run_copy, weights, renamed=True)
        check_message(hwnas("export", run_copy), 3, str(weights), f"doesn't fit architecture {weights.stem}")


def untrained_model(run: Path) -> bytes:
    """An ONNX file of the run's first architecture, as it is before any training."""
    from export.exporter.graph_builder import quick_graph
    from pipeline.run import RunDirectory
    from pipeline.search import load_inputs

    data, space = load_inputs(RunDirectory.open(run).config, "config.yaml")
    graph, _ = quick_graph(space.build(records(run)[0].architecture), data.input_shape)
    return bytes(graph.SerializeToString())


def _another_checkpoint(run: Path, weights: Path, *, renamed: bool) -> str:
    """Put the weights of the run's other-sized network in the place of the picked one's."""
    from pipeline.run import RunDirectory
    from pipeline.search import load_inputs
    from pipeline.winner import checkpoint

    _, space = load_inputs(RunDirectory.open(run).config, "config.yaml")
    found = {record.id: record for record in records(run)}
    picked = found[weights.stem]
    other = next(r for r in found.values() if r.objectives["params"] != picked.objectives["params"])
    facts = checkpoint.read_facts(weights)
    name = weights.stem if renamed else other.id
    checkpoint.save(
        weights,
        space.build(other.architecture),
        checkpoint.Checkpoint(name, facts.recipe, facts.accuracy, facts.epochs),
    )
    return other.id


class TestProfile:
    @pytest.mark.parametrize(
        ("content", "words"),
        [(b"", ("empty",)), (b"not a model", ("not a loadable ONNX model",)), (None, ("No such file",))],
        ids=["empty", "text", "missing"],
    )
    def test_what_is_no_model(self, hwnas: Any, tmp_path: Path, content: bytes | None, words: tuple[str, ...]) -> None:
        model = tmp_path / "model.onnx"
        if content is not None:
            model.write_bytes(content)
        check_message(hwnas("profile", model), 2, str(model), *words)

    def test_a_truncated_model(self, hwnas: Any, finished: Finished, tmp_path: Path) -> None:
        shutil.copy(finished.run / "bundle" / "model.onnx", tmp_path)
        _truncate(tmp_path / "model.onnx")
        check_message(hwnas("profile", tmp_path / "model.onnx"), 2, str(tmp_path / "model.onnx"), "truncated")

    def test_a_folder(self, hwnas: Any, tmp_path: Path) -> None:
        check_message(hwnas("profile", tmp_path), 2, str(tmp_path))

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--device", "gpuu"], ("unknown device 'gpuu'", "cpu", "cuda")),
            (["--device", "cup"], ("did you mean 'cpu'?",)),
            (["--precision", "fp16"], ("unknown precision 'fp16'", "fp32")),
            (["--threads", "0"], ("threads is 0",)),
            (["--batch-size", "-1"], ("batch_size is -1",)),
        ],
    )
    def test_settings_that_no_device_has(
        self, hwnas: Any, finished: Finished, options: list[str], words: tuple[str, ...]
    ) -> None:
        check_message(hwnas("profile", finished.run / "bundle" / "model.onnx", *options), 2, *words)


class TestVerify:
    """Exit 3, and the check that failed by name: damage is a finding of `verify`, no error of its own."""

    @pytest.fixture
    def bundle(self, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr("pipeline.winner.verify.BUDGET_S", 0.1)
        return Path(shutil.copytree(finished.run / "bundle", tmp_path / "bundle"))

    @staticmethod
    def failed(result: Any) -> set[str]:
        assert result.code == 3, result.stderr
        assert "Traceback" not in result.stderr
        document = result.document()
        assert document["ok"] is False
        return {check["name"] for check in document["checks"] if check["ok"] is False}

    @pytest.mark.parametrize("name", ["model.onnx", "samples.npz", "README.md"])
    def test_a_flipped_byte(self, hwnas: Any, bundle: Path, name: str) -> None:
        content = bytearray((bundle / name).read_bytes())
        content[len(content) // 2] ^= 0xFF
        (bundle / name).write_bytes(content)
        assert "files" in self.failed(hwnas("verify", bundle, "--json"))

    @pytest.mark.parametrize("name", ["model.onnx", "samples.npz", "README.md", "manifest.json"])
    def test_a_missing_file(self, hwnas: Any, bundle: Path, name: str) -> None:
        (bundle / name).unlink()
        expected = "manifest" if name == "manifest.json" else "files"
        assert expected in self.failed(hwnas("verify", bundle, "--json"))

    def test_an_edited_manifest(self, hwnas: Any, bundle: Path) -> None:
        self.rewrite(bundle, sign=False, metrics=lambda metrics: {**metrics, "accuracy_test": 0.999})
        assert self.failed(hwnas("verify", bundle, "--json")) == {"manifest_sha256"}
        self.rewrite(bundle)
        assert "accuracy" in self.failed(hwnas("verify", bundle, "--json"))

    def test_a_limit_that_the_model_breaks(self, hwnas: Any, bundle: Path) -> None:
        self.rewrite(bundle, limits=lambda _: {"macs": 1000, "size_mb": 1e-6})
        assert {"limit macs", "limit size_mb"} <= self.failed(hwnas("verify", bundle, "--json"))

    def test_a_swapped_model(self, hwnas: Any, bundle: Path, finished: Finished) -> None:
        (bundle / "model.onnx").write_bytes(untrained_model(finished.run))
        assert self.failed(hwnas("verify", bundle, "--json")) == {"files"}
        self.rewrite(bundle)
        assert "parity" in self.failed(hwnas("verify", bundle, "--json"))

    @pytest.mark.parametrize(
        "key",
        ["architecture", "classes", "data", "device", "environment", "files", "limits", "metrics", "opset",
         "preprocessing", "run", "schema_version"],
    )  # fmt: skip
    @pytest.mark.parametrize("value", [None, [1], "x", {"name": 5}], ids=["null", "list", "text", "mapping"])
    def test_a_manifest_with_any_value(self, hwnas: Any, bundle: Path, key: str, value: Any) -> None:
        self.rewrite(bundle, **{key: lambda _: value})
        result = hwnas("verify", bundle, "--json")
        assert "Traceback" not in result.stderr
        if isinstance(value, dict) and key in ("architecture", "data"):  # any mapping may stand there
            assert result.code == 0
        else:
            assert self.failed(result)

    def test_a_bundle_for_a_device_that_isnt_here(self, hwnas: Any, bundle: Path) -> None:
        """What can be checked without the device is checked; a limit that can't be judged is skipped with a reason."""
        self.rewrite(bundle, device=lambda device: {**device, "name": "cuda"})
        result = hwnas("verify", bundle, "--json")
        assert "Traceback" not in result.stderr
        checks = {check["name"]: check["ok"] for check in result.document()["checks"]}
        assert checks["parity"] is checks["files"] is checks["accuracy"] is True

    def test_a_bundle_runs_no_code_of_its_own(self, hwnas: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its README says to run `hwnas verify .` in it: what lies there must not be imported."""
        (bundle / "loader_of_a_stranger.py").write_text(
            "from pathlib import Path\nPath('ran').touch()\nload = print\n", encoding="utf-8"
        )
        self.rewrite(bundle, data=lambda _: {"name": "loader_of_a_stranger:load"})
        monkeypatch.chdir(bundle)
        result = hwnas("verify", ".", "--json")
        assert not (bundle / "ran").exists()
        assert result.code == 3
        assert "Traceback" not in result.stderr

    def test_no_bundle(self, hwnas: Any, tmp_path: Path) -> None:
        check_message(hwnas("verify", tmp_path / "nowhere"), 2, f"no bundle directory {tmp_path / 'nowhere'}")

    def test_the_table_for_people_names_the_failed_check(self, hwnas: Any, bundle: Path) -> None:
        (bundle / "samples.npz").unlink()
        result = hwnas("verify", bundle)
        assert result.code == 3
        assert "FAILED" in result.stdout
        assert "samples.npz is missing" in result.stdout

    def test_archives_that_unpack_to_more_and_special_files(self, hwnas: Any, bundle: Path) -> None:
        shapes = {"inputs": (1, 8, 8), "outputs": (10,), "images": (8, 8, 1)}
        kinds = {"images": np.uint8}
        samples: dict[str, Any] = {
            name: np.zeros((60_000, *shape), kinds.get(name, np.float32)) for name, shape in shapes.items()
        }
        np.savez_compressed(bundle / "samples.npz", **samples)
        self.rewrite(bundle)
        result = hwnas("verify", bundle, "--json")
        assert self.failed(result) == {"parity"}
        assert "times its size" in result.stdout
        (bundle / "samples.npz").unlink()
        os.mkfifo(bundle / "samples.npz")
        assert self.failed(hwnas("verify", bundle, "--json")) == {"files"}

    def test_a_model_that_needs_more_memory(self, hwnas: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pipeline.winner.verify.most_model_bytes", lambda memory_mb: 1000)
        result = hwnas("verify", bundle, "--memory-mb", 400)
        assert result.code == 0
        assert "`hwnas verify --memory-mb` allows more" in " ".join(result.stdout.split())
        assert "the model was not loaded" in result.stdout

    @staticmethod
    def rewrite(bundle: Path, *, sign: bool = True, **changes: Callable[[Any], Any]) -> None:
        """Change fields of the manifest; signed, all hashes are renewed, as whoever forges a bundle would."""
        path = bundle / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if sign:
            manifest["files"] = {name: file_record(bundle / name) for name in manifest["files"]}
        for key, change in changes.items():
            manifest[key] = change(manifest[key])
        if sign:
            manifest["manifest_sha256"] = manifest_sha256(manifest)
        path.write_text(json.dumps(manifest), encoding="utf-8")
