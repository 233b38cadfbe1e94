"""YAML that may be anybody's: one sentence for each fault, and no file that costs far more than it is long."""

import os
import time
from pathlib import Path

import pytest

from latency_models.strict_yaml import MOST_BYTES, UnreadableYamlError, parse_yaml, read_yaml


def refusal(text: str) -> str:
    began = time.monotonic()
    with pytest.raises(UnreadableYamlError) as error:
        parse_yaml(text)
    assert time.monotonic() - began < 5
    message = str(error.value)
    assert len(message) < 400
    assert "\n" not in message
    return message


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = f"a: &a {{b: 1}}\nm: &m {{<<: [{', '.join(['*a'] * 20_000)}]}}\nn: [{', '.join(['*m'] * 50)}]"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 5000, "brackets are nested more than 32 deep"),
        ("{a: " * 5000, "brackets are nested more than 32 deep"),
        ("- " * 5000, "nested more than 32 deep"),
        ("".join(f"{'  ' * depth}a:\n" for depth in range(100)), "nested more than 32 deep"),
        (LAUGHS, "aliases stand for far more"),
        (MERGES, "aliases stand for far more"),
        ("a: &a [*a]", "a part that it is itself in"),
        ("a: &a {b: {<<: *a}}", "a part that it is itself in"),
        ("a: *b", "undefined alias"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: no valid YAML: the key 'a' is given twice"),
        ("a: !!int x", "'x' is no !!int"),
        ("a: !!int ''", "'' is no !!int"),
        ("a: !!float ''", "'' is no !!float"),
        ("a: !!bool maybe", "'maybe' is no !!bool"),
        ("a: !!timestamp soon", "'soon' is no !!timestamp"),
        ("a: 2001-13-45", "'2001-13-45' is no !!timestamp"),
        ("a: !!python/name:os.system x", "could not determine a constructor"),
        ("a: !mine x", "could not determine a constructor"),
        ("a: " + "1" * 5000, "is no !!int"),
        ("a: 0x" + "f" * 5000, "a number of hundreds of digits"),
        ("a: \x00", "the character #x0000 at position 3"),
        ("a: \x1b[31m", "the character #x001b at position 3"),
        ("a: \udcff", "the character #xdcff at position 3"),
        ("--- 1\n--- 2", "a single document"),
        ("? [a, b]\n: c", "unhashable key"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, words: str) -> None:
    assert words in refusal(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", None),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("base: &b {x: 1, y: 2}\nmine: {<<: *b, y: 3}", {"base": {"x": 1, "y": 2}, "mine": {"x": 1, "y": 3}}),
        ("[" * 32 + "]" * 32, None),
    ],
)
def test_what_people_write_is_read(text: str, found: object) -> None:
    read = parse_yaml(text)
    assert found is None or read == found


class TestFiles:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "a.yaml"

    def message(self, path: Path) -> str:
        with pytest.raises(UnreadableYamlError) as error:
            read_yaml(path)
        return str(error.value)

    def test_a_byte_order_mark_is_no_part_of_it(self, path: Path) -> None:
        path.write_bytes(b"\xef\xbb\xbfa: 1")
        assert read_yaml(path) == {"a": 1}

    @pytest.mark.parametrize("content", [b"a: \xff", "a: 1".encode("utf-16")])
    def test_other_encodings(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        assert "can't be read: 'utf-8' codec" in self.message(path)

    def test_a_file_of_any_size_is_not_read(self, path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(2**40)
        assert "too large" in self.message(path)
        path.write_text("#" * (MOST_BYTES + 1), encoding="utf-8")
        assert "too large" in self.message(path)

    def test_a_pipe_is_not_waited_for(self, path: Path) -> None:
        os.mkfifo(path)
        assert "is a pipe" in self.message(path)

    def test_a_folder_and_nothing(self, path: Path) -> None:
        assert "No such file" in self.message(path)
        path.mkdir()
        assert "directory" in self.message(path)
