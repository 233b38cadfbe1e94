"""The inputs that a model is run with: the file's sizes, the user's sizes and values, or a guess that is told."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from export.exporter.graph_builder import plain_graph
from helpers.cli import check_message
from latency_models.errors import InputError, InvalidModelError
from latency_models.graph.model_inputs import GivenInputs, ModelInputs, model_inputs, parse_shapes, parse_values

Shape = Sequence[int | str | None] | None
FILE = Path("net.onnx")


def model_of(shapes: dict[str, Shape], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()]
    nodes = [helper.make_node("Shape", [name], [f"{name}_sizes"]) for name in shapes]
    outputs = [helper.make_tensor_value_info(f"{name}_sizes", TensorProto.INT64, None) for name in shapes]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs))


def found(shapes: dict[str, Shape], batch_size: int = 1, *given: str, kind: int = TensorProto.FLOAT) -> ModelInputs:
    return model_inputs(model_of(shapes, kind), FILE, batch_size, GivenInputs(parse_shapes(given)))


class TestSizes:
    def test_the_batch_alone_is_nobodys_guess(self):
        sizes = found({"a": ["n", 3, 32, 32], "b": ["n", "n"]}, 4)
        assert sizes.shapes == {"a": (4, 3, 32, 32), "b": (4, 4)}
        assert sizes.only_batch
        assert not sizes.notes

    @pytest.mark.parametrize(
        ("shape", "expected"),
        [
            (["n", 3, "h", "w"], (2, 3, 224, 224)),
            ([None, 1, None, None], (2, 1, 224, 224)),
            (["n", "h", "w", 3], (2, 224, 224, 3)),
            (["n", 3, 320, "w"], (2, 3, 320, 320)),
            ([2, 4, "h", 96], (2, 4, 96, 96)),
        ],
        ids=str,
    )
    def test_an_image_is_guessed_and_that_is_told(self, shape, expected):
        sizes = found({"x": shape}, 2)
        assert sizes.shapes == {"x": expected}
        assert not sizes.only_batch
        (note,) = sizes.notes
        assert "taken as" in note
        assert "--shape x=2," in note

    def test_a_guess_holds_for_all_of_its_name(self):
        assert found({"x": ["n", 3, "h", "w"], "y": ["n", "h", "w"]}).shapes["y"] == (1, 224, 224)

    @pytest.mark.parametrize(
        ("shape", "kind"),
        [
            (["n", "c", "h", "w"], TensorProto.FLOAT),
            (["n", 64, "h", "w"], TensorProto.FLOAT),
            (["n", 3, "h"], TensorProto.FLOAT),
            (["n", 3, "h", "w"], TensorProto.INT64),
            (["n", "words"], TensorProto.INT64),
            (None, TensorProto.FLOAT),
        ],
        ids=str,
    )
    def test_nothing_else_is(self, shape, kind):
        with pytest.raises(InvalidModelError, match=r"net.onnx: it has open sizes, .* input 'x'.*--shape x="):
            found({"x": shape}, kind=kind)

    def test_the_message_names_every_one(self):
        with pytest.raises(InvalidModelError) as caught:
            found({"x": ["n", 3, "words", None], "y": ["n", "more"]}, 2, kind=TensorProto.INT64)
        assert "'words' (axis 2), axis 3 of input 'x' (--shape x=2,3,WORDS,SIZE3)" in str(caught.value)
        assert "'more' (axis 1) of input 'y' (--shape y=2,MORE)" in str(caught.value)


class TestGiven:
    def test_they_come_first_and_the_batch_with_them(self):
        sizes = found({"x": ["n", 3, "h", "w"], "y": ["n", "h"]}, 1, "x=8,3,64,32")
        assert sizes.shapes == {"x": (8, 3, 64, 32), "y": (8, 64)}
        assert sizes.batch_size == 8
        assert not sizes.only_batch
        assert not sizes.notes

    def test_an_input_without_a_shape(self):
        model = model_of({"x": None})
        sizes = model_inputs(model, FILE, 1, GivenInputs({"x": (1, 3)}))
        sizes.written_into(model)
        assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3]

    @pytest.mark.parametrize("given", ["x=1,3,64", "x=1,4,64,64", "x=1,3,64,32,1", "y=2,5", "y=1"])
    def test_what_does_not_fit(self, given):
        with pytest.raises(InputError, match=r"--shape .* doesn't fit net.onnx, which has (n,3,s,s|n,n) there"):
            found({"x": ["n", 3, "s", "s"], "y": ["n", "n"]}, 1, given)

    def test_an_input_that_is_not_there(self):
        with pytest.raises(InputError, match=r"unknown input of net.onnx 'imagf'; did you mean 'image'\?"):
            found({"image": ["n", 3]}, 1, "imagf=1,3")

    @pytest.mark.parametrize("text", ["1,3,224,224", "x=1,a", "=1,2", "x=1,,3", "x=1;3", "x=-1", "x=²"])
    def test_another_form(self, text):
        with pytest.raises(InputError, match="must be INPUT=SIZES"):
            parse_shapes([text])

    def test_twice(self):
        with pytest.raises(InputError, match="'x' twice"):
            parse_shapes(["x=1,2", "x=1,3"])

    def test_another_batch_than_asked_for(self):
        with pytest.raises(InputError, match="a batch of 2, the batch size is 4"):
            found({"x": ["n", 3]}, 4, "x=2,3")

    @pytest.mark.parametrize("given", [(), ("x=1,3",)])
    def test_a_fixed_batch(self, given):
        with pytest.raises(InvalidModelError, match=r"net\.onnx: its batch is fixed at 1; it can't be run with 4"):
            found({"x": [1, 3]}, 4, *given)

    def test_a_fixed_batch_that_is_meant(self):
        assert found({"x": [4, 3]}, 4).shapes == {"x": (4, 3)}

    def test_a_size_of_nothing_is_a_size(self):
        assert found({"past": ["n", "length", 16]}, 1, "past=1,0,16").shapes == {"past": (1, 0, 16)}
        assert found({"past": [1, 0, 16]}).shapes == {"past": (1, 0, 16)}
        assert found({"past": [1, 0, 16]}).arrays()["past"].shape == (1, 0, 16)
        assert parse_shapes(["rate="]) == {"rate": ()}


class TestValues:
    @staticmethod
    def given(*texts: str, kind: int = TensorProto.INT64, **shapes: Shape) -> dict[str, np.ndarray]:
        return model_inputs(model_of(shapes, kind), FILE, 1, GivenInputs(values=parse_values(texts))).arrays()

    def test_a_number_fills_its_input(self):
        assert self.given("rate=16000", rate=[])["rate"] == 16000
        assert self.given("mask=1", mask=[2, 3])["mask"].tolist() == [[1, 1, 1], [1, 1, 1]]
        assert self.given("flag=true", kind=TensorProto.BOOL, flag=[])["flag"].dtype == np.bool_

    def test_a_list_gives_the_sizes_too(self):
        assert self.given("ids=[[5, 6, 7]]", ids=["n", "length"])["ids"].tolist() == [[5, 6, 7]]

    def test_files(self, tmp_path):
        np.save(tmp_path / "x.npy", np.ones((1, 4), np.float32))
        np.savez(tmp_path / "all.npz", x=np.zeros((1, 4)), y=np.full((1, 2), 3))
        alone = self.given(f"x={tmp_path / 'x.npy'}", kind=TensorProto.FLOAT, x=["n", 4])
        assert alone["x"].tolist() == [[1, 1, 1, 1]]
        both = self.given(str(tmp_path / "all.npz"), kind=TensorProto.FLOAT, x=["n", 4], y=["n", 2])
        assert (both["x"].dtype, both["y"].tolist()) == (np.float32, [[3, 3]])

    def test_the_rest_is_made_up_as_a_timer_makes_it(self):
        assert self.given(x=["n", 4])["x"].tolist() == [[0, 0, 0, 0]]
        floats = self.given(kind=TensorProto.FLOAT, x=["n", 4])["x"]
        assert 0 <= floats.min() < floats.max() < 1

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("rate", "must be INPUT=VALUE"),
            ("=3", "must be INPUT=VALUE"),
            ("rate=fast", "is no number, and no list of numbers"),
            ("rate=[[1],[2,3]]", "no list of numbers"),
            ('rate="a"', "isn't made of numbers alone"),
            ("rate=nowhere.npy", "nowhere.npy can't be read"),
            ("nowhere.npz", "must be INPUT=VALUE"),
            ("rate=1.5", "don't fit the input's type, int64"),
            ("rate=[1,2]", r"--input of the sizes rate=2 doesn't fit net.onnx, which has a single number there"),
            ("rats=1", r"unknown input of net.onnx 'rats'; did you mean 'rate'\?"),
        ],
    )
    def test_a_mistake_is_told(self, text, said):
        with pytest.raises(InputError, match=said):
            self.given(text, rate=[])

    def test_a_pickle_is_not_read(self, tmp_path):
        np.save(tmp_path / "x.npy", np.array([object()]), allow_pickle=True)
        with pytest.raises(InputError, match="can't be read"):
            parse_values([f"x={tmp_path / 'x.npy'}"])

    def test_twice(self):
        with pytest.raises(InputError, match="'x' twice"):
            parse_values(["x=1", "x=2"])

    def test_sizes_and_a_value_that_differ(self):
        given = GivenInputs({"x": (1, 3)}, {"x": np.zeros((1, 4))})
        with pytest.raises(InputError, match=r"--input x has the sizes \(1, 4\), --shape says \(1, 3\)"):
            model_inputs(model_of({"x": ["n", "m"]}), FILE, 1, given)

    @pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN])
    @pytest.mark.parametrize("texts", [(), ("x=1",)], ids=["made up", "given"])
    def test_an_input_of_a_type_that_no_array_has(self, kind, texts):
        said = r"net.onnx: input 'x': inputs of type tensor\(\w+\) can't be given or made up; valid: tensor\(float\), "
        with pytest.raises(InputError, match=said):
            self.given(*texts, kind=kind, x=[1])

    @pytest.mark.parametrize(
        ("text", "said"),
        [("x=70000", "don't fit the input's type, float16"), ("x=" + "[" * 5000, r"--input x: \[{60}… is no number")],
        ids=["too large", "deep"],
    )
    def test_values_that_are_none(self, text, said):
        with pytest.raises(InputError, match=said):
            self.given(text, kind=TensorProto.FLOAT16, x=[1])

    def test_made_up_lengths_of_sequences_are_told(self):
        """All of them 0, as made-up integers are: a recurrent layer has nothing to do then."""
        model = model_of({"x": ["t", "n", 5]})
        model.graph.input.append(helper.make_tensor_value_info("l", TensorProto.INT32, ["n"]))
        model.graph.node.append(helper.make_node("GRU", ["x", "w", "r", "", "l"], ["y"], hidden_size=4))
        (note,) = model_inputs(model, FILE, 1, GivenInputs({"x": (3, 2, 5)})).notes
        assert "lengths of sequences in input 'l' are made up as 0" in note
        assert "--input l=VALUE" in note
        assert not model_inputs(model, FILE, 1, GivenInputs({"x": (3, 2, 5)}, {"l": np.array([3, 2])})).notes

    def test_infinity_may_be_given(self):
        assert np.isinf(self.given("x=Infinity", kind=TensorProto.FLOAT16, x=[1])["x"]).all()

    def test_files_that_hold_no_arrays(self, tmp_path, monkeypatch):
        """Each is told with its name; a file whose bytes are damaged only shows it when an array is read."""
        monkeypatch.chdir(tmp_path)
        np.savez("empty.npz")
        np.savez("objects.npz", x=np.array([None], dtype=object))
        np.savez("archive.npz", x=np.ones(4))
        content = bytearray(Path("archive.npz").read_bytes())
        content[200] ^= 255  # within the array's numbers
        Path("damaged.npz").write_bytes(content)
        with zipfile.ZipFile("text.npz", "w") as archive:
            archive.writestr("x.txt", b"1 2 3")
        np.save("x.npy", np.ones(4))
        Path("x.npy").rename("array.npz")
        Path("archive.npz").rename("archive.npy")
        header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999, 99999999)}"
        Path("huge.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        for text, said in (
            ("empty.npz", "empty.npz holds no arrays by name"),
            ("objects.npz", "objects.npz can't be read: it holds Python objects"),
            ("damaged.npz", "damaged.npz can't be read: Bad CRC-32"),
            ("text.npz", "'x.txt' in text.npz is no array"),
            ("array.npz", "array.npz holds no arrays by name"),
            ("x=array.npz", "array.npz holds arrays of several inputs, by name: --input array.npz"),
            ("x=archive.npy", "archive.npy isn't one array"),
            ("x=huge.npy", "huge.npy can't be read: it doesn't fit in memory"),
        ):
            with pytest.raises(InputError, match=said):
                parse_values([text])


def saved(path: Path, *sizes: str | int) -> Path:
    """A net with Mish for images of any size."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.Mish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    )
    model = plain_graph(network.eval(), (3, 8, 8))
    model.graph.ClearField("value_info")
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, sizes, strict=True):
        dim.dim_param, dim.dim_value = ("", size) if isinstance(size, int) else (size, 0)
        if isinstance(size, str):
            dim.dim_param = size
    onnx.save(model, path)
    return path


