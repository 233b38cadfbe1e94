"""What stands beside a bundle's models: predict.py, the model card, files of others; and figures in their intervals."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import companion_checks
from export.bundle.content_checks import check_evaluation, check_intervals
from export.bundle.manifest import file_record, manifest_sha256, read_manifest
from export.bundle.verify import verify_bundle
from export.bundle.write import write_bundle
from export.checks import Check
from helpers.nets import PREPROCESSING, bundle_parts, digits_net

OWN = version("hwnas")
METRICS = {"accuracy_test": 0.75, "latency_ms": 0.123, "latency_low_ms": 0.12, "latency_high_ms": 0.13}
MANIFEST: dict[str, Any] = {
    "name": "digits-cpu",
    "classes": [str(digit) for digit in range(10)],
    "preprocessing": PREPROCESSING.as_dict(),
    "metrics": METRICS,
    "versions": {"hwnas": OWN},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return bundle_parts(digits_net())


@pytest.fixture
def bundle(tmp_path: Path, made: dict[str, Any]) -> Path:
    return write_bundle(tmp_path / "bundle", manifest=MANIFEST, **made)


def signed(bundle: Path, **changes: Any) -> None:
    """Renew all hashes, as whoever changes something on purpose would."""
    manifest = read_manifest(bundle) | changes
    manifest["files"] = {name: file_record(bundle / name) for name in manifest["files"]}
    manifest["manifest_sha256"] = manifest_sha256(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def found(bundle: Path) -> dict[str, Check]:
    return {check.name: check for check in verify_bundle(bundle)}


def failed(bundle: Path) -> list[str]:
    return [check.name for check in verify_bundle(bundle) if check.ok is False]


def test_as_it_was_made_all_is_well(bundle: Path) -> None:
    checks = found(bundle)
    assert [checks[name].ok for name in ("predict.py", "model card", "other files", "intervals")] == [True] * 4
    signed(bundle)  # the same again, with another order of the keys
    assert failed(bundle) == []


@pytest.mark.parametrize(
    ("versions", "ok", "words"),
    [
        ({"hwnas": OWN}, False, f"hwnas {OWN}, which made the bundle"),
        ({"hwnas": "0.0.1"}, None, f"made by hwnas 0.0.1, this is {OWN}"),
        ({}, None, "doesn't tell which version"),
    ],
    ids=str,
)
class TestEdited:
    """An edit fails the check where this version made the bundle; another one's predict.py and card may be others."""

    def test_predict(self, bundle: Path, versions: Any, ok: bool | None, words: str) -> None:
        append(bundle / "predict.py", "# more\n")
        signed(bundle, versions=versions)
        check = found(bundle)["predict.py"]
        assert check.ok is ok
        assert words in check.detail

    def test_card(self, bundle: Path, versions: Any, ok: bool | None, words: str) -> None:
        append(bundle / "README.md", "It is the best of all.\n")
        signed(bundle, versions=versions)
        check = found(bundle)["model card"]
        assert check.ok is ok
        assert (words if ok is None else "'It is the best of all.', the manifest gives nothing") in check.detail


