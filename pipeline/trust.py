"""What a command may do with a folder that somebody gave the user: a run or a bundle.

The table `RIGHTS` says it, and `given_folder` has it enforced where names are imported (`pipeline.registry`), where
files are written (`pipeline.files`), and for the device here. docs/security.md shows the same table to users.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latency_models.errors import DeviceError
from pipeline.config.device import check_on_a_word
from pipeline.files import sealed
from pipeline.user_modules import NameSource, current_source, names_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pipeline.config.device import DeviceOptions
    from pipeline.user_modules import Reach


@dataclass(frozen=True)
class Rights:
    """Rights of a command on a given folder.

    Attributes:
        reach: what names in its config or manifest may stand for.
        uses_device: whether the device of its config or manifest is used, if this isn't left to the user's own file.
        writes: names of the files that are written into it; None where the command goes on with it, or writes elsewhere
            where the user says.
    """

    reach: Reach
    uses_device: bool
    writes: frozenset[str] | None


_LOOKS = Rights("built-ins", uses_device=False, writes=frozenset())
_GOES_ON = Rights("modules", uses_device=True, writes=None)
_BEGINS_ANEW = Rights("modules", uses_device=True, writes=None)

RIGHTS: Mapping[str, Rights] = {
    "trials": _LOOKS,
    "report": Rights("built-ins", uses_device=False, writes=frozenset({"report.html"})),
    "verify": Rights("plug-ins", uses_device=True, writes=frozenset()),
    "predict --run": Rights("modules", uses_device=True, writes=frozenset()),
    "resume": _GOES_ON,
    "export": _GOES_ON,
    "supernet-check": _GOES_ON,
    "search": _BEGINS_ANEW,
    "calibrate": _BEGINS_ANEW,
    "bench": _BEGINS_ANEW,
}
"""By command; those of `_TAKE_A_CONFIG` get a config, which is the user's own unless it lies in a run."""

_TAKE_A_CONFIG = ("search", "calibrate", "bench")
_RUNS_OWN = "if this run is your own, --trust-device uses it as the run describes it"
_CONFIGS_OWN = "if this config is your own, copy it out of the run's folder"
_JOURNAL = "journal.sqlite"


@contextmanager
def given_folder(command: str, folder: Path, code: Path | None = None) -> Iterator[None]:
    """Have a command do no more with a folder than it may, as long as the context lasts.

    Args:
        command: of `RIGHTS`.
        folder: a run's or a bundle's.
        code: the folder of `--code`.

    Raises:
        HwnasError: the folder of `--code` is none, or lies in the given one.
    """
    rights = RIGHTS[command]
    with names_from(NameSource(code, folder.absolute(), rights.reach)):
        if rights.writes is None:
            yield
        else:
            with sealed(folder, rights.writes):
                yield


@contextmanager
def given_config(command: str, config: Path, code: Path | None = None) -> Iterator[bool]:
    """Like `given_folder` for a config, which is the user's own and may do anything unless it lies in a run.

    Yields:
        Whether it lies in a run.
    """
    if of_run := (config.parent / _JOURNAL).exists():
        with given_folder(command, config.parent, code):
            yield of_run
    else:
        with names_from(NameSource(code)):
            yield of_run


def check_device(command: str, options: DeviceOptions, trusted: bool) -> None:
    """Refuse a run's device whose use would run what the run chooses.

    Args:
        command: of `RIGHTS`.
        options: of the run's config.
        trusted: whether the user said that the run's device is theirs.

    Raises:
        DeviceError: the device is on another host or has options for a provider, and neither the user nor the user's
            own file of devices knows it.
    """
    if RIGHTS[command].uses_device and not trusted:
        check_on_a_word(options, _CONFIGS_OWN if command in _TAKE_A_CONFIG else _RUNS_OWN)


def words_that_go_on(run: Path, options: DeviceOptions) -> tuple[str, ...]:
    """The command that goes on with a run of the user's own, behind `hwnas`.

    Args:
        run: its folder.
        options: the device of its config.
    """
    words = ["resume", str(run)]
    if (code := current_source().folder) is not None:
        words += ["--code", str(code)]
    try:
        check_on_a_word(options)
    except DeviceError:
        words.append("--trust-device")
    return tuple(words)
