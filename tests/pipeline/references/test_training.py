"""`--references`: published networks trained, exported and measured like the winner, and what they say of it."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml

from helpers.cli import Finished, journal_ids, search_once, small_config
from pipeline.config.file import load_config
from pipeline.data import load_data
from pipeline.errors import ConfigError
from pipeline.references import records
from pipeline.references.training import ReferencePoints
from pipeline.run import RunDirectory
from pipeline.trials.reporter import Reporter

STUBS = "stub_references"


def wanting(run: Path, *names: str, **final: Any) -> Path:
    """The run with these references in its config."""
    values = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    values["references"] = {"names": list(names)}
    values["final"].update(final)
    (run / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return run


def stored(run: Path) -> dict[str, Any]:
    """name → what references.json says of it."""
    document = json.loads((run / "references.json").read_text(encoding="utf-8"))
    assert document["version"] == 1
    return {reference["name"]: reference for reference in document["references"]}


def logits(file: Path, split: Any, data: Any) -> Any:
    session = onnxruntime.InferenceSession(str(file))
    return session.run(None, {session.get_inputs()[0].name: data.preprocessing.apply(split.images)})[0]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A search with two references, one of which fails, through the real command."""
    return search_once(
        tmp_path_factory,
        "references",
        "--references",
        references={"names": ["resnet8", f"{STUBS}:raising"]},
        budget={"trials": 2},
        final={"epochs": 1},
        constraints={},
    )


class TestASearchWithReferences:
    def test_says_what_they_are(self, searched: Finished) -> None:
        document = searched.result.document()
        good, bad = document["references"]
        assert (good["name"], good["status"], good["error"]) == ("resnet8", "ok", None)
        assert (bad["name"], bad["status"]) == (f"{STUBS}:raising", "failed")
        assert bad["error"] == "ValueError: no network for (1, 8, 8)"
        assert bad["latency_ms"] is None
        assert good["latency_low_ms"] <= good["latency_ms"] <= good["latency_high_ms"]
        assert good["latency_ratio_low"] <= good["latency_ratio"] <= good["latency_ratio_high"]
        assert good["params"] > 70_000
        assert good["peak_memory_bytes"] > 0
        assert document["references_verdict"]
        difference = good["accuracy_test"] - document["metrics"]["accuracy_test"]
        assert good["accuracy_test_difference"] == pytest.approx(difference)

    def test_the_file_is_as_accurate_and_as_large_as_it_says(self, searched: Finished) -> None:
        reference = stored(searched.run)["resnet8"]
        file = searched.run / reference["file"]
        assert file == searched.run / "references" / "resnet8.onnx"
        data = load_data(load_config(searched.config).data)
        for name, split in {"accuracy_validation": data.validation, "accuracy_test": data.load_test()}.items():
            found = float((logits(file, split, data).argmax(axis=1) == split.labels).mean())
            assert reference["metrics"][name] == pytest.approx(found, abs=1 / 360), name
        assert reference["metrics"]["size_bytes"] == file.stat().st_size

    def test_weights_are_kept_like_the_winners(self, searched: Finished) -> None:
        picked = searched.result.document()["picked"]
        names = {path.name for path in (searched.run / "checkpoints").iterdir()}
        assert names == {f"{picked}.safetensors", "reference-resnet8.safetensors"}
        assert not list(searched.run.rglob("*.unfinished"))

    def test_the_recipe_is_the_winners(self, searched: Finished) -> None:
        from pipeline.winner.checkpoint import read_facts

        picked = searched.result.document()["picked"]
        facts = [read_facts(searched.run / "checkpoints" / f"{n}.safetensors") for n in (picked, "reference-resnet8")]
        assert facts[0].recipe == facts[1].recipe
        assert facts[0].epochs == facts[1].epochs == 1

    def test_progress_is_told_as_for_the_winner(self, searched: Finished) -> None:
        said = searched.result.stderr
        assert "Reference point resnet8 (1 of 2)" in said
        assert re.search(r"Training reference-resnet8 .*\n\s+epoch 1/1: validation accuracy", said)
        assert "raising failed: ValueError" in said

    def test_the_report_draws_and_lists_them(self, searched: Finished) -> None:
        page = (searched.run / "report.html").read_text(encoding="utf-8")
        document = searched.result.document()
        drawing, section = page.split("<h2>Reference points</h2>")
        assert "resnet8" in drawing  # as a label of the plot
        assert "reference, trained to the end" in drawing
        assert "winner, trained to the end" in drawing
        assert "raising" not in drawing
        rows = re.findall(r"<tr[^>]*>(.*?)</tr>", section.partition("<h2>")[0], re.DOTALL)
        assert ["the winner" in row for row in rows] == [False, True, False, False]
        assert f"{document['references'][0]['accuracy_test']:.4f}" in rows[2]
        assert "failed: ValueError: no network" in rows[3]

    def test_the_view_for_people(self, searched: Finished) -> None:
        from pipeline.cli import text

        shown = text.outcome(searched.result.document())
        assert re.search(r"^resnet8 +0\.\d{4} +[+-]0\.\d{4}", shown, re.MULTILINE)
        assert searched.result.document()["references_verdict"] in shown