class TestTheCommand:
    @staticmethod
    def asked(hwnas: Any, model: Path, *more: object) -> Any:
        return hwnas("optimize", model, "--output", model.with_name("out.onnx"), "--seconds", "0.5", *more)

    def test_open_sizes_stay_open_in_what_is_written(self, hwnas, tmp_path):
        model = saved(tmp_path / "net.onnx", "batch", 3, "height", "width")
        result = self.asked(hwnas, model, "--shape", "input=1,3,16,24", "--json")
        document = result.document()
        assert document["shapes"] == {"input": [1, 3, 16, 24]}
        assert document["notes"] == []
        assert document["largest_difference"] <= 1e-5
        new = onnx.load(document["output"]).graph.input[0].type.tensor_type.shape
        assert [dim.dim_param or dim.dim_value for dim in new.dim] == ["batch", 3, "height", "width"]
        x = np.random.default_rng(0).standard_normal((2, 3, 9, 31)).astype(np.float32)
        old, found = (
            ort.InferenceSession(str(each), providers=["CPUExecutionProvider"]).run(None, {"input": x})[0]
            for each in (model, document["output"])
        )
        assert np.abs(old - found).max() <= 1e-5 * np.abs(old).max()

    def test_a_guess_is_told(self, hwnas, tmp_path):
        result = self.asked(hwnas, saved(tmp_path / "net.onnx", "batch", 3, "height", "width"))
        assert result.code == 0, result.stderr
        assert "note: 'height' (axis 2), 'width' (axis 3) of input 'input': taken as 224 and 224" in result.stdout

    @pytest.mark.parametrize(
        ("sizes", "more", "said"),
        [
            (("batch", "c", "h", "w"), (), "--shape input=1,C,H,W"),
            ((1, 3, 8, 8), ("--batch-size", "8"), "its batch is fixed at 1"),
            (("batch", "c", 8, 8), ("--shape", "input=1,5,8,8"), "--shape INPUT=SIZES"),
        ],
        ids=["open", "batch", "wrong"],
    )
    def test_a_mistake_is_told_before_the_work(self, hwnas, tmp_path, sizes, more, said):
        model = saved(tmp_path / "net.onnx", *sizes)
        result = self.asked(hwnas, model, *more)
        check_message(result, 2, f"{model}: ", said)
        assert "Looking for" not in result.stderr
        assert not model.with_name("out.onnx").exists()
        assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]

    def test_a_guess_that_cannot_be_run_is_part_of_the_message(self, hwnas, tmp_path):
        nodes = [helper.make_node("Reshape", ["x", "s"], ["y"]), helper.make_node("Mish", ["y"], ["z"])]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, "h", "w"])],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
            [helper.make_tensor("s", TensorProto.INT64, [2], [-1, 3 * 7 * 11])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)
        onnx.save(model, tmp_path / "net.onnx")
        result = self.asked(hwnas, tmp_path / "net.onnx")
        assert result.code == 2
        assert "sizes were guessed" in result.stderr
        assert "--shape x=1,3,H,W" in result.stderr
