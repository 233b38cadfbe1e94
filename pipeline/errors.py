"""All errors that a user may meet, with one base class, their fields and an exit code."""

from __future__ import annotations

import difflib
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING

from export.errors import CustomActivationError, UnknownActivationError
from latency_models.errors import CostError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

EXIT_OWN_FAULT = 1
EXIT_USER_MISTAKE = 2
EXIT_CHECK_FAILED = 3
EXIT_INTERRUPTED = 130


class HwnasError(Exception):
    """Base of the errors that are shown as one message, without a traceback."""

    exit_code = EXIT_USER_MISTAKE


class ConfigError(HwnasError):
    """A config that can't be used: wrong key, value or type, or a missing file.

    Args:
        source: the file, or the option, that the value came from.
        problems: one sentence for each mistake, starting with its key path.
    """

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        head = f"{source}: "
        text = self.problems[0] if len(self.problems) == 1 else "".join(f"\n  {p}" for p in self.problems)
        super().__init__(head + text)


class UnknownNameError(HwnasError):
    """A name that is in no table, with the nearest valid one and all of them."""

    def __init__(self, kind: str, found: str, valid: Iterable[str]) -> None:
        self.kind, self.found, self.valid = kind, found, tuple(valid)
        super().__init__(f"unknown {kind} {found!r}{nearest(found, self.valid)}")


class DataError(HwnasError):
    """A data set that is missing, incomplete or damaged."""


class RunDirectoryError(HwnasError):
    """A run directory that can't be used: not one, in use, or made by another config."""


class JournalError(HwnasError):
    """A journal that is damaged or doesn't belong to its config."""

    exit_code = EXIT_CHECK_FAILED


class RunGoneError(HwnasError):
    """A run whose folder or journal was deleted, moved or replaced while it was worked on."""

    exit_code = EXIT_CHECK_FAILED


class StorageError(HwnasError):
    """A system that refuses to write: the disk is full, read-only or broken. What is there already is whole.

    Args:
        said: what couldn't be written, or how the work goes on.
        reason: in words, such as `the disk is full`.
    """

    def __init__(self, said: str, reason: str) -> None:
        self.reason = reason
        super().__init__(said)


class CheckpointError(HwnasError):
    """Weights that are damaged or belong to another architecture."""

    exit_code = EXIT_CHECK_FAILED


class ReferencesError(HwnasError):
    """A damaged record of a run's reference points."""

    exit_code = EXIT_CHECK_FAILED


class EvaluatorError(HwnasError):
    """An evaluator that returns something else than an accuracy."""


class ReadingError(HwnasError):
    """A cost that the device measures, but didn't give this time."""


class UnknownTrialError(HwnasError):
    """A pick that names no finished trial of the run."""


class NothingFeasibleError(HwnasError):
    """A search in which no candidate keeps the limits.

    Args:
        reason: in words, with the nearest miss.
        run_dir: of the trials.
    """

    exit_code = EXIT_CHECK_FAILED

    def __init__(self, reason: str, run_dir: Path) -> None:
        self.reason, self.run_dir = reason, run_dir
        super().__init__(f"{reason}\nThe trials: hwnas trials {shlex.quote(str(run_dir))}")


class Interrupted(HwnasError):  # noqa: N818 - a stop that was asked for is no error
    """An interruption by the user or the system, after which the work can go on.

    Args:
        words: of the command that goes on, unquoted.
    """

    exit_code = EXIT_INTERRUPTED

    def __init__(self, *words: str) -> None:
        super().__init__(f"interrupted; go on with: {shlex.join(('hwnas', *words))}")


def nearest(found: str, valid: Iterable[str]) -> str:
    """The end of a message about a wrong name: the nearest valid one and all of them."""
    names = list(valid)
    close = difflib.get_close_matches(found, names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{hint} valid: {', '.join(names)}"


@contextmanager
def config_errors_at(source: str, key: str, more: str = "") -> Iterator[None]:
    """Turn errors of this and other packages into a `ConfigError` with the source and the key of the mistake."""
    try:
        yield
    except ConfigError:
        raise
    except (UnknownActivationError, CustomActivationError) as error:
        raise ConfigError(source, [f"{key}.activations: {error}"]) from error
    except (CostError, HwnasError) as error:
        if error.exit_code == EXIT_CHECK_FAILED:  # a damaged file is no mistake in the config that names it
            raise
        raise ConfigError(source, [f"{key}: {error}{more}"]) from error
