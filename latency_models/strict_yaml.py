"""A strict reader of YAML files that people write, with one sentence for each way in which reading fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from latency_models.errors import CostError
from latency_models.timer import one_line

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path


class UnreadableYamlError(CostError):
    """A file is missing, unreadable, or no YAML; the message leaves out the file's name."""


class StrictLoader(yaml.SafeLoader):
    """A loader of safe YAML that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, loader: type[StrictLoader] = StrictLoader) -> object:
    """The document in a YAML file.

    Raises:
        UnreadableYamlError: the file can't be read; its cause is the error of Python or of the YAML reader.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), loader)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableYamlError(f"can't be read: {one_line(error)}") from error
    except RecursionError as error:
        raise UnreadableYamlError("is nested too deeply to be read as YAML") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UnreadableYamlError(f"{where}no valid YAML: {getattr(error, 'problem', error)}") from error
    except ValueError as error:  # a date in the thirteenth month, a number of thousands of digits
        raise UnreadableYamlError(f"no valid YAML: {one_line(error)}") from error
