"""Are the files beside a bundle's models those that were put there: predict.py, the card, and no others; no torch."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
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
from export.checks import Check

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_KNOWN_NAMES = frozenset({*MODEL_FILES, SAMPLES_FILE, README_FILE, PREDICT_FILE})
_IMPORTABLE = (".py", ".pyc", ".pyd", ".so")
_LONGEST_QUOTE = 90
# What a template raises on facts of other types than it expects.
_RENDER_ERRORS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


def check_others(directory: Path, manifest: Mapping[str, Any]) -> Check:
    """No further file stands where something would take it for a part of the bundle.

    That is a Python module beside predict.py, which would find it in the place of the library of that name, and a file
    with one of the bundle's own names that the manifest doesn't list. Notes and the like do no harm: they are told of,
    not judged.
    """
    name = "other files"
    listed = set(section(manifest, "files")) | {MANIFEST_FILE}
    paths = [path for path in directory.rglob("*") if path.is_file() or path.is_symlink()]
    present = sorted(path.relative_to(directory).as_posix() for path in paths)
    modules = [file for file in present if _is_module(directory / file, file)]
    if modules:
        return Check(name, False, f"{', '.join(modules)}: {PREDICT_FILE} would import it in the place of a library's")
    unlisted = [file for file in present if file not in listed]
    if taken := [file for file in unlisted if file in _KNOWN_NAMES]:
        return Check(name, False, f"{', '.join(taken)}: named like a part of the bundle, but the manifest lists none")
    if unlisted:
        return Check(name, None, f"skipped: the manifest doesn't vouch for {', '.join(unlisted)}")
    return Check(name, True, "none")


def _is_module(path: Path, name: str) -> bool:
    """Whether a program in the bundle's folder could import it: a module, or the beginning of a package."""
    *folders, file = name.split("/")
    if path.is_dir():
        return not folders  # only links come here: to a package, perhaps
    module = file.endswith(_IMPORTABLE) and name != PREDICT_FILE
    return module and (not folders or (len(folders) == 1 and file.startswith("__init__.")))


def check_predict(directory: Path, manifest: Mapping[str, Any]) -> Check:
    """predict.py is the one that this version of hwnas puts into bundles, where that version made the bundle."""
    if PREDICT_FILE not in section(manifest, "files"):
        return Check(PREDICT_FILE, None, "skipped: the bundle has none")
    try:
        same = file_record(directory / PREDICT_FILE) == file_record(PREDICT_SOURCE)
    except OSError as error:
        return Check(PREDICT_FILE, None, f"skipped: it can't be read ({error})")
    if same:
        return Check(PREDICT_FILE, True, "the one that this version of hwnas puts into bundles")
    if (other := _made_by_another(manifest)) is not None:
        return Check(PREDICT_FILE, None, f"skipped: {other}, whose predict.py isn't at hand")
    made_by = section(manifest, "versions")["hwnas"]
    return Check(PREDICT_FILE, False, f"it isn't the one that hwnas {made_by}, which made the bundle, puts there")


def check_card(directory: Path, manifest: Mapping[str, Any], image_shape: tuple[int, ...] | None) -> Check:
    """The model card says what the manifest says: written again from it, it has the same words."""
    name = "model card"
    files = section(manifest, "files")
    if README_FILE not in files:
        return Check(name, None, "skipped: the bundle has none")
    if image_shape is None:
        return Check(name, None, f"skipped: {SAMPLES_FILE}, of which it tells, can't be read")
    try:
        found = (directory / README_FILE).read_text(encoding="utf-8")
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
    """Who else made the bundle, in words; None where this version did."""
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
