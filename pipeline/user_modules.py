"""Modules of the user's own, which a config names by dotted paths: where they may lie, and how they are imported.

They lie in the working folder or in the one of `--code`, and are found behind all that is installed. `sys.path` stays
as it is: from these folders only the modules that are named are imported, and what these import themselves. A run or a
bundle may be a stranger's, so names in one reach neither its own folder nor what is installed for other ends.
"""

from __future__ import annotations

import importlib
import importlib.util
import site
import sys
import sysconfig
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pipeline.errors import HwnasError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import FrameType, ModuleType

Reach = Literal["built-ins", "plug-ins", "modules"]
"""What names may stand for: rows of the tables alone; entry points of installed packages, too; dotted paths, too."""

PLUGINS = "hwnas."
"""Beginning of the groups of entry points by which installed packages offer something to hwnas."""

_MACHINERY = ("importlib", "_frozen_importlib", "_frozen_importlib_external")
_OURS = ("pipeline", "export", "latency_models", "hwnas")


@dataclass(frozen=True)
class NameSource:
    """The place that names come from, and what they may stand for.

    Attributes:
        folder: of `--code`; None for the working folder.
        given: the run's or bundle's folder that the names are read from; None for the user's own config.
        reach: what the names may stand for.
    """

    folder: Path | None = None
    given: Path | None = None
    reach: Reach = "modules"

    def as_json(self) -> dict[str, Any]:
        """The source for a process that goes on with it."""
        folders = {"folder": self.folder, "given": self.given}
        return {name: None if path is None else str(path) for name, path in folders.items()} | {"reach": self.reach}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The source of another process."""
        folder, given = (None if document[name] is None else Path(document[name]) for name in ("folder", "given"))
        return cls(folder, given, document["reach"])

    @property
    def modules_folder(self) -> Path:
        """The folder of the user's own modules."""
        return Path.cwd() if self.folder is None else self.folder


_SOURCE: ContextVar[NameSource] = ContextVar("name source")
_USERS = NameSource()


def current_source() -> NameSource:
    """The source of names of the command that runs now."""
    return _SOURCE.get(_USERS)


@contextmanager
def names_from(source: NameSource) -> Iterator[None]:
    """Have names come from a source, as long as the context lasts.

    Raises:
        HwnasError: the folder of `--code` is none, or lies in the run's or bundle's.
    """
    if source.folder is not None:
        if not source.folder.is_dir():
            raise HwnasError(f"--code {source.folder}: there is no such folder")
        if source.given is not None and _inside(source.folder, source.given):
            raise HwnasError(
                f"--code {source.folder} lies in {source.given}, and nothing is imported from a run's or bundle's "
                "folder: read it, copy it elsewhere, and name that folder"
            )
    token = _SOURCE.set(source)
    try:
        yield
    finally:
        _SOURCE.reset(token)


def import_named(path: str) -> Any:
    """Import what a dotted path `package.module:attribute` stands for.

    Raises:
        HwnasError: its place is none that the current source may import from.
        Exception: whatever the module raises while it is imported, AttributeError where it lacks the attribute.
    """
    name, _, attribute = path.partition(":")
    return getattr(_imported(name, current_source()), attribute)


def _imported(name: str, source: NameSource) -> ModuleType:
    top = name.partition(".")[0]
    _FINDER.leave_all_but(source.modules_folder)
    spec = _spec(top)
    own = _FINDER.has(top)
    if spec is None and top not in sys.modules:
        spec = PathFinder.find_spec(top, [str(source.modules_folder)])
        own = spec is not None
    if source.given is not None:
        _check(name, top, spec, source)
    if own:
        _FINDER.add(top, source.modules_folder)
    return importlib.import_module(name)


def _check(name: str, top: str, spec: ModuleSpec | None, source: NameSource) -> None:
    """Refuse a module that a run or a bundle may not name; nothing of it is run for that.

    Raises:
        HwnasError: naming the module and the way out.
    """
    folder = source.modules_folder
    if spec is None:
        raise ModuleNotFoundError(f"No module named {name!r} in {folder}; --code names another folder")
    if _is_installed(top, spec) and top not in _plugins():
        raise HwnasError(
            f"{source.given} names the module {name}, which is installed and offers nothing to hwnas by an entry "
            "point; a run may name modules of the working folder or of --code FOLDER alone"
        )
    for part in name.split(".")[1:]:
        if _lies_in(spec, source.given):
            break
        found = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations or [])
        if found is None:
            raise ModuleNotFoundError(f"No module named '{spec.name}.{part}' in {folder}; --code names another folder")
        spec = found
    if _lies_in(spec, source.given):
        raise HwnasError(
            f"the module {name} lies in {source.given}, and nothing is imported from a run's or bundle's folder: "
            "read it, copy it elsewhere, and name that folder with --code"
        )


def _spec(top: str) -> ModuleSpec | None:
    """Where a module is found, or was; None where it isn't, or where it is the program itself."""
    try:
        return importlib.util.find_spec(top)
    except ValueError:  # `__main__` has none
        return None


def _places(spec: ModuleSpec | None) -> list[Path]:
    """The file of a module and the folders of a package; empty where it is built in."""
    if spec is None:
        return []
    files = [spec.origin] if spec.has_location and spec.origin else []
    return [Path(place) for place in (*files, *(spec.submodule_search_locations or ()))]


def _lies_in(spec: ModuleSpec, folder: Path | None) -> bool:
    return folder is not None and any(_inside(place, folder) for place in _places(spec))


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _is_installed(top: str, spec: ModuleSpec) -> bool:
    """Whether a module belongs to Python, to hwnas or to an installed package, not to a folder of the user's."""
    places = _places(spec)
    return top in _OURS or not places or any(_inside(place, home) for place in places for home in _installed())


@cache
def _installed() -> tuple[Path, ...]:
    """The folders of the standard library and of installed packages."""
    standard = [sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple({Path(each) for each in (*standard, *site.getsitepackages(), site.getusersitepackages())})


@cache
def _plugins() -> frozenset[str]:
    """Top modules of what installed packages offer to hwnas."""
    groups = [group for group in entry_points().groups if group.startswith(PLUGINS)]
    return frozenset(point.module.partition(".")[0] for group in groups for point in entry_points(group=group))


@dataclass
class _OwnModules(MetaPathFinder):
    """The last of the finders: it finds modules that were named, and what these import."""

    _folders: dict[str, str] = field(default_factory=dict)  # by the top modules that were named or found

    def has(self, name: str) -> bool:
        """Whether a module is the user's own."""
        return name in self._folders

    def add(self, name: str, folder: Path) -> None:
        """Find a module in a folder from now on."""
        if self not in sys.meta_path:
            sys.meta_path.append(self)
        self._folders[name] = str(folder)

    def leave_all_but(self, folder: Path) -> None:
        """Forget the modules of other folders: one of the same name is another one.

        Args:
            folder: of the user's own modules from now on.
        """
        for name in [name for name, place in self._folders.items() if place != str(folder)]:
            del self._folders[name]
            for loaded in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
                del sys.modules[loaded]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a top module; those of packages are found by Python itself."""
        if path is not None:
            return None
        folder = self._folders.get(fullname) or self._folders.get(_importing())
        spec = None if folder is None else PathFinder.find_spec(fullname, [folder])
        if folder is not None and spec is not None:
            self._folders[fullname] = folder
        return spec


def _importing() -> str:
    """The top name of the module whose code asks for an import now."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if top not in _MACHINERY:
            return top
        frame = frame.f_back
    return ""


_FINDER = _OwnModules()
