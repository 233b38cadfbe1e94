"""The commands as their users add_peers them: real processes, on one small finished search."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from helpers.cli import HWNAS, Finished, Outcome, command, journal_ids, records, small_config

PROFILE_FIELDS = {
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "latency_p50_ms",
    "latency_p99_ms",
    "peak_memory_bytes",
    "size_bytes",
    "macs",
    "params",
    "energy_mj",
    "warnings",
    "environment",
}
OUTCOME_FIELDS = {"run_dir", "bundle_dir", "report", "picked", "objectives"}
TRIAL_FIELDS = {"id", "architecture", "status", "objectives", "on_front", "error", "started", "seconds"}


@pytest.fixture(scope="module")
def readings(finished: Finished) -> dict[str, Outcome]:
    """What every command that only reads says of the finished run."""
    run = str(finished.run)
    calls = {
        "trials": ["trials", run, "--json"],
        "verify": ["verify", f"{run}/bundle", "--json"],
        "doctor": ["doctor", "--json"],
    }
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(calls, pool.map(lambda call: command(*call), calls.values()), strict=True))


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Another pick exported from a copy of the run, then the run resumed, then the config's own pick again."""
    run = Path(shutil.copytree(finished.run, tmp_path_factory.mktemp("exported") / "run with space"))
    other = next(id_ for id_ in journal_ids(run) if id_ != finished.result.document()["picked"])
    found: dict[str, Any] = {"run": run, "other": other, "ids": journal_ids(run)}
    for name, call in {
        "export": ["export", str(run), "--pick", other, "--json"],
        "resume": ["resume", str(run), "--json"],
        "again": ["export", str(run), "--json"],
    }.items():
        found[name] = command(*call)
        found[f"{name} manifest"] = json.loads((run / "bundle" / "manifest.json").read_text(encoding="utf-8"))
        found[f"{name} model"] = (run / "bundle" / "model.onnx").read_bytes()
        found[f"{name} report"] = (run / "report.html").read_text(encoding="utf-8")
    return found


