"""A run directory: create, open, lock, and where everything lies in it."""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import warnings
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline.config.file import dump_config, load_config
from pipeline.errors import RunDirectoryError
from pipeline.files import UNFINISHED, write_whole
from pipeline.trials.journal import Journal

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig

_CHANGEABLE = {"budget", "final", "export", "engine", "references"}
"""Sections that may be edited between the sessions of a run: they don't change what was asked or answered."""

_COST_MODEL = "cost_model.json"
"""The run's own copy of the cost model's file that its config named, or that there was when it began."""


class RunDirectory:
    """One search, whole.

    Attributes:
        path: the directory.
        config: resolved, every default written out.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config = path, config
        self.journal_path = path / "journal.sqlite"
        self.checkpoints = path / "checkpoints"
        self.bundle = path / "bundle"
        self.report = path / "report.html"
        self.log = path / "search.log"
        self.cost_model = _own_cost_model(path)
        self.scores = path / "zero_cost.jsonl"

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> RunDirectory:
        """A new run.

        Raises:
            RunDirectoryError: the directory isn't empty, or can't be made.
        """
        if path.exists() and (not path.is_dir() or any(p.suffix != UNFINISHED for p in path.iterdir())):
            going = (
                f"; go on with it: hwnas resume {shlex.quote(str(path))}" if (path / "config.yaml").is_file() else ""
            )
            raise RunDirectoryError(f"{path} exists and isn't empty{going}")
        whole = config.resolved()
        try:
            path.mkdir(parents=True, exist_ok=True)
            if config.cost_model.endswith(".json"):
                write_whole(_own_cost_model(path), Path(config.cost_model).read_bytes())
                whole = _with_own_cost_model(path, whole)
            write_whole(path / "config.yaml", dump_config(whole).encode())
        except OSError as error:
            raise RunDirectoryError(f"{path} can't be made: {error}") from error
        return cls(path, whole)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """A run that exists.

        Raises:
            RunDirectoryError: there is none at this place.
            ConfigError: its config was edited into something invalid.
        """
        if not path.is_dir():
            raise RunDirectoryError(f"there is no run directory {path}")
        if not (path / "config.yaml").is_file():
            raise RunDirectoryError(f"{path} is no run directory: it has no config.yaml")
        config = load_config(path / "config.yaml")
        if Path(config.cost_model).name == _COST_MODEL and _own_cost_model(path).is_file():
            config = _with_own_cost_model(path, config)  # the run may have been moved
        return cls(path, config)

    def open_journal(self, *, read_only: bool = False) -> Journal:
        """The run's journal; made when the run was stopped before it had one.

        Raises:
            JournalError: it is damaged.
            RunDirectoryError: the config was changed in what decides the search.
        """
        if not self.journal_path.exists() and not read_only:
            facts = {"config": self.digest(), "hwnas": version("hwnas")}
            Journal.create(self.journal_path, facts, [*self.config.objectives, "latency_ms"]).close()
        journal = Journal.open(self.journal_path, read_only=read_only)
        if journal.meta().get("config") != self.digest():
            journal.close()
            raise RunDirectoryError(
                f"{self.path}: config.yaml was changed since the run began; only {', '.join(sorted(_CHANGEABLE))}"
                " and data.root may change"
            )
        return journal

    def digest(self) -> str:
        """A hash of the part of the config that decides what is searched and how it is judged."""
        return hashlib.sha256(json.dumps(self._deciding(), sort_keys=True).encode()).hexdigest()

    def _deciding(self) -> dict[str, Any]:
        values = cast("dict[str, Any]", json.loads(self.config.model_dump_json()))
        values["data"].pop("root", None)  # a data set may be moved
        if self.config.cost_model == str(self.cost_model):  # and so may the run
            values["cost_model"] = _COST_MODEL
        return {key: value for key, value in values.items() if key not in _CHANGEABLE}

    def keep_cost_model(self, content: bytes) -> None:
        """Take over a cost model's file, for good."""
        write_whole(self.cost_model, content)

    def log_chatter(self) -> None:
        """Send what libraries log and warn to search.log instead of the terminal."""
        handler = logging.FileHandler(self.log, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(logging.WARNING)
        logging.captureWarnings(True)
        warnings.simplefilter("default")


def default_path(name: str) -> Path:
    """runs/<name>-<date>-<time>."""
    return Path("runs") / f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"


def _own_cost_model(path: Path) -> Path:
    return path.absolute() / _COST_MODEL


def _with_own_cost_model(path: Path, config: RunConfig) -> RunConfig:
    return config.model_copy(update={"cost_model": str(_own_cost_model(path))})
