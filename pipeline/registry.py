"""Tables name → class or function, lazily imported, open to third parties.

A name is found in three places, in this order: the table itself, the entry points of the group `hwnas.<kind>`,
and, when it holds a colon, a dotted path `package.module:attribute`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from pipeline.errors import HwnasError, UnknownNameError
from pipeline.user_modules import PLUGINS, current_source, import_named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Entry:
    """One row of a table.

    Attributes:
        path: `module:attribute` of the class or function; imported when it is used.
        description: what it is, in one line.
        options: `module:attribute` of the model of its config section, for kinds that have one.
    """

    path: str
    description: str
    options: str = ""

    def options_model(self) -> Any:
        """The model of the config section, imported now."""
        module, _, attribute = self.options.partition(":")
        return getattr(importlib.import_module(module), attribute)


def is_dotted(name: str) -> bool:
    """Whether a name is a dotted path (`package.module:attribute`) rather than a table's key."""
    return ":" in name


def third_party(kind: str) -> list[str]:
    """Names that installed packages add to the table of a kind, by entry points."""
    return sorted(point.name for point in entry_points(group=f"{PLUGINS}{kind}"))


def make(kind: str, name: str, table: Mapping[str, Entry], *arguments: Any) -> Any:
    """Make what a name stands for, by calling its class or function with the arguments.

    Raises:
        HwnasError: the name is unknown, or a third party's class or function failed.
    """
    factory = load(kind, name, table)
    if name in table:
        return factory(*arguments)
    try:
        return factory(*arguments)
    except HwnasError:
        raise
    except Exception as error:  # somebody else's code may raise anything
        raise HwnasError(f"{kind} {name!r} can't be made: {type(error).__name__}: {error}") from error


def load(kind: str, name: str, table: Mapping[str, Entry]) -> Any:
    """Import the class or function that a name stands for.

    Raises:
        UnknownNameError: the name is in no table and is no dotted path.
        HwnasError: a dotted path that can't be imported, or that can't be called.
    """
    if name in table:
        module, _, attribute = table[name].path.partition(":")
        return _called_for(kind, name, lambda: getattr(importlib.import_module(module), attribute))
    source = current_source()
    for point in entry_points(group=f"{PLUGINS}{kind}"):
        if point.name == name:
            if source.reach == "built-ins":
                raise HwnasError(f"{kind} {name!r} is a plug-in's, and none is loaded on the word of {source.given}")
            return _called_for(kind, name, point.load)
    if is_dotted(name):
        if source.reach != "modules":
            raise HwnasError(f"{kind} {name!r} is a module's, and none is imported on the word of {source.given}")
        found = _called_for(kind, name, lambda: import_named(name))
        if not callable(found):
            raise HwnasError(f"{kind} {name!r} is something of type {type(found).__name__}, not a class or function")
        return found
    raise UnknownNameError(kind, name, table)


def _called_for(kind: str, name: str, load_it: Callable[[], Any]) -> Any:
    """Call a loader; a third party's module may raise anything while it is imported."""
    try:
        return load_it()
    except Exception as error:
        said = str(error) if isinstance(error, HwnasError) else f"{type(error).__name__}: {error}"
        raise HwnasError(f"{kind} {name!r} can't be imported: {said}") from error