class TestSearch:
    def test_says_what_was_won(self, finished: Finished) -> None:
        document = finished.result.document()
        assert document.keys() >= OUTCOME_FIELDS
        assert document["run_dir"] == str(finished.run)
        assert document["bundle_dir"] == str(finished.run / "bundle")
        assert document["report"] == str(finished.run / "report.html")
        assert document["picked"] in journal_ids(finished.run)
        assert document["objectives"].keys() >= {"accuracy", "macs", "latency_ms", "size_mb", "params"}
        assert 0 < document["objectives"]["accuracy"] <= 1
        assert document["objectives"]["macs"] <= 3_000_000

    def test_makes_the_run_directory(self, finished: Finished) -> None:
        names = {path.name for path in finished.run.iterdir()}
        assert names >= {"config.yaml", "journal.sqlite", "checkpoints", "bundle", "report.html", "search.log"}
        assert not list(finished.run.rglob("*.unfinished"))
        picked = finished.result.document()["picked"]
        assert [path.name for path in (finished.run / "checkpoints").iterdir()] == [f"{picked}.safetensors"]
        bundle = {path.name for path in (finished.run / "bundle").iterdir()}
        assert bundle >= {"model.onnx", "manifest.json", "README.md"}

    def test_keeps_the_budget(self, finished: Finished) -> None:
        assert len(journal_ids(finished.run)) == len(set(journal_ids(finished.run))) == 6

    def test_writes_the_resolved_config(self, finished: Finished) -> None:
        resolved = yaml.safe_load((finished.run / "config.yaml").read_text(encoding="utf-8"))
        asked = yaml.safe_load(finished.config.read_text(encoding="utf-8"))
        for section, values in asked.items():
            if isinstance(values, dict):
                assert resolved[section].items() >= values.items()
            else:
                assert resolved[section] == values
        assert resolved["device"] == {"name": "cpu", "threads": 1, "batch_size": 1, "precision": "fp32"}
        assert resolved["seed"] == 0

    def test_tells_progress_on_stderr(self, finished: Finished) -> None:
        assert "trial 6/6" in finished.result.stderr
        assert "best accuracy" in finished.result.stderr
        assert "front" in finished.result.stderr

    def test_keeps_the_libraries_chatter_in_the_log(self, finished: Finished) -> None:
        assert "nni" in (finished.run / "search.log").read_text(encoding="utf-8")
        assert "nni" not in finished.result.stderr
        assert "Warning" not in finished.result.stderr

    def test_the_manifest_tells_the_same_story(self, finished: Finished) -> None:
        manifest = json.loads((finished.run / "bundle" / "manifest.json").read_text(encoding="utf-8"))
        document = finished.result.document()
        assert manifest["architecture_id"] == document["picked"]
        assert manifest["limits"] == {"macs": 3_000_000}
        assert manifest["classes"] == [str(digit) for digit in range(10)]
        assert manifest["metrics"]["accuracy_validation"] == document["objectives"]["accuracy"]
        assert manifest["metrics"]["test_images"] == 360
        assert manifest["activations"].keys() == {"network"}
        assert manifest["run"]["trials"] == 6
        assert document["picked"] in manifest["run"]["front"]

    def test_the_report_needs_nothing_beside_it(self, finished: Finished) -> None:
        page = (finished.run / "report.html").read_text(encoding="utf-8")
        references = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page)
        assert all(reference.startswith(("#", "data:")) for reference in references)
        assert "<script" not in page
        assert "@import" not in page
        assert page.count("<svg") == 4  # front, progress, activations: effects and sites
        for identity in journal_ids(finished.run):
            assert identity in page

    def test_the_readmes_snippet_runs(self, finished: Finished) -> None:
        readme = (finished.run / "bundle" / "README.md").read_text(encoding="utf-8")
        snippet = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
        assert snippet is not None
        bundle = finished.run / "bundle"
        done = subprocess.run(
            [sys.executable, "-c", snippet[1]], cwd=bundle, capture_output=True, text=True, timeout=60, check=True
        )
        with np.load(bundle / "samples.npz") as samples:
            assert yaml.safe_load(done.stdout) == [str(n) for n in samples["outputs"].argmax(axis=1)]

    def test_the_bundles_model_is_as_accurate_as_it_says(self, finished: Finished) -> None:
        import onnxruntime

        from pipeline.config.data import DigitsOptions
        from pipeline.data import load_data

        data = load_data(DigitsOptions(name="digits"))
        session = onnxruntime.InferenceSession(str(finished.run / "bundle" / "model.onnx"))
        accuracies = {}
        for name, split in {"accuracy_validation": data.validation, "accuracy_test": data.load_test()}.items():
            inputs = data.preprocessing.apply(split.images)
            (outputs,) = session.run(None, {session.get_inputs()[0].name: inputs})
            accuracies[name] = float((outputs.argmax(axis=1) == split.labels).mean())
        manifest = json.loads((finished.run / "bundle" / "manifest.json").read_text(encoding="utf-8"))
        assert accuracies == pytest.approx({name: manifest["metrics"][name] for name in accuracies}, abs=1 / 360)