class TestGoingOn:
    def test_a_finished_run_gets_them_later(self, run_copy: Path, hwnas: Any, monkeypatch: Any, tmp_path: Path) -> None:
        """Interrupted at the second of two, then resumed without a word of references."""
        monkeypatch.chdir(tmp_path)
        wanting(run_copy, f"{STUBS}:tiny", f"{STUBS}:interrupted_once")
        ids = journal_ids(run_copy)
        stopped = hwnas("resume", run_copy, "--references", "--json")
        assert stopped.code == 130
        assert "hwnas resume" in stopped.stderr
        first = stored(run_copy)
        assert list(first) == [f"{STUBS}:tiny"]
        gone_on = hwnas("resume", run_copy, "--json")
        assert gone_on.code == 0, gone_on.stderr
        assert "Training reference-stub_references-tiny" not in gone_on.stderr
        assert "Training reference-stub_references-interrupted_once" in gone_on.stderr
        document = gone_on.document()
        assert [row["status"] for row in document["references"]] == ["ok", "ok"]
        assert all(row["latency_ratio"] for row in document["references"])
        kept = stored(run_copy)[f"{STUBS}:tiny"]
        assert {**kept, "against_winner": None} == first[f"{STUBS}:tiny"]
        assert journal_ids(run_copy) == ids
        nothing = hwnas("resume", run_copy, "--json")
        assert "Training" not in nothing.stderr
        assert nothing.document()["references"] == document["references"]

    def test_another_winner_is_compared_anew_and_nothing_trained(
        self, searched: Finished, tmp_path: Path, hwnas: Any
    ) -> None:
        run = Path(shutil.copytree(searched.run, tmp_path / "run"))
        other = next(id_ for id_ in journal_ids(run) if id_ != searched.result.document()["picked"])
        result = hwnas("export", run, "--pick", other, "--json")
        assert result.code == 0, result.stderr
        assert "Training reference" not in result.stderr
        assert stored(run)["resnet8"]["against_winner"]["winner"] == other
        found = result.document()
        difference = found["references"][0]["accuracy_test"] - found["metrics"]["accuracy_test"]
        assert found["references"][0]["accuracy_test_difference"] == pytest.approx(difference)

    def test_without_the_flag_there_are_none(self, finished: Finished) -> None:
        assert not (finished.run / "references.json").exists()
        assert "references" not in finished.result.document()
        assert "Reference points" not in (finished.run / "report.html").read_text(encoding="utf-8")

    def test_a_damaged_record_is_told(self, run_copy: Path, hwnas: Any) -> None:
        (run_copy / "references.json").write_text('{"version": 1, "references": [{"name": 3}]}', encoding="utf-8")
        result = hwnas("resume", run_copy)
        assert result.code == 3
        assert "references.json is damaged" in result.stderr
        assert hwnas("report", run_copy).code == 0
        assert "references.json is damaged" in (run_copy / "report.html").read_text(encoding="utf-8")


def points(run: Path) -> ReferencePoints:
    directory = RunDirectory.open(run)
    if not (run / "references.json").exists():
        records.ask(directory)
    return ReferencePoints(directory, load_data(directory.config.data), Reporter())


def new_run(folder: Path, *names: str, **changes: Any) -> Path:
    config = small_config(folder / "c.yaml", references={"names": list(names)}, **changes)
    return RunDirectory.create(folder / "run", load_config(config)).path


