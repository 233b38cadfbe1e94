"""predict.py of a bundle: a program of its own that sees images as the network was taught to."""

import ast
import contextlib
import io
import json
import runpy
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from export.bundle import predict
from export.bundle.write import write_bundle
from export.exporter.image_model import with_preprocessing
from export.preprocessing import Preprocessing
from helpers.nets import PREPROCESSING, bundle_parts, digits_like, digits_net

COLOUR = Preprocessing(channels=3, height=12, width=10, scale=1 / 255, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
CLASSES = [f"digit {index}" for index in range(10)]


def save(folder: Path, images: np.ndarray) -> list[Path]:
    """Images as PNG files, without any loss."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{index}.png" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)
    return paths


Done = subprocess.CompletedProcess[str]


def started(bundle: Path, *arguments: object) -> Done:
    """The bundle's program in a process of its own, from a folder that has nothing to do with it."""
    command = [sys.executable, "-I", "-W", "error", str(bundle / "predict.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=bundle.parent, capture_output=True, text=True, check=False)


def run(bundle: Path, *arguments: object) -> Done:
    """The same in this process, without the half second of a start."""
    command, out, err = [str(bundle / "predict.py"), *map(str, arguments)], io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(bundle.parent),
        mock.patch.object(sys, "argv", command),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(action="error"),
        pytest.raises(SystemExit) as left,
    ):
        runpy.run_path(command[0], run_name="__main__")
    return Done(command, int(left.value.code or 0), out.getvalue(), err.getvalue())


def refused(bundle: Path, *arguments: object) -> str:
    done = run(bundle, *arguments)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parts = bundle_parts(digits_net())
    return write_bundle(
        tmp_path_factory.mktemp("predict") / "bundle",
        **parts,
        manifest={
            "classes": CLASSES,
            "preprocessing": PREPROCESSING.as_dict(),
            "dataset": {"name": "made up", "train_images": 1, "validation_images": 1, "test_images": 1,
                        "image_shape": [8, 8, 1], "value_range": [0, 16]},
        },
        image_model=with_preprocessing(parts["model"], PREPROCESSING).SerializeToString(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def files(bundle: Path) -> list[Path]:
    return save(bundle.parent / "images", digits_like())


def logits(bundle: Path) -> np.ndarray:
    with np.load(bundle / "samples.npz") as samples:
        return samples["outputs"]


@pytest.mark.parametrize("record", [PREPROCESSING, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("size", [None, (31, 17), (5, 40)], ids=str)
def test_images_become_the_same_inputs_to_the_last_bit(tmp_path, record, size):
    height, width = size or (record.height, record.width)
    raw = np.random.default_rng(0).integers(0, 256, (6, height, width, record.channels), dtype=np.uint8)
    read = [predict.read_image(path, record.channels) for path in save(tmp_path / "images", raw)]
    assert np.array_equal(np.stack(read), raw)
    made = predict.normalised(
        np.stack([predict.resized(image, record.height, record.width) for image in read]), record.as_dict()
    )
    expected = record.apply(raw)
    assert made.dtype == expected.dtype
    assert np.array_equal(made, expected)


def test_it_names_what_the_network_does(bundle, files):
    done = started(bundle, *files, "--json", "--top", 10)
    assert (done.returncode, done.stderr) == (0, "")
    found, expected = json.loads(done.stdout), logits(bundle)
    assert [item["image"] for item in found] == [str(path) for path in files]
    assert [item["predictions"][0]["class"] for item in found] == [CLASSES[i] for i in expected.argmax(axis=1)]
    shares = torch.softmax(torch.from_numpy(expected).double(), dim=1).numpy()
    for item, row in zip(found, shares, strict=True):
        for prediction in item["predictions"]:
            assert prediction["probability"] == pytest.approx(row[prediction["index"]], abs=1e-5)
        assert [p["probability"] for p in item["predictions"]] == sorted(row, reverse=True) or np.allclose(
            [p["probability"] for p in item["predictions"]], sorted(row, reverse=True), atol=1e-5
        )


def test_lines_for_people(bundle, files):
    done = started(bundle, files[0], "--top", 2)
    assert done.returncode == 0
    best = CLASSES[int(logits(bundle)[0].argmax())]
    assert done.stdout.startswith(f"{files[0]}: {best} (")
    assert done.stdout.count(" %)") == 2


def test_the_image_model_says_the_same(bundle, files):
    plain, whole = (
        json.loads(run(bundle, *files[:5], "--json", *more).stdout) for more in ((), ("--model", "model.image.onnx"))
    )
    for one, other in zip(plain, whole, strict=True):
        for a, b in zip(one["predictions"], other["predictions"], strict=True):
            assert a["class"] == b["class"]
            assert a["probability"] == pytest.approx(b["probability"], abs=1e-5)


def test_values_beyond_the_training_data_are_warned_of(bundle, tmp_path):
    (path,) = save(tmp_path / "bright", np.full((1, 8, 8, 1), 255, np.uint8))
    done = run(bundle, path)
    assert done.returncode == 0
    assert "values up to 255" in done.stderr
    assert "up to 16" in done.stderr
    assert "multiply its values by 16/255" in done.stderr


def test_other_kinds_of_images(bundle, files, tmp_path):
    """Colour to grey, palettes, transparency, a turned photograph: whatever Pillow reads with 8 bits."""
    grey = Image.open(files[0])
    expected = json.loads(run(bundle, files[0], "--json").stdout)[0]["predictions"][0]["class"]
    for mode, name in (("RGB", "a.png"), ("RGBA", "b.png"), ("LA", "c.png"), ("RGB", "d.bmp")):
        grey.convert(mode).save(tmp_path / name)
        found = json.loads(run(bundle, tmp_path / name, "--json").stdout)
        assert found[0]["predictions"][0]["class"] == expected
    turned = grey.rotate(90, expand=True)
    exif = turned.getexif()
    exif[0x0112] = 6  # what is stored has to be turned clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(predict.read_image(tmp_path / "turned.png", 1)[..., 0], np.asarray(grey))


def test_a_folder_stands_for_its_images(bundle, files, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number, name in enumerate(["b.png", "a.PNG", "c.bmp"]):
        Image.open(files[number]).save(folder / name, format="bmp" if name.endswith("bmp") else "png")
    (folder / "notes.txt").write_text("no image, and nobody says that it is one")
    (folder / "deeper").mkdir()
    Image.open(files[0]).save(folder / "deeper" / "d.png")
    done = run(bundle, folder, files[5], "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = [Path(item["image"]).name for item in json.loads(done.stdout)]
    assert found == ["a.PNG", "b.png", "c.bmp", "5.png"]


def test_a_damaged_image_leaves_the_others(bundle, files, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(files[1].read_bytes()[:60])
    given = [files[0], damaged, tmp_path / "gone.png", files[2]]
    done = run(bundle, *given, "--json")
    assert done.returncode == 2
    found = json.loads(done.stdout)
    assert [item["image"] for item in found] == [str(path) for path in given]
    assert ["error" in item for item in found] == [False, True, True, False]
    assert all("predictions" not in item for item in found[1:3])
    alone = json.loads(run(bundle, files[0], files[2], "--json").stdout)
    assert [found[0], found[3]] == alone
    assert "damaged.png can't be read as an image" in found[1]["error"]
    assert "no such file" in found[2]["error"]
    for item in found[1:3]:
        assert f"predict.py: {item['error']}\n" in done.stderr
    assert "2 of 4 images can't be classified" in done.stderr
    for_people = run(bundle, *given)
    assert for_people.returncode == 2
    assert [line.partition(":")[0] for line in for_people.stdout.splitlines()] == [str(files[0]), str(files[2])]
    assert "damaged.png can't be read as an image" in for_people.stderr


@pytest.mark.parametrize("error", [IndexError("bad index"), MemoryError(), RuntimeError("decoder")], ids=repr)
def test_whatever_a_decoder_raises_is_of_that_file_alone(error, files, monkeypatch):
    def opened(path):
        raise error

    monkeypatch.setattr(predict.Image, "open", opened)
    with pytest.raises(
        predict.UsageError, match=r"0\.png can't be read as an image \((bad index|MemoryError|decoder)\)"
    ):
        predict.read_image(files[0], 1)


def test_help_describes_the_images(bundle, tmp_path):
    said = " ".join(run(bundle, "--help").stdout.split())
    assert "8 x 8 pixels (grey)" in said
    assert "values from 0 to 16" in said
    assert "multiplied by 16/255" in said
    (tmp_path / "predict.py").write_bytes((bundle / "predict.py").read_bytes())
    lost = started(tmp_path, "--help")
    assert (lost.returncode, lost.stderr) == (0, "")
    for damage in ({"value_range": 3}, {"value_range": [0, 255]}, {}):
        record = {"preprocessing": PREPROCESSING.as_dict(), "dataset": damage}
        (tmp_path / "manifest.json").write_text(json.dumps(record))
        said = " ".join(run(tmp_path, "--help").stdout.split())
        assert "8 x 8 pixels" in said
        assert "multiplied" not in said


class TestMistakes:
    def test_no_image_given(self, bundle):
        assert started(bundle).returncode == 2
        said = refused(bundle)
        assert "IMAGE" in said
        assert "usage: predict.py" in said

    def test_no_such_image(self, bundle):
        assert "gone.png can't be read as an image (no such file)" in refused(bundle, "gone.png")

    def test_a_folder_without_images(self, bundle, tmp_path):
        assert f"{tmp_path} is a folder without images" in refused(bundle, tmp_path)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--top", "0", "a.png"], "--top"),
            ([], "IMAGE"),
            (["a.png", "--model", "gone.onnx"], "there is no model"),
        ],
        ids=["top", "nothing", "model"],
    )
    def test_with_json_there_is_a_document_in_any_case(self, bundle, arguments, words):
        done = run(bundle, *arguments, "--json")
        assert done.returncode == 2
        said = json.loads(done.stdout)
        assert said["error"]["exit_code"] == 2
        assert words in said["error"]["message"]
        assert done.stderr.startswith(f"predict.py: {said['error']['message']}\n")

    @pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n" + b"x" * 50], ids=["empty", "text", "png"])
    def test_what_is_no_image(self, bundle, tmp_path, content):
        (tmp_path / "a.png").write_bytes(content)
        assert "a.png can't be read as an image" in refused(bundle, tmp_path / "a.png")

    def test_half_an_image(self, bundle, tmp_path):
        (path,) = save(tmp_path / "x", np.random.default_rng(0).integers(0, 16, (1, 99, 99, 1), dtype=np.uint8))
        path.write_bytes(path.read_bytes()[:3000])
        assert "can't be read as an image" in refused(bundle, path)

    def test_sixteen_bits(self, bundle, tmp_path):
        Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "deep.png")
        assert "8 bits" in refused(bundle, tmp_path / "deep.png")

    @pytest.mark.parametrize("top", ["0", "-1", "many"])
    def test_top(self, bundle, files, top):
        assert "--top" in refused(bundle, files[0], "--top", top)

    def test_models_that_are_none(self, bundle, files):
        assert "there is no model" in refused(bundle, files[0], "--model", "gone.onnx")
        assert "can't be loaded" in refused(bundle, files[0], "--model", files[0])

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (None, "can't be read"),
            ("{", "damaged"),
            ("[]", "damaged"),
            ("{}", "damaged"),
            ('{"preprocessing": null}', "no preprocessing"),
            ('{"preprocessing": {}}', "damaged"),
            ('{"preprocessing": {"channels": 2, "resize": [8, 8]}}', "2 channels"),
            ('{"preprocessing": {"channels": 1, "resize": 8}}', "damaged"),
        ],
    )
    def test_a_manifest_that_is_none(self, bundle, files, tmp_path, text, words):
        (tmp_path / "predict.py").write_bytes((bundle / "predict.py").read_bytes())
        if text is not None:
            (tmp_path / "manifest.json").write_text(text)
        assert words in refused(tmp_path, files[0])


def test_it_stands_alone():
    """Nothing but what its own words say that it needs, and no syntax later than Python 3.9's."""
    source = Path(predict.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    standard = {"__future__", "argparse", "json", "os", "sys", "pathlib", "typing"}
    assert imported - standard == {"numpy", "onnxruntime", "PIL"}
