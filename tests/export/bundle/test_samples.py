"""samples.npz: read in batches, and refused where it would unpack to more than it is, or holds something else."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle.samples import ARCHIVE_ERRORS, SampleFile

COUNT = 70
ARRAYS: dict[str, Any] = {
    "inputs": np.random.default_rng(0).standard_normal((COUNT, 3, 4, 5), dtype=np.float32),
    "outputs": np.random.default_rng(1).standard_normal((COUNT, 7), dtype=np.float32),
    "images": np.random.default_rng(2).integers(0, 256, (COUNT, 4, 5, 3), dtype=np.uint8),
}


def written(folder: Path, **changes: Any) -> Path:
    np.savez(folder / "samples.npz", **{name: a for name, a in (ARRAYS | changes).items() if a is not None})
    return folder


def read(folder: Path) -> None:
    with SampleFile(folder) as samples:
        list(samples.pairs("inputs", "images"))


def refusal(folder: Path) -> str:
    with pytest.raises(ARCHIVE_ERRORS) as error:
        read(folder)
    return str(error.value)


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_batches_are_the_arrays(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "samples.npz", **ARRAYS)
    with SampleFile(tmp_path) as samples:
        assert samples.count == COUNT
        assert samples.image_shape == (COUNT, 4, 5, 3)
        assert samples.input_shape == (COUNT, 3, 4, 5)
        assert "outputs_int8" not in samples
        parts = list(samples.pairs("inputs", "images"))
    assert [len(inputs) for inputs, _ in parts] == [64, 6]
    np.testing.assert_array_equal(np.concatenate([inputs for inputs, _ in parts]), ARRAYS["inputs"])
    np.testing.assert_array_equal(np.concatenate([images for _, images in parts]), ARRAYS["images"])


def test_arrays_by_columns_are_the_arrays(tmp_path: Path) -> None:
    written(tmp_path, outputs=np.asfortranarray(ARRAYS["outputs"]), outputs_int8=ARRAYS["outputs"])
    with SampleFile(tmp_path) as samples:
        for by_columns, by_rows in samples.pairs("outputs", "outputs_int8"):
            np.testing.assert_array_equal(by_columns, by_rows)


def test_large_inputs_come_two_at_a_time(tmp_path: Path) -> None:
    written(tmp_path, inputs=np.zeros((COUNT, 1, 512, 512), np.float32))
    with SampleFile(tmp_path) as samples:
        assert {len(first) for first, _ in samples.pairs("inputs", "images")} == {2}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": None}, "no array 'images'"),
        ({"images": ARRAYS["images"][:3]}, "3 images"),
        ({"images": ARRAYS["images"].astype(np.uint16)}, "'images' is of type uint16"),
        ({"inputs": np.array([{}])}, "pickle"),
        ({"inputs": np.array(["a"])}, "of type <U1"),
        ({"inputs": np.float32(3)}, "the shape ()"),
        ({"inputs": np.zeros((COUNT, 0), np.float32)}, "the shape (70, 0)"),
        ({"outputs": np.zeros(COUNT, [("a", "<f4")])}, "of type [('a', '<f4')]"),
    ],
    ids=str,
)
def test_other_arrays_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in refusal(written(tmp_path, **changes))


class TestWhatUnpacksToMore:
    def test_zeros_that_were_compressed(self, tmp_path: Path) -> None:
        many = {name: np.broadcast_to(array[:1] * 0, (60_000, *array.shape[1:])) for name, array in ARRAYS.items()}
        np.savez_compressed(tmp_path / "samples.npz", **many)
        assert "times its size" in refusal(tmp_path)

    def test_a_header_that_promises_more_than_there_is(self, tmp_path: Path) -> None:
        written(tmp_path, inputs=None)
        with zipfile.ZipFile(tmp_path / "samples.npz", "a") as archive:
            archive.writestr("inputs.npy", header((COUNT, 10**9)) + bytes(100))
        assert "but has" in refusal(tmp_path)

    def test_a_format_whose_header_has_any_length(self, tmp_path: Path) -> None:
        written(tmp_path, inputs=None)
        with zipfile.ZipFile(tmp_path / "samples.npz", "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inputs.npy", b"\x93NUMPY\x02\x00" + struct.pack("<L", 10**7) + bytes(10**7))
        assert "format 2.0" in refusal(tmp_path)

    def test_a_directory_of_many_files(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "samples.npz", "w") as archive:
            for number in range(2000):
                archive.writestr(f"{number}.npy", b"")
        assert "the archive's directory is said to have" in refusal(tmp_path)


def test_one_sample_that_is_too_large(tmp_path: Path) -> None:
    assert "one of its samples has" in refusal(written(tmp_path, inputs=np.zeros((COUNT, 3, 1200, 1200), np.float32)))


def test_a_changed_number_fails_the_archives_own_checksum(tmp_path: Path) -> None:
    content = bytearray(written(tmp_path).joinpath("samples.npz").read_bytes())
    at = content.index(ARRAYS["inputs"][50].tobytes())
    content[at] ^= 1
    (tmp_path / "samples.npz").write_bytes(content)
    assert "CRC" in refusal(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    written(tmp_path).joinpath("samples.npz").rename(tmp_path / "elsewhere.npz")
    (tmp_path / "samples.npz").symlink_to(tmp_path / "elsewhere.npz")
    assert "is a link" in refusal(tmp_path)