class TestReading:
    def test_trials(self, finished: Finished, readings: dict[str, Outcome]) -> None:
        assert readings["trials"].code == 0
        rows = readings["trials"].document()
        assert [row["id"] for row in rows] == journal_ids(finished.run)
        for row in rows:
            assert row.keys() >= TRIAL_FIELDS
            assert row["status"] in ("ok", "infeasible", "failed")
            assert row["error"] is None
            assert row["seconds"] > 0
            assert row["architecture"]["activation"] in ("relu", "silu")
        feasible = [row["objectives"] for row in rows if row["status"] == "ok"]
        for row in rows:
            if row["on_front"]:
                own = row["objectives"]
                assert not any(
                    other["accuracy"] >= own["accuracy"] and other["macs"] < own["macs"] for other in feasible
                )
        assert any(row["on_front"] for row in rows)

    def test_verify(self, readings: dict[str, Outcome]) -> None:
        assert readings["verify"].code == 0
        document = readings["verify"].document()
        assert document["ok"] is True
        checks = {check["name"]: check for check in document["checks"]}
        assert checks.keys() >= {"manifest", "files", "model", "parity", "accuracy", "limit macs"}
        assert all(check["ok"] is True for check in checks.values())
        assert all(check["detail"] for check in checks.values())

    def test_profile(self, hwnas: Any, finished: Finished) -> None:
        result = hwnas("profile", finished.run / "bundle" / "model.onnx", "--seconds", "0.3", "--json")
        assert result.code == 0
        document = result.document()
        assert document.keys() >= PROFILE_FIELDS
        assert document["latency_low_ms"] <= document["latency_ms"] <= document["latency_high_ms"]
        assert document["size_bytes"] == (finished.run / "bundle" / "model.onnx").stat().st_size
        assert document["macs"] == finished.result.document()["objectives"]["macs"]
        for name in PROFILE_FIELDS:
            if document[name] is None:
                assert document[f"{name}_unavailable"]

    def test_report(self, hwnas: Any, run_copy: Path) -> None:
        (run_copy / "report.html").unlink()
        result = hwnas("report", run_copy, "--json")
        assert result.code == 0
        assert result.document() == {"report": str(run_copy / "report.html")}
        assert journal_ids(run_copy)[0] in (run_copy / "report.html").read_text(encoding="utf-8")

    def test_doctor(self, readings: dict[str, Outcome]) -> None:
        assert readings["doctor"].code == 0
        document = readings["doctor"].document()
        assert document["ok"] is True
        names = {check["name"] for check in document["checks"]}
        assert names >= {"python", "torch", "nni", "onnxruntime", "package torch", "package nni"}
        assert all(check["detail"] for check in document["checks"])

    def test_logs_stay_off_stdout_and_warnings_off_the_terminal(self, readings: dict[str, Outcome]) -> None:
        for name, outcome in readings.items():
            assert outcome.document() is not None, name
            assert "Warning" not in outcome.stderr, name


class TestExport:
    def test_another_pick_is_exported(self, finished: Finished, exported: dict[str, Any]) -> None:
        assert exported["export"].code == 0, exported["export"].stderr
        document = exported["export"].document()
        assert document.keys() >= OUTCOME_FIELDS
        assert document["picked"] == exported["other"]
        manifest = exported["export manifest"]
        assert manifest["architecture_id"] == exported["other"]
        assert manifest["run"]["pick"] == exported["other"]
        assert manifest["parity"]
        assert exported["export model"] != (finished.run / "bundle" / "model.onnx").read_bytes()

    def test_it_searches_no_further(self, exported: dict[str, Any]) -> None:
        assert journal_ids(exported["run"]) == exported["ids"]
        assert "Searching" not in exported["export"].stderr

    def test_the_report_follows(self, exported: dict[str, Any]) -> None:
        assert f"The winner: <code>{exported['other']}</code>" in exported["export report"]

    def test_resuming_a_finished_run_changes_no_trial(self, finished: Finished, exported: dict[str, Any]) -> None:
        assert exported["resume"].code == 0, exported["resume"].stderr
        assert records(exported["run"]) == records(finished.run)
        assert exported["resume"].document().keys() >= OUTCOME_FIELDS

    def test_resuming_a_finished_run_leaves_the_bundle_that_was_asked_for(self, exported: dict[str, Any]) -> None:
        assert exported["resume"].document()["picked"] == exported["other"]
        assert "nothing is left to do" in exported["resume"].stderr
        assert exported["resume model"] == exported["export model"]

    def test_exporting_returns_to_the_configs_pick_and_its_weights(
        self, finished: Finished, exported: dict[str, Any]
    ) -> None:
        assert exported["again"].document()["picked"] == finished.result.document()["picked"]
        assert "are taken from" in exported["again"].stderr
        assert exported["again model"] == (finished.run / "bundle" / "model.onnx").read_bytes()


