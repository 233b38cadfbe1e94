"""Checks of the files beside a bundle's models: predict.py, the model card, and no strangers; no torch."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import TYPE_CHECKING, Any

import jinja2

from export.bundle import model_card
from export.bundle.manifest import (
    MANIFEST_FILE,
    MODEL_FILES,
    PREDICT_FILE,
    PREDICT_SOURCE,
    README_FILE,
    SAMPLES_FILE,
    file_record,
    section,
)
from export.bundle.regular_file import read_bounded
from export.checks import Check

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

EARLIER_PROGRAMS = frozenset(
    {
        "c66544b9be44f17372b3951de295d897de2de093cad9bb819d0f9e7089b404fe",
        "859f96b650cf5e6a95b528f35ade0e3178b3978c8c2a80a29e99fdef6f98665a",
        "a2f3299c247e6842dcbd85bb73dee8817121587ba0a71906483e22c713677b14",
        "fcc77757cc1f8addf7db3004fc1c19c63731387d6b46f1e21e701dc08536678b",
    }
)
"""SHA-256 of each predict.py that earlier builds of this version, before its release, put into bundles."""
_KNOWN_NAMES = frozenset({*MODEL_FILES, SAMPLES_FILE, README_FILE, PREDICT_FILE})
_IMPORTABLE = (".py", ".pyc", ".pyd", ".so")
_LONGEST_QUOTE = 90
_MOST_FILES = 10_000
_LARGEST_CARD = 10**6
_MOST_NAMED = 10
# Errors of a template on facts of other types than it expects.
_RENDER_ERRORS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


def check_others(directory: Path, manifest: Mapping[str, Any]) -> Check:
    """Check that no further file would be taken for a part of the bundle.

    Such files are Python modules beside predict.py, which would import them in place of the library of that name, and
    unlisted files with one of the bundle's own names. Notes and the like do no harm: they are mentioned, not judged.
    """
    name = "other files"
    listed = set(section(manifest, "files")) | {MANIFEST_FILE}
    present = sorted(islice(_files_below(directory), _MOST_FILES + 1))
    if len(present) > _MOST_FILES:
        return Check(name, False, f"more than {_MOST_FILES:,} files and links lie in the folder")
    modules = [file for file in present if _is_module(directory / file, file)]
    if modules:
        return Check(name, False, f"{_some(modules)}: {PREDICT_FILE} would import it in the place of a library's")
    unlisted = [file for file in present if file not in listed]
    if taken := [file for file in unlisted if file in _KNOWN_NAMES]:
        return Check(name, False, f"{_some(taken)}: named like a part of the bundle, but the manifest lists none")
    if unlisted:
        return Check(name, None, f"skipped: the manifest doesn't vouch for {_some(unlisted)}")
    return Check(name, True, "none")


def _files_below(directory: Path) -> Iterator[str]:
    """Names of all files, links and special files in a folder and below, relative to it; no link is followed."""
    folders = [""]
    while folders:
        inner = folders.pop()
        try:
            with os.scandir(directory / inner) as found:
                entries = list(islice(found, _MOST_FILES + 1))
        except OSError:  # a folder that may not be read is named like a file
            yield inner.rstrip("/")
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{inner}{entry.name}/")
            else:
                yield f"{inner}{entry.name}"


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_module(path: Path, name: str) -> bool:
    """Whether a program in the bundle's folder could import the file, as a module or as a package's first file."""
    *folders, file = name.split("/")
    if path.is_dir():
        return not folders  # only links come here: to a package, perhaps
    module = file.endswith(_IMPORTABLE) and name != PREDICT_FILE
    return module and (not folders or (len(folders) == 1 and file.startswith("__init__.")))


def check_predict(directory: Path, manifest: Mapping[str, Any]) -> Check:
    """Check that predict.py is this version's own, where this version of hwnas made the bundle."""
    if PREDICT_FILE not in section(manifest, "files"):
        return Check(PREDICT_FILE, None, "skipped: the bundle has none")
    try:
        found = file_record(directory / PREDICT_FILE)
        same = found == file_record(PREDICT_SOURCE)
    except OSError as error:
        return Check(PREDICT_FILE, None, f"skipped: it can't be read ({error})")
    if same:
        return Check(PREDICT_FILE, True, "the one that this version of hwnas puts into bundles")
    if found["sha256"] in EARLIER_PROGRAMS:
        return Check(PREDICT_FILE, True, "the one that an earlier build of this version put into bundles")
    if (other := _made_by_another(manifest)) is not None:
        return Check(PREDICT_FILE, None, f"skipped: {other}, whose predict.py isn't at hand")
    made_by = section(manifest, "versions")["hwnas"]
    return Check(PREDICT_FILE, False, f"it isn't the one that hwnas {made_by}, which made the bundle, puts there")


def check_card(directory: Path, manifest: Mapping[str, Any], image_shape: tuple[int, ...] | None) -> Check:
    """Check that the model card, rendered again from the manifest, has the same words."""
    name = "model card"
    files = section(manifest, "files")
    if README_FILE not in files:
        return Check(name, None, "skipped: the bundle has none")
    if image_shape is None:
        return Check(name, None, f"skipped: {SAMPLES_FILE}, of which it tells, can't be read")
    try:
        found = read_bounded(directory, README_FILE, _LARGEST_CARD).decode("utf-8")
        sizes = {model: (directory / model).stat().st_size for model in MODEL_FILES if model in files}
    except (OSError, ValueError) as error:
        return Check(name, False, f"{README_FILE} can't be set against the manifest ({error})")
    try:
        wanted = model_card.render(manifest, image_shape, sizes)
    except _RENDER_ERRORS as error:
        return Check(name, False, f"the manifest's facts give no card ({type(error).__name__}: {error})")
    if found == wanted:
        return Check(name, True, f"{README_FILE} says what the manifest says")
    if (other := _made_by_another(manifest)) is not None:
        return Check(name, None, f"skipped: {other}, which words cards in its own way")
    return Check(name, False, f"{README_FILE} isn't what the manifest gives: {_first_difference(found, wanted)}")


def _made_by_another(manifest: Mapping[str, Any]) -> str | None:
    """A phrase for a bundle of another or an unknown version of hwnas; None where this version made it."""
    made_by = section(manifest, "versions").get("hwnas")
    try:
        own = version("hwnas")
    except PackageNotFoundError:  # imported from a folder, without having been installed
        return "this version of hwnas isn't known"
    if not isinstance(made_by, str):
        return "the manifest doesn't tell which version of hwnas made the bundle"
    return None if made_by == own else f"the bundle was made by hwnas {made_by}, this is {own}"


def _first_difference(found: str, wanted: str) -> str:
    ours, theirs = found.splitlines(), wanted.splitlines()
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    said, given = (_quoted(lines[at]) if at < len(lines) else "nothing" for lines in (ours, theirs))
    return f"line {at + 1} is {said}, the manifest gives {given}"


def _quoted(line: str) -> str:
    return repr(line if len(line) <= _LONGEST_QUOTE else f"{line[: _LONGEST_QUOTE - 1]}…")
