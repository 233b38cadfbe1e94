"""A strict reader of YAML files that people write, with one sentence for each way in which reading fails.

What a file may cost is bounded before it is parsed: its size, how deep it is nested (PyYAML's time grows with the
square of it), and what its aliases stand for when they are written out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import ConstructorError
from yaml.reader import ReaderError
from yaml.scanner import ScannerError

from latency_models.errors import CostError
from latency_models.files import read_file
from latency_models.timer import one_line

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

MOST_BYTES = 256 * 1024
"""Of a file; configs and definitions of devices have a few thousand."""
_DEEPEST = 32
_MOST_WRITTEN_OUT = 500_000
_LONGEST_QUOTE = 200
_MOST_BITS = 1024
# A tag on a value that it doesn't fit: `!!int x`, `!!timestamp x`, a date in the thirteenth month.
_UNFITTING = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


class UnreadableYamlError(CostError):
    """A file is missing, unreadable, or no YAML; the message leaves out the file's name."""


class StrictLoader(yaml.SafeLoader):
    """A loader of safe YAML that refuses a key given twice, and what would cost far more than it is long."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level >= _DEEPEST:
            raise ScannerError(None, None, f"brackets are nested more than {_DEEPEST} deep", self.get_mark())
        super().fetch_flow_collection_start(token)

    def add_indent(self, column: int) -> bool:
        if len(self.indents) > _DEEPEST:
            raise ScannerError(None, None, f"it is nested more than {_DEEPEST} deep", self.get_mark())
        return bool(super().add_indent(column))

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _written_out(node, {}) > _MOST_WRITTEN_OUT:
            raise ConstructorError(None, None, "its aliases stand for far more than the file holds", node.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            found = super().construct_object(node, deep)
        except _UNFITTING as error:
            what = node.value if isinstance(node, yaml.ScalarNode) else type(node).__name__
            raise ConstructorError(None, None, f"{shown(what)} is no {_tag(node)}", node.start_mark) from error
        if isinstance(found, int) and found.bit_length() > _MOST_BITS:  # Python spells out no number of any length
            raise ConstructorError(None, None, "a number of hundreds of digits", node.start_mark)
        return found

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise ConstructorError(None, None, f"the key {shown(key.value)} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, loader: type[StrictLoader] = StrictLoader) -> object:
    """The document in a YAML file.

    Raises:
        UnreadableYamlError: the file can't be read; its cause is the error of Python or of the YAML reader.
    """
    try:
        text = read_file(path, MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableYamlError(f"can't be read: {_system_said(error)}") from error
    return parse_yaml(text, loader)


def parse_yaml(text: str, loader: type[StrictLoader] = StrictLoader) -> object:
    """The document in a text.

    Raises:
        UnreadableYamlError: it is no YAML, or one that costs too much; its cause is the YAML reader's error.
    """
    try:
        return yaml.load(text, loader)  # noqa: S506 - a SafeLoader
    except RecursionError as error:
        raise UnreadableYamlError("is nested too deeply to be read as YAML") from error
    except ReaderError as error:
        what = f"the character #x{ord(error.character) if isinstance(error.character, str) else error.character:04x}"
        raise UnreadableYamlError(f"no valid YAML: {what} at position {error.position} isn't allowed in it") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = one_line(getattr(error, "problem", error))
        if problem.startswith("but "):  # the first half of the sentence is kept elsewhere
            problem = f"{getattr(error, 'context', '')}, {problem}"
        raise UnreadableYamlError(f"{where}no valid YAML: {problem}") from error
    except _UNFITTING as error:
        raise UnreadableYamlError(f"no valid YAML: {one_line(error)}") from error


def _written_out(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """The length of a node with all aliases in it written out, in characters and values.

    An alias comes behind what it stands for, so recursion goes no deeper than the text is nested.
    """
    if node in known:
        if known[node] == 0:
            raise ConstructorError(None, None, "an alias stands for a part that it is itself in", node.start_mark)
        return known[node]
    known[node] = 0
    if isinstance(node, yaml.ScalarNode):
        length = 1 + len(node.value)
    elif isinstance(node, yaml.MappingNode):
        length = 1 + sum(_written_out(key, known) + _written_out(value, known) for key, value in node.value)
    else:
        length = 1 + sum(_written_out(each, known) for each in node.value)
    known[node] = length
    return length


def shown(value: object) -> str:
    """A value that somebody wrote as messages show it: as Python spells it, and not at any length."""
    text = repr(value)
    return text if len(text) <= _LONGEST_QUOTE else f"{text[: _LONGEST_QUOTE - 1]}…"


def _tag(node: yaml.Node) -> str:
    return str(node.tag).replace("tag:yaml.org,2002:", "!!")


def _system_said(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or one_line(error) if isinstance(error, OSError) else one_line(error)
