"""The directory of a run: created, opened, and with a place for each of its files."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shlex
import warnings
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from latency_models.files import read_file
from pipeline.config.evaluator import SupernetOptions
from pipeline.config.file import dump_config, load_config
from pipeline.errors import JournalError, RunDirectoryError, RunGoneError
from pipeline.files import UNFINISHED, check_own, check_plain, open_to_append, write_whole
from pipeline.storage import identity
from pipeline.trials.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config.run import RunConfig

_CHANGEABLE = {"budget", "final", "export", "engine", "references"}
"""Sections that may be edited between the sessions of a run: they change neither proposals nor results."""

_SUPERNET = "supernet.safetensors"
"""The weights that all networks of the run's space share, and how far their training is."""
_FOLDERS = ("bundle", "checkpoints", "references")
_FILES = (
    *(".lock", "activations.json", "channel_blocks.json", "config.yaml", "cost_model.json", "references.json"),
    *("report.html", "search.log", _SUPERNET, "supernet_check.jsonl"),
    *("journal.sqlite", "journal.sqlite-journal", "journal.sqlite-shm", "journal.sqlite-wal", "zero_cost.jsonl"),
)
_COST_MODEL = "cost_model.json"
"""The run's own copy of the cost model's file that its config names, or that existed when it began."""