class TestOtherTerms:
    def test_limits_that_nothing_keeps_name_the_nearest_miss(self, hwnas: Any, tmp_path: Path) -> None:
        config = small_config(tmp_path / "c.yaml", constraints={"macs": 1}, budget={"infeasible": 3})
        result = hwnas("search", config, "--run-dir", tmp_path / "run", "--json")
        assert result.code == 3, result.stderr
        assert json.loads(result.stdout)["error"]["exit_code"] == 3
        rows = [line for line in result.stderr.splitlines() if line.startswith("hwnas: ")]
        assert len(rows) == 1
        found = records(tmp_path / "run")
        assert [record.status for record in found] == ["infeasible"] * 3
        nearest = min(found, key=lambda record: record.objectives["macs"])
        assert nearest.id in rows[0]
        assert f"macs {nearest.objectives['macs']:.6g}" in rows[0]
        assert "Traceback" not in result.stderr
        assert (tmp_path / "run" / "report.html").is_file()

    def test_help_imports_neither_torch_nor_nni(self) -> None:
        code = (
            "import sys; from pipeline.cli import app as cli\n"
            "sys.argv = ['hwnas', '--help']\n"
            "try: cli.main()\n"
            "except SystemExit as end: assert end.code == 0\n"
            "heavy = {'torch', 'nni', 'onnx', 'onnxruntime', 'sklearn'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        for name in ("search", "resume", "export", "trials", "verify", "profile", "list", "doctor", "report"):
            assert name in done.stdout

    def test_a_reader_who_closes_the_pipe_is_no_fault(self) -> None:
        reading = subprocess.Popen([str(HWNAS), "list", "activations"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert reading.stdout is not None
        assert reading.stderr is not None
        reading.stdout.close()
        said = reading.stderr.read()
        reading.stderr.close()
        assert reading.wait(60) == 0
        assert b"Traceback" not in said
        assert b"Error" not in said


class TestViews:
    """The same results for people, called within this process."""

    def test_search_results_need_no_json(self, hwnas: Any, finished: Finished) -> None:
        table = hwnas("trials", finished.run)
        assert table.code == 0
        for identity in journal_ids(finished.run):
            assert identity in table.stdout
        assert "6 ok, 0 infeasible, 0 failed" in table.stdout

    def test_csv(self, hwnas: Any, finished: Finished) -> None:
        result = hwnas("trials", finished.run, "--csv")
        assert result.code == 0
        rows = list(csv.DictReader(io.StringIO(result.stdout)))
        assert [row["id"] for row in rows] == journal_ids(finished.run)
        for row in rows:
            assert float(row["macs"]) > 0
            assert row["activation"] in ("relu", "silu")

    def test_verify_and_profile(self, hwnas: Any, finished: Finished) -> None:
        verified = hwnas("verify", finished.run / "bundle")
        assert verified.code == 0
        assert "all checks passed" in verified.stdout
        profiled = hwnas("profile", finished.run / "bundle" / "model.onnx", "--seconds", "0.2")
        assert profiled.code == 0
        assert "latency_ms" in profiled.stdout
        assert "unavailable: " in profiled.stdout

    @pytest.mark.parametrize(
        "kind", ["spaces", "strategies", "activations", "data", "devices", "evaluators", "engines"]
    )
    def test_every_table_is_listed(self, hwnas: Any, kind: str) -> None:
        as_text, as_json = hwnas("list", kind), hwnas("list", kind, "--json")
        assert as_text.code == as_json.code == 0
        rows = as_json.document()
        assert rows
        assert all(isinstance(text, str) and text for text in rows.values())
        assert [line.split()[0] for line in as_text.stdout.splitlines()] == list(rows)
