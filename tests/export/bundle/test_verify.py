"""A bundle's way: written, read, used by its own README, damaged, and found out."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export.bundle.manifest import file_record, manifest_sha256, read_manifest, stays_inside
from export.bundle.verify import verify_bundle
from export.bundle.write import write_bundle
from export.checks import accuracy, parity
from export.errors import BundleError, InvalidFileError
from export.exporter.graph_builder import build_graph
from export.preprocessing import Preprocessing
from helpers.nets import PREPROCESSING, bundle_parts, digits_like, digits_net, randomise, torch_outputs

RAW = digits_like()
CLASSES = [f"digit {index}" for index in range(10)]
MANIFEST = {
    "name": "digits-cpu",
    "opset": 20,
    "architecture": {"stem": 8},
    "classes": CLASSES,
    "preprocessing": PREPROCESSING.as_dict(),
    "metrics": {
        "accuracy_validation": 0.97,
        "accuracy_test": 0.9812,
        "accuracy_test_torch": 0.9812,
        "latency_ms": 0.123,
        "latency_low_ms": 0.12,
        "latency_high_ms": 0.13,
        "peak_memory_bytes": 12345,
        "size_bytes": 5000,
        "macs": 98765,
        "params": 432,
    },
    "device": {"name": "cpu", "threads": 1, "batch_size": 1, "precision": "fp32"},
    "limits": {"latency_ms": 0.5, "size_mb": 1, "macs": 100000},
}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return digits_net()


@pytest.fixture(scope="module")
def parts(network: nn.Module) -> dict[str, Any]:
    return bundle_parts(network)


@pytest.fixture
def model(parts: dict[str, Any]) -> onnx.ModelProto:
    return parts["model"]


@pytest.fixture
def arrays(parts: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: part for name, part in parts.items() if name != "model"}


@pytest.fixture
def bundle(tmp_path: Path, model, arrays) -> Path:
    return write_bundle(tmp_path / "bundle", model=model, manifest=MANIFEST, **arrays)


def results(directory: Path, **options) -> dict[str, bool | None]:
    return {check.name: check.ok for check in verify_bundle(directory, **options)}


def detail(directory: Path, name: str, **options) -> str:
    return next(check.detail for check in verify_bundle(directory, **options) if check.name == name)


def rewrite(directory: Path, change, *, sign: bool = True) -> None:
    """Change the manifest, as a forger would who also mends its hash."""
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    if sign:
        manifest["manifest_sha256"] = manifest_sha256(manifest)
    path.write_text(json.dumps(manifest))


def resign(directory: Path) -> None:
    """Renew the hashes of all files, as a forger would."""
    names = read_manifest(directory)["files"]
    rewrite(directory, lambda manifest: manifest.update(files={name: file_record(directory / name) for name in names}))


def replace_model(directory: Path, model: onnx.ModelProto) -> None:
    path = directory / "model.onnx"
    path.write_bytes(model.SerializeToString())
    rewrite(directory, lambda manifest: manifest["files"].update({"model.onnx": file_record(path)}))


def snippet(directory: Path) -> str:
    return re.search(r"```python\n(.*?)```", (directory / "README.md").read_text(), re.DOTALL).group(1)


def run_snippet(directory: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet(directory)],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.replace("'", '"'))


def test_a_sound_bundle_passes_every_check_that_could_be_made(bundle):
    found = results(bundle)
    assert {name for name, ok in found.items() if ok is None} == {
        "accuracy",
        "limit latency_ms",
        "limit macs",
        "limit size_mb",
    }
    assert False not in found.values()
    assert {"manifest", "manifest_sha256", "files", "model", "operators", "opset"} <= found.keys()
    assert {"external_data", "preprocessing", "parity"} <= found.keys()


def test_the_manifest_holds_what_was_given_and_vouches_for_the_rest(bundle):
    manifest = read_manifest(bundle)
    assert {key: manifest[key] for key in MANIFEST} == MANIFEST
    assert manifest["schema_version"] == 1
    assert set(manifest["files"]) == {"model.onnx", "samples.npz", "README.md", "predict.py"}
    assert manifest["models"]["model.onnx"]["inputs"] == [
        {"name": "input", "type": "float", "shape": ["batch", 1, 8, 8]}
    ]
    assert manifest["models"]["model.onnx"]["operators"]["Conv"] == 1
    assert manifest["manifest_sha256"] == manifest_sha256(manifest)


def test_the_readmes_snippet_runs_and_predicts(bundle, arrays):
    assert run_snippet(bundle) == [CLASSES[index] for index in arrays["outputs"].argmax(axis=1)]
    assert not re.search(r"torch|pickle=True|PIL|hwnas", snippet(bundle))


def test_the_readmes_snippet_resizes_like_the_record(tmp_path, network, model):
    raw = np.random.default_rng(1).integers(0, 17, (5, 11, 9, 1), dtype=np.uint8)
    inputs = PREPROCESSING.apply(raw)
    outputs = torch_outputs(network, torch.from_numpy(inputs))
    directory = write_bundle(
        tmp_path / "b", model=model, manifest=MANIFEST, inputs=inputs, outputs=outputs, raw_inputs=raw
    )
    assert run_snippet(directory) == [CLASSES[index] for index in outputs.argmax(axis=1)]
    assert "pillow" in (directory / "README.md").read_text()
    assert results(directory)["preprocessing"] is True


def test_the_readme_tells_accuracy_cost_and_limits(bundle):
    text = (bundle / "README.md").read_text()
    for words in ("98.12 %", "0.123 ms (95 % interval 0.12 to 0.13 ms)", "cpu, 1 thread, batch of 1, fp32"):
        assert words in text
    for words in ("`latency_ms` at most 0.5", "12,345 bytes", "8 × 8 pixels", "multiplied by 0.0625"):
        assert words in text


def test_a_bare_manifest_makes_a_readme_that_runs(tmp_path, model, arrays):
    directory = write_bundle(tmp_path / "b", model=model, manifest={}, **arrays)
    assert len(run_snippet(directory)) == len(RAW)
    found = results(directory)
    assert False not in found.values()
    assert found["opset"] is found["preprocessing"] is found["accuracy"] is None


def test_a_bundle_is_replaced_whole(bundle, model, arrays):
    (bundle / "leftover.txt").write_text("of the old one")
    write_bundle(bundle, model=model.SerializeToString(), manifest=MANIFEST | {"name": "second"}, **arrays)
    assert read_manifest(bundle)["name"] == "second"
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]
    assert not (bundle / "leftover.txt").exists()


def test_a_failed_write_leaves_the_old_bundle(bundle, model, arrays, monkeypatch):
    before = (bundle / "manifest.json").read_bytes()

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("export.bundle.write.sync", full)
    with pytest.raises(BundleError, match="No space left"):
        write_bundle(bundle, model=model, manifest=MANIFEST | {"name": "second"}, **arrays)
    assert (bundle / "manifest.json").read_bytes() == before
    assert [path.name for path in bundle.parent.iterdir()] == [bundle.name]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"inputs": RAW}, "float32"),
        ({"outputs": np.zeros((64, 10))}, "outputs are float64"),
        ({"raw_inputs": RAW.astype(np.float32)}, "uint8"),
        ({"raw_inputs": RAW[:3]}, "3 raw inputs"),
        ({"manifest": {"metrics": {"latency_ms": float("nan")}}}, "JSON"),
        ({"manifest": {"run": Path("x")}}, "JSON"),
    ],
    ids=str,
)
def test_what_does_not_belong_together_is_not_written(tmp_path, model, arrays, change, what):
    with pytest.raises(BundleError, match=what):
        write_bundle(tmp_path / "b", **({"model": model, "manifest": MANIFEST} | arrays | change))
    assert not list(tmp_path.iterdir())


def test_other_peoples_directories_are_not_replaced(tmp_path, model, arrays):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="in the way"):
        write_bundle(tmp_path, model=model, manifest=MANIFEST, **arrays)
    with pytest.raises(BundleError, match="in the way"):
        write_bundle(tmp_path / "thesis.tex", model=model, manifest=MANIFEST, **arrays)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


# Damage


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "JSON"),
        ('{"schema_version": 1, ', "JSON"),
        ("[" * 100_000, "JSON"),
        ("[1]", "list"),
        ('{"schema_version": 2}', "schema_version is 2"),
        ('{"schema_version": true}', "schema_version is True"),
        ('{"schema_version": 1, "x": NaN}', "JSON"),
    ],
    ids=["empty", "cut", "deep", "list", "newer", "bool", "nan"],
)
def test_a_damaged_manifest_is_one_failed_check(bundle, text, what):
    (bundle / "manifest.json").write_text(text)
    assert results(bundle) == {"manifest": False}
    assert what in detail(bundle, "manifest")
    with pytest.raises(BundleError, match=what):
        read_manifest(bundle)


def test_no_bundle_at_all(tmp_path):
    assert results(tmp_path / "nowhere") == {"manifest": False}


def test_a_manifest_without_canonical_form_fails(bundle):
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"digits-cpu"', '"\\ud800"'))
    assert results(bundle)["manifest_sha256"] is False


@pytest.mark.parametrize(
    ("section", "value", "words"),
    [
        ("files", None, "files: "),
        ("files", [], "files: "),
        ("files", {"model.onnx": 3, "samples.npz": None}, "files.model.onnx: "),
        ("files", {"model.onnx": {"sha256": "x", "bytes": "3"}}, "files.model.onnx.bytes: input should be a valid int"),
        ("metrics", {"latency_ms": "3"}, "metrics.latency_ms: input should be a valid number, found '3'"),
        ("metrics", {"accuracy_test": 10**400}, "metrics.accuracy_test: "),
        ("limits", {"macs": None}, "limits.macs: "),
        ("preprocessing", ["?"], "preprocessing: "),
        ("preprocessing", {"resize": [8, 8]}, "preprocessing.channels: is missing"),
        ("opset", "20", "opset: "),
        ("classes", "abc", "classes: "),
        ("versions", ["?"], "versions: "),
    ],
    ids=str,
)
def test_what_breaks_the_schema_is_damage_with_its_place(bundle, section, value, words):
    rewrite(bundle, lambda manifest: manifest.update({section: value}))
    assert results(bundle) == {"manifest": False}
    assert f"manifest.json is damaged: {words}" in detail(bundle, "manifest")


def test_bundles_of_later_versions_may_know_more_fields(bundle):
    rewrite(bundle, lambda manifest: (manifest.update(novelty=[1]), manifest["metrics"].update(latency_p95_ms=0.2)))
    assert False not in results(bundle).values()


def test_an_edited_manifest_fails_its_hash(bundle):
    rewrite(bundle, lambda manifest: manifest["metrics"].update(accuracy_test=0.999), sign=False)
    found = results(bundle)
    assert {name: ok for name, ok in found.items() if ok is not None} == {"manifest": True, "manifest_sha256": False}
    assert {"files", "model", "parity", "limit macs"} <= found.keys()


def test_a_manifest_that_lists_no_model_fails(bundle):
    rewrite(bundle, lambda manifest: manifest.update(files={}))
    assert results(bundle)["files"] is False


@pytest.mark.parametrize("name", ["model.onnx", "samples.npz", "README.md"])
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    assert f"{name} is missing" in detail(bundle, "files")
    assert results(bundle)["files"] is False


@pytest.mark.parametrize("name", ["model.onnx", "samples.npz", "README.md"])
def test_a_changed_byte_is_noticed(bundle, name):
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    assert f"{name} was changed" in detail(bundle, "files")


def test_nothing_is_opened_after_a_wrong_hash(bundle, monkeypatch):
    (bundle / "README.md").write_text("x" * (bundle / "README.md").stat().st_size)
    monkeypatch.setattr("export.onnx_file.read_model", lambda path: pytest.fail("must not be read"))
    monkeypatch.setattr("zipfile.ZipFile", lambda file: pytest.fail("must not be unpacked"))
    found = results(bundle)
    assert {name for name, ok in found.items() if ok is False} == {"files"}
    assert found["model"] is found["parity"] is found["model card"] is found["limit macs"] is None


@pytest.mark.parametrize("keep", [0, 1, 100, 20_000])
def test_a_truncated_model_is_a_failed_check(bundle, keep):
    path = bundle / "model.onnx"
    path.write_bytes(path.read_bytes()[:keep])
    assert results(bundle)["files"] is False
    resign(bundle)
    found = results(bundle, evaluate=lambda path, manifest: pytest.fail("must not be run"))
    assert found["files"] is True
    assert found["model"] is False
    assert found["parity"] is found["accuracy"] is None


@pytest.mark.parametrize("keep", [0, 50, 3000])
def test_truncated_samples_are_a_failed_check(bundle, keep):
    path = bundle / "samples.npz"
    path.write_bytes(path.read_bytes()[:keep])
    assert results(bundle)["files"] is False
    resign(bundle)
    assert results(bundle)["parity"] is False


def test_a_lone_array_in_place_of_the_samples_is_a_failed_check(bundle):
    with (bundle / "samples.npz").open("wb") as file:
        np.save(file, RAW)
    resign(bundle)
    assert results(bundle)["parity"] is False


def test_pickled_samples_are_never_loaded(bundle):
    np.savez(bundle / "samples.npz", inputs=np.array([{}]), outputs=np.array([{}]), images=np.array([{}]))
    resign(bundle)
    assert "pickle" in detail(bundle, "parity")


@pytest.mark.parametrize(
    ("wrong", "preprocessing"),
    [
        (np.zeros(64, np.float32), None),
        (np.zeros((64, 2, 8, 8), np.float32), False),
        (np.array(["a"]), None),
        (np.float32(1), None),
        (np.zeros((3, 1, 8, 8), np.float32), None),
    ],
    ids=["rank", "channels", "text", "scalar", "count"],
)
def test_samples_that_do_not_fit_the_model_are_a_failed_check(bundle, arrays, wrong, preprocessing):
    np.savez(bundle / "samples.npz", inputs=wrong, outputs=arrays["outputs"], images=RAW)
    resign(bundle)
    found = results(bundle)
    assert found["parity"] is False
    assert found["preprocessing"] is preprocessing


@pytest.mark.parametrize("name", ["/etc/hostname", "../outside.txt", "a\\b", "C:x", ""])
def test_recorded_paths_must_stay_inside(bundle, name):
    (bundle.parent / "outside.txt").write_text("x")
    record = file_record(bundle.parent / "outside.txt")
    rewrite(bundle, lambda manifest: manifest["files"].update({name: record}))
    assert "outside the bundle" in detail(bundle, "files")
    assert not stays_inside(name)


def test_a_link_out_of_the_bundle_fails(bundle):
    path = bundle / "README.md"
    path.rename(bundle.parent / "README.md")
    path.symlink_to(bundle.parent / "README.md")
    assert "link to outside" in detail(bundle, "files")


def test_a_link_within_the_bundle_fails(bundle):
    (bundle / "README.md").rename(bundle / "card.md")
    (bundle / "README.md").symlink_to("card.md")
    assert "README.md is a link to another file" in detail(bundle, "files")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["manifest.json", "README.md", "model.onnx", "samples.npz", "predict.py"])
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
def test_special_files_are_refused_and_not_waited_for(bundle, name, kind):
    (bundle / name).unlink()
    with closing(socket.socket(socket.AF_UNIX)) as listener, contextlib.chdir(bundle):
        if kind == "pipe":
            os.mkfifo(name)
        elif kind == "socket":
            listener.bind(name)
        elif kind == "folder":
            Path(name).mkdir()
        else:
            Path(name).symlink_to("/dev/zero")
    check = "manifest" if name == "manifest.json" else "files"
    assert results(bundle)[check] is False
    wanted = {"folder": "a folder", "device": "a link to outside"}.get(kind, "a named pipe, a device or a socket")
    assert wanted in detail(bundle, check)


def test_a_file_that_nobody_vouches_for_is_mentioned(bundle):
    (bundle / "extra.bin").write_bytes(b"x")
    found = results(bundle)
    assert found["files"] is True
    assert found["other files"] is None
    assert "extra.bin" in detail(bundle, "other files")


def test_a_model_of_another_opset_fails(bundle):
    rewrite(bundle, lambda manifest: manifest.update(opset=21))
    assert results(bundle)["opset"] is False


def test_operators_of_other_domains_fail(bundle, model):
    foreign = onnx.ModelProto()
    foreign.CopyFrom(model)
    activation = next(node for node in foreign.graph.node if node.op_type == "HardSwish")
    activation.op_type, activation.domain = "Gelu", "com.microsoft"
    foreign.opset_import.add(domain="com.microsoft", version=1)
    replace_model(bundle, foreign)
    assert results(bundle)["operators"] is False
    assert "com.microsoft:Gelu" in detail(bundle, "operators")


def test_external_data_outside_the_bundle_is_not_read(bundle, model):
    external = onnx.ModelProto()
    external.CopyFrom(model)
    tensor = external.graph.initializer[0]
    (bundle.parent / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../weights.bin")
    replace_model(bundle, external)
    found = results(bundle)
    assert found["external_data"] is False
    assert found["model"] is found["parity"] is None


def test_external_data_that_is_vouched_for_is_read(bundle, model):
    external = onnx.ModelProto()
    external.CopyFrom(model)
    tensor = external.graph.initializer[0]
    (bundle / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    replace_model(bundle, external)
    assert results(bundle)["external_data"] is False  # in the bundle, but not recorded
    record = file_record(bundle / "weights.bin")
    rewrite(bundle, lambda manifest: manifest["files"].update({"weights.bin": record}))
    found = results(bundle)
    assert found["external_data"] is found["parity"] is found["model"] is True
    (bundle / "weights.bin").write_bytes(bytes(record["bytes"]))
    assert "weights.bin was changed" in detail(bundle, "files")


def test_external_data_of_a_function_is_found_as_well(bundle, model):
    external = onnx.ModelProto()
    external.CopyFrom(model)
    function = external.functions.add(name="f", domain="somebody")
    node = function.node.add(op_type="Constant", output=["c"])
    tensor = onnx.TensorProto(name="w", dims=[1], data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../weights.bin")
    node.attribute.append(onnx.helper.make_attribute("value", tensor))
    replace_model(bundle, external)
    found = results(bundle)
    assert found["external_data"] is found["operators"] is False
    assert found["model"] is found["parity"] is None


def test_a_model_that_is_too_large_to_be_loaded_is_skipped_with_the_reason(bundle):
    found = results(bundle, most_model_bytes=1000, evaluate=lambda path, manifest: pytest.fail("must not be run"))
    assert False not in found.values()
    assert found["files"] is True
    assert found["model"] is found["parity"] is found["accuracy"] is found["limit macs"] is None
    assert "skipped: it has 0 MB" in detail(bundle, "model", most_model_bytes=1000)


def test_other_weights_fail_parity(bundle, network):
    replace_model(bundle, build_graph(randomise(network, seed=5), (1, 8, 8)))
    randomise(network, seed=0)
    found = results(bundle)
    assert found["parity"] is False
    assert found["files"] is found["model"] is True


def test_a_preprocessing_record_that_does_not_make_the_inputs_fails(bundle):
    other = Preprocessing(channels=1, height=8, width=8, scale=1 / 16, mean=(0.0,), std=(0.5,))
    rewrite(bundle, lambda manifest: manifest.update(preprocessing=other.as_dict()))
    assert results(bundle)["preprocessing"] is False


# Accuracy and limits


@pytest.mark.parametrize(
    ("found", "ok"), [(0.9812, True), (0.9803, True), (0.979, False), (float("nan"), False), ("no data here", None)]
)
def test_accuracy_is_compared_where_it_can_be(bundle, found, ok):
    assert results(bundle, evaluate=lambda path, manifest: found)["accuracy"] is ok


def test_evaluate_gets_the_model_and_the_manifest(bundle):
    seen = []
    results(bundle, evaluate=lambda path, manifest: seen.append((path, manifest["name"])) or "elsewhere")
    assert seen == [(bundle / "model.onnx", "digits-cpu")]


@pytest.mark.parametrize(
    ("interval", "ok"),
    [
        ((0.4, 0.39, 0.41), True),
        ((0.51, 0.49, 0.53), True),
        ((0.6, 0.51, 0.7), False),
        ("measured elsewhere", None),
    ],
)
def test_a_limit_is_broken_only_by_the_whole_interval(bundle, interval, ok):
    found = results(bundle, measure=lambda path, manifest: {"latency_ms": interval})
    assert found["limit latency_ms"] is ok


def test_a_model_that_cannot_be_run_on_the_test_data_fails(bundle):
    def refuse(path, manifest):
        raise InvalidFileError("the model", "Invalid rank for input: x")

    assert results(bundle, evaluate=refuse)["accuracy"] is False
    assert "can't be run on the test data: Invalid rank" in detail(bundle, "accuracy", evaluate=refuse)


def test_measure_gets_the_model_and_the_manifest(bundle):
    seen = []
    results(bundle, measure=lambda path, manifest: seen.append((path, manifest["name"])) or {})
    assert seen == [(bundle / "model.onnx", "digits-cpu")]


def test_accuracy_counts_every_batch(model, network):
    inputs = PREPROCESSING.apply(RAW)
    labels = torch_outputs(network, torch.from_numpy(inputs)).argmax(axis=1)
    data = model.SerializeToString()
    assert accuracy(data, inputs, labels, batch_size=7) == 1.0
    labels[:16] = (labels[:16] + 1) % 10
    assert accuracy(data, inputs, labels, batch_size=50) == 0.75
    with pytest.raises(ValueError, match="labels"):
        accuracy(data, inputs, labels[:3])


def test_parity_of_a_model_in_memory(model, arrays):
    data = model.SerializeToString()
    assert parity(data, arrays["inputs"], arrays["outputs"]).ok is True
    assert parity(data, arrays["inputs"], arrays["outputs"] + np.float32(0.1)).ok is False
    assert parity(data, arrays["inputs"], arrays["outputs"][:, :3]).ok is False
    assert parity(data, arrays["inputs"], arrays["outputs"] * np.float32("nan")).ok is False
    with pytest.raises(InvalidFileError, match="memory"):
        parity(b"junk", arrays["inputs"], arrays["outputs"])


def test_a_network_that_looks_at_its_neighbours_has_no_parity():
    def minus_the_mean(batch: str) -> onnx.ModelProto:
        node = onnx.helper.make_node
        mean = node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1)
        graph = onnx.helper.make_graph(
            [mean, node("Sub", ["x", "mean"], ["y"])],
            "g",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, 4])],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, 4])],
            [onnx.numpy_helper.from_array(np.array([0]), "axes")],
        )
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)

    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    check = parity(minus_the_mean("n").SerializeToString(), x, x - x.mean(axis=0))
    assert check.ok is False
    assert "run alone" in check.detail


def test_deploying_needs_no_torch():
    code = (
        "import sys, export.bundle.verify, export.bundle.write, export.preprocessing, export.lowering.lower\n"
        "print([name for name in ('torch', 'nni', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
