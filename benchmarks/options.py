"""The command line of a benchmark, an option a line, and the heading that it prints."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common import heading

Options = argparse.Namespace
Option = tuple[str, dict[str, Any]]


def begin(doc: str | None, *taken: Option, **defaults: Any) -> Options:
    """Parse the command line, then print the script's first line and the machine that it runs on."""
    found = parsed(doc, *taken, **defaults)
    heading(doc)
    return found


def parsed(doc: str | None, *taken: Option, **defaults: Any) -> Options:
    """Parse the command line; the script's docstring is its help, `defaults` replace the options' own."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, settings in taken:
        parser.add_argument(name, **settings)
    parser.set_defaults(**defaults)
    return parser.parse_args()


def option(name: str, default: Any = None, text: str = "", **settings: Any) -> Option:
    """An option of any kind, as argparse has it; a default stands behind its help."""
    if default is not None and text is not argparse.SUPPRESS:
        text = f"{text} (default: %(default)s)".strip()
    return name, {"default": default, "help": text, **settings}


def positive(name: str, default: int | None = None, text: str = "") -> Option:
    """An option that takes a whole number from 1 on."""
    return option(name, default, text, type=at_least_one)


def amount(name: str, default: float, text: str = "") -> Option:
    """An option that takes any number."""
    return option(name, default, text, type=float)


def file_path(name: str, default: Path | None = None, text: str = "", **settings: Any) -> Option:
    """An option that takes a file or a folder."""
    return option(name, default, text, type=Path, **settings)


def some_of(name: str, valid: Iterable[Any], default: Iterable[Any] | None = None, text: str = "") -> Option:
    """An option that takes some of the valid values, by default all of them."""
    values = list(valid)
    kind = type(values[0])
    chosen = list(values if default is None else default)
    return name, {"nargs": "+", "type": kind, "choices": values, "default": chosen, "help": text}


def flag(name: str, text: str = "") -> Option:
    """An option that takes no value."""
    return name, {"action": "store_true", "help": text}


def changes(text: str = "a change of the config") -> Option:
    """The option `--set KEY.PATH=VALUE`, which may be given several times."""
    return "--set", {"dest": "changes", "action": "append", "default": [], "metavar": "KEY.PATH=VALUE", "help": text}


SEED: Option = option("--seed", 0, "of everything random", type=int)


def at_least_one(text: str) -> int:
    """An argparse type: a whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value