class TestOneReference:
    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("diverging", "the loss became"),
            ("too_large", "out of memory"),
            ("unlike_its_file", "as something else"),
        ],
    )
    def test_a_failure_is_recorded_and_tried_again_when_asked(self, tmp_path: Path, name: str, said: str) -> None:
        run = new_run(tmp_path, f"{STUBS}:{name}", final={"epochs": 1})
        points(run).train()
        (failed,) = stored(run).values()
        assert failed["status"] == "failed"
        assert said in failed["error"]
        assert failed["metrics"] == {}
        assert points(run).missing() == []
        records.ask(RunDirectory.open(run))
        assert points(run).missing() == [f"{STUBS}:{name}"]

    def test_another_recipe_or_a_missing_file_makes_it_missing(self, tmp_path: Path) -> None:
        name = f"{STUBS}:tiny"
        run = new_run(tmp_path, name, final={"epochs": 1})
        assert points(run).missing() == [name]
        points(run).train()
        assert points(run).missing() == []
        file = run / stored(run)[name]["file"]
        file.rename(file.with_suffix(".away"))
        assert points(run).missing() == [name]
        file.with_suffix(".away").rename(file)
        assert points(run).missing() == []
        wanting(run, name, epochs=2)
        assert points(run).missing() == [name]

    def test_limits_are_told_and_stop_nothing(self, tmp_path: Path) -> None:
        run = new_run(tmp_path, f"{STUBS}:tiny", final={"epochs": 1}, constraints={"params": 10, "macs": 10**9})
        points(run).train()
        (reference,) = stored(run).values()
        assert reference["status"] == "ok"
        assert reference["broken_limits"] == f"params {reference['metrics']['params']} > 10"

    def test_the_same_seed_trains_the_same_network(self, tmp_path: Path) -> None:
        models = []
        for at in range(2):
            (tmp_path / str(at)).mkdir()
            run = new_run(tmp_path / str(at), f"{STUBS}:tiny", final={"epochs": 1})
            points(run).train()
            models.append((run / stored(run)[f"{STUBS}:tiny"]["file"]).read_bytes())
        assert models[0] == models[1]

    def test_an_int8_device_runs_the_quantised_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from export.quantization.quantize import is_quantized, quantize_int8
        from latency_models.graph.model_file import parse
        from pipeline.costs.precision import calibration_images

        def quantised(graph: Any, data: Any, *_: Any) -> Any:
            """Without a search for the fastest form, which goes by the clock."""
            return SimpleNamespace(model=quantize_int8(graph, calibration_images(data)).SerializeToString())

        monkeypatch.setattr("pipeline.winner.finalize.search_int8", quantised)
        run = new_run(tmp_path, f"{STUBS}:tiny", final={"epochs": 1}, device={"precision": "int8"})
        points(run).train()
        (reference,) = stored(run).values()
        assert reference["status"] == "ok", reference["error"]
        file = run / reference["file"]
        assert file.name.endswith(".int8.onnx")
        assert is_quantized(parse(file))
        plain = file.with_name(file.name.replace(".int8", ""))
        assert not is_quantized(parse(plain))
        metrics = reference["metrics"]
        assert metrics["size_bytes"] == file.stat().st_size
        data = load_data(load_config(run / "config.yaml").data)
        test = data.load_test()
        for path, key in ((file, "accuracy_test"), (plain, "accuracy_test_fp32")):
            assert metrics[key] == pytest.approx(float((logits(path, test, data).argmax(1) == test.labels).mean()))
        assert metrics["accuracy_validation_fp32"] <= 1


class TestNames:
    @pytest.mark.parametrize(
        ("names", "said"),
        [
            (["resnet9"], "references.names: unknown reference 'resnet9'; did you mean 'resnet8'?"),
            ([], "needs at least one reference"),
            (["resnet8", "resnet8"], "lists a reference twice"),
        ],
    )
    def test_a_mistake_in_the_config(self, tmp_path: Path, names: list[str], said: str) -> None:
        with pytest.raises(ConfigError) as wrong:
            load_config(small_config(tmp_path / "c.yaml", references={"names": names}))
        assert said in str(wrong.value)

    def test_one_that_cant_be_loaded_is_told_before_the_search(self, tmp_path: Path, hwnas: Any) -> None:
        config = small_config(tmp_path / "c.yaml", references={"names": ["no_such_module:net"]})
        result = hwnas("search", config, "--run-dir", tmp_path / "run", "--references")
        assert result.code == 2
        assert "no_such_module" in result.stderr
        assert not (tmp_path / "run").exists()

    def test_they_are_listed(self, hwnas: Any) -> None:
        found = hwnas("list", "references", "--json").document()
        assert list(found) == ["mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "resnet18", "resnet8"]
        assert all(found.values())


class TestDrawing:
    @pytest.mark.parametrize(("slowest", "scale"), [(3.0, "linear"), (300.0, "log")])
    def test_far_ones_are_brought_into_view(self, slowest: float, scale: str) -> None:
        from matplotlib.figure import Figure

        from pipeline.report.reference_section import Finished as Point
        from pipeline.report.reference_section import draw_finished

        axes = Figure().add_subplot()
        marks = [
            Point("slow", 0.9, {"latency_ms": slowest}),
            Point("dead", 0.1, {"latency_ms": 2.0}),
            Point("other cost", 0.5, {"macs": 2.0}),
            Point("winner", 0.92, {"latency_ms": 1.0}, won=True),
        ]
        draw_finished(axes, marks, "latency_ms", [1.0, 2.0], [0.8, 0.9])
        assert axes.get_xscale() == scale
        assert [text.get_text() for text in axes.texts] == ["dead 0.100 ↓", "slow"]
        assert axes.texts[1].get_horizontalalignment() == "right"  # at the right edge there is room on the left only
        heights = np.concatenate([np.asarray(c.get_offsets())[:, 1] for c in axes.collections])
        assert sorted(heights) == pytest.approx([0.7, 0.9, 0.92])