class RunDirectory:
    """All files of one search.

    Attributes:
        path: the directory.
        config: resolved, with every default written out.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config = path, config
        self._identity = identity(path)
        self.journal_path = path / "journal.sqlite"
        self.checkpoints = path / "checkpoints"
        self.bundle = path / "bundle"
        self.report = path / "report.html"
        self.log = path / "search.log"
        self.cost_model = _own_cost_model(path)
        self.scores = path / "zero_cost.jsonl"
        self.supernet = path / _SUPERNET
        self.supernet_check = path / "supernet_check.jsonl"
        self.channel_blocks = path / "channel_blocks.json"

    @classmethod
    def check_new(cls, path: Path) -> None:
        """Check that a run can begin at a place.

        Raises:
            RunDirectoryError: the directory isn't empty.
        """
        if path.exists() and (not path.is_dir() or any(p.suffix != UNFINISHED for p in path.iterdir())):
            going = (
                f"; go on with it: hwnas resume {shlex.quote(str(path))}" if (path / "config.yaml").is_file() else ""
            )
            raise RunDirectoryError(f"{path} exists and isn't empty{going}")

    @classmethod
    def create(cls, path: Path, config: RunConfig, channel_blocks: bytes | None = None) -> RunDirectory:
        """Create a run.

        Args:
            path: its folder.
            config: resolved here.
            channel_blocks: content of the file of the device's blocks, where they were timed for the run.

        Raises:
            RunDirectoryError: the directory isn't empty, or can't be made.
        """
        cls.check_new(path)
        whole = config.resolved()
        try:
            path.mkdir(parents=True, exist_ok=True)
            if config.cost_model.endswith(".json"):
                write_whole(_own_cost_model(path), read_file(Path(config.cost_model)))
                whole = _with_own_cost_model(path, whole)
            if isinstance(config.evaluator, SupernetOptions):
                if config.evaluator.weights is not None:
                    write_whole(path / _SUPERNET, read_file(Path(config.evaluator.weights)))
                    whole = _without_supernet_training(whole)
                whole = _with_own_supernet(path, whole)
            if channel_blocks is not None:
                write_whole(path / "channel_blocks.json", channel_blocks)
            write_whole(path / "config.yaml", dump_config(whole).encode())
        except OSError as error:
            raise RunDirectoryError(f"{path} can't be made: {error}") from error
        return cls(path, whole)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open an existing run.

        Raises:
            RunDirectoryError: there is none.
            ConfigError: its config was edited into something invalid.
        """
        if not path.is_dir():
            raise RunDirectoryError(f"there is no run directory {path}")
        if not (path / "config.yaml").exists():
            raise RunDirectoryError(f"{path} is no run directory: it has no config.yaml")
        _check_parts(path)
        config = load_config(path / "config.yaml")
        if Path(config.cost_model).name == _COST_MODEL and _own_cost_model(path).is_file():
            config = _with_own_cost_model(path, config)  # the run may have been moved
        return cls(path, _with_own_supernet(path, config))

    def open_journal(self, *, read_only: bool = False) -> Journal:
        """Open the run's journal; it is created where the run was stopped before it had one.

        Raises:
            JournalError: it is damaged.
            RunDirectoryError: a part of the config that decides the search was changed.
        """
        if not self.journal_path.exists() and not read_only:
            facts = {"config": self.digest(), "hwnas": version("hwnas")}
            Journal.create(self.journal_path, facts, [*self.config.objectives, "latency_ms"]).close()
        if not read_only:
            _check_written_in_place(self.journal_path)
        journal = (Journal.open_for_reading if read_only else Journal.open)(self.journal_path)
        if journal.meta().get("config") != self.digest():
            journal.close()
            raise RunDirectoryError(
                f"{self.path}: config.yaml was changed since the run began; only {', '.join(sorted(_CHANGEABLE))}"
                " and data.root may change"
            )
        return journal

    def check_present(self) -> None:
        """Check that the directory is where it was opened: a part of it must not come into being anew.

        Raises:
            RunGoneError: it was deleted, moved or replaced.
        """
        now = identity(self.path)
        if now is None or now != self._identity:
            what = "isn't there any more: it was deleted or moved" if now is None else "was replaced by another one"
            raise RunGoneError(
                f"{self.path}: the run's folder {what} while it was used; nothing was written since. Where it was"
                " moved to, go on with: hwnas resume FOLDER"
            )

    def digest(self) -> str:
        """A hash of the part of the config that decides proposals and results."""
        return hashlib.sha256(json.dumps(self._deciding(), sort_keys=True).encode()).hexdigest()

    def _deciding(self) -> dict[str, Any]:
        values = cast("dict[str, Any]", json.loads(self.config.model_dump_json()))
        values["data"].pop("root", None)  # a data set may be moved
        if self.config.cost_model == str(self.cost_model):  # and so may the run
            values["cost_model"] = _COST_MODEL
        if isinstance(self.config.evaluator, SupernetOptions):
            values["evaluator"].pop("weights")
        return {key: value for key, value in values.items() if key not in _CHANGEABLE}

    def keep_cost_model(self, content: bytes) -> None:
        """Keep the content of a cost model's file as the run's own copy."""
        write_whole(self.cost_model, content)

    @contextmanager
    def log_chatter(self) -> Iterator[None]:
        """Send what libraries log and warn to search.log instead of the terminal, as long as the context lasts."""
        handler = _LogFile(self.log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        with warnings.catch_warnings():
            root.handlers[:] = [handler]
            root.setLevel(logging.WARNING)
            warnings.simplefilter("default")
            warnings.showwarning = _log_warning
            try:
                yield
            finally:
                root.handlers[:] = handlers
                root.setLevel(level)
                handler.close()


class _LogFile(logging.FileHandler):
    """A log whose lines may be lost where they can't be written: what matters then is what the command itself says."""

    def _open(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(open_to_append(Path(self.baseFilename)), encoding=self.encoding)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or lose it; logging's own answer to a full disk is a traceback on stderr."""
        with suppress(OSError):
            self.acquire()
            try:
                if self.stream is not None:  # None once it is closed
                    self.stream.write(self.format(record) + self.terminator)
                    self.stream.flush()
            finally:
                self.release()

    def close(self) -> None:
        """Close the file, with whatever of it could be written."""
        with suppress(OSError):
            super().close()


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = warnings.formatwarning(message, category, filename, lineno, line)
    logging.getLogger("py.warnings").warning("%s", text)


def default_path(name: str) -> Path:
    """The path runs/<name>-<date>-<time>."""
    return Path("runs") / f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"


def _check_written_in_place(journal: Path) -> None:
    """Check that the files of a journal, into which SQLite writes, are plain ones without another name elsewhere.

    Raises:
        JournalError: one isn't.
    """
    for path in (journal, *(journal.with_name(journal.name + suffix) for suffix in ("-wal", "-shm"))):
        try:
            if path == journal or path.exists():
                check_own(path)
        except OSError as error:
            raise JournalError(f"{path} {error.strerror or error}") from error


def _check_parts(path: Path) -> None:
    """Check that all that is read or written of a run lies in its folder: a link may lead anywhere, a pipe may hang.

    Raises:
        RunDirectoryError: a part of it is neither a file nor a folder, or can't be looked at.
    """
    try:
        for name in (*_FILES, *_FOLDERS):
            check_plain(path / name)
        for name in _FOLDERS:
            if (path / name).is_dir():
                for part in (path / name).iterdir():
                    check_plain(part)
    except OSError as error:
        raise RunDirectoryError(f"{error.filename} {error.strerror or error}") from error


def _own_cost_model(path: Path) -> Path:
    return path.absolute() / _COST_MODEL


def _with_own_cost_model(path: Path, config: RunConfig) -> RunConfig:
    return config.model_copy(update={"cost_model": str(_own_cost_model(path))})


def _with_own_supernet(path: Path, config: RunConfig) -> RunConfig:
    """The config whose evaluator finds the run's own shared weights."""
    section = config.evaluator
    if not isinstance(section, SupernetOptions):
        return config
    own = str(path.absolute() / _SUPERNET)
    return config.model_copy(update={"evaluator": section.model_copy(update={"weights": own})})


def _without_supernet_training(config: RunConfig) -> RunConfig:
    """The config whose shared weights are given, so that no epoch of their training is left."""
    return config.model_copy(update={"evaluator": config.evaluator.model_copy(update={"epochs": 0})})