def test_the_program_of_an_earlier_build_of_this_version(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(bundle / "predict.py", "# as it was before\n")
    signed(bundle)
    assert found(bundle)["predict.py"].ok is False
    earlier = frozenset({file_record(bundle / "predict.py")["sha256"]})
    monkeypatch.setattr(companion_checks, "EARLIER_PROGRAMS", earlier)
    check = found(bundle)["predict.py"]
    assert check.ok
    assert "an earlier build of this version" in check.detail


def test_a_card_that_contradicts_the_manifest(bundle: Path) -> None:
    signed(bundle, metrics=METRICS | {"accuracy_test": 0.99})
    assert failed(bundle) == ["model card"]
    detail = found(bundle)["model card"].detail
    assert "accuracy on the test images | 75.00 %" in detail
    assert "the manifest gives '| accuracy on the test images | 99.00 %" in detail


def test_facts_of_which_no_card_can_be_made(bundle: Path) -> None:
    wrong = {"confusion": [[1, 2], [3]], "per_class": [], "accuracy": 1, "accuracy_low": 1, "accuracy_high": 1}
    signed(bundle, classes=[], evaluation={"file": "x", "images": 6, "correct": 6, "interval": "", **wrong})
    assert "the manifest's facts give no card" in found(bundle)["model card"].detail


def test_a_card_that_is_no_text(bundle: Path) -> None:
    (bundle / "README.md").write_bytes(b"\xff\xfe")
    signed(bundle)
    check = found(bundle)["model card"]
    assert check.ok is False
    assert "can't be set against the manifest" in check.detail


def test_a_card_of_any_length_is_not_read_to_its_end(bundle: Path) -> None:
    with (bundle / "README.md").open("r+b") as file:
        file.truncate(2**31)
    signed(bundle)
    assert "is larger than the 1,000,000 bytes" in found(bundle)["model card"].detail


def test_an_installation_that_does_not_know_its_version(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> str:
        raise companion_checks.PackageNotFoundError(name)

    monkeypatch.setattr(companion_checks, "version", unknown)
    append(bundle / "predict.py", "# more\n")
    signed(bundle)
    assert found(bundle)["predict.py"].ok is None


class TestOtherFiles:
    @pytest.mark.parametrize(
        "name", ["json.py", "numpy/__init__.py", "PIL/__init__.pyc", "onnxruntime.cpython-311-x86_64-linux-gnu.so"]
    )
    def test_what_predict_would_import(self, bundle: Path, name: str) -> None:
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_text("")
        assert failed(bundle) == ["other files"]
        assert name in found(bundle)["other files"].detail
        manifest = read_manifest(bundle)
        signed(bundle, files=manifest["files"] | {name: None})  # to list it doesn't help
        assert failed(bundle) == ["other files"]

    def test_a_link_to_a_package(self, bundle: Path, tmp_path: Path) -> None:
        (tmp_path / "evil").mkdir()
        (bundle / "numpy").symlink_to(tmp_path / "evil")
        assert failed(bundle) == ["other files"]

    @pytest.mark.parametrize("name", ["model.int8.onnx", "model.image.onnx"])
    def test_a_model_that_the_manifest_does_not_list(self, bundle: Path, name: str) -> None:
        (bundle / name).write_bytes((bundle / "model.onnx").read_bytes())
        assert failed(bundle) == ["other files"]
        assert name in found(bundle)["other files"].detail

    @pytest.mark.parametrize(
        "name",
        ["notes.txt", ".DS_Store", "examples/use.py", "__pycache__/predict.cpython-311.pyc", "logs/a/__init__.py"],
    )
    def test_what_does_no_harm_is_named_and_not_judged(self, bundle: Path, name: str) -> None:
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_text("")
        check = found(bundle)["other files"]
        assert check.ok is None
        assert name in check.detail


class TestIntervals:
    @pytest.mark.parametrize(
        ("part", "words"),
        [
            ({"metrics": {"latency_ms": 0.1, "latency_low_ms": 0.12, "latency_high_ms": 0.13}}, "latency_ms is 0.1"),
            ({"int8": {"latency_ratio": 2, "latency_ratio_low": 0.5, "latency_ratio_high": 0.6}}, "int8.latency_ratio"),
            ({"evaluation": {"per_class": [{}, {"accuracy": 1.0, "accuracy_low": 0.1, "accuracy_high": 0.9}]}},
             "evaluation.per_class[1].accuracy is 1"),
            ({"metrics": {"latency_ms": 10**400, "latency_low_ms": 1, "latency_high_ms": 2}}, "is inf"),
        ],
    )  # fmt: skip
    def test_a_figure_outside(self, part: dict[str, Any], words: str) -> None:
        check = check_intervals(part)
        assert check.ok is False
        assert words in check.detail

    def test_ends_belong_to_it_and_rounding_is_forgiven(self) -> None:
        ends = {"accuracy": 1.0, "accuracy_low": 0.9, "accuracy_high": 1.0 - 1e-12}
        assert check_intervals({"evaluation": ends}) == Check(
            "intervals", True, "figures that lie in their intervals: all 1"
        )

    @pytest.mark.parametrize(
        "part", [{}, {"metrics": {"latency_ms": 1, "latency_low_ms": None}}, {"metrics": [3]}], ids=str
    )
    def test_none_is_none(self, part: dict[str, Any]) -> None:
        assert check_intervals(part).ok is None

    def test_a_deep_manifest_ends_no_verification(self) -> None:
        deep: Any = []
        for _ in range(5000):
            deep = [deep]
        assert check_intervals({"metrics": deep}).ok is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"correct": 2}, "3 of 4 are right, stated are 2"),
        ({"per_class": [{"images": 2, "correct": 2}, {"images": 2, "correct": 2}]}, "single classes"),
        ({"per_class": [{"images": 2}]}, "can't be read"),
        ({"per_class": [3]}, "can't be read"),
        ({"correct": ["a"]}, "can't be read"),
    ],
    ids=str,
)
def test_an_evaluation_that_contradicts_itself(change: dict[str, Any], words: str) -> None:
    record = {
        "confusion": np.array([[2, 0], [1, 1]]).tolist(),
        "images": 4,
        "correct": 3,
        "accuracy_low": 0.3,
        "accuracy_high": 0.96,
        "per_class": [{"images": 2, "correct": 2}, {"images": 2, "correct": 1}],
    }
    whole = {"evaluation": record, "metrics": {"accuracy_test": 0.75}}
    sound = check_evaluation(whole)
    assert sound is not None
    assert sound.ok is True
    check = check_evaluation(whole | {"evaluation": record | change})
    assert check is not None
    assert check.ok is False
    assert words in check.detail
