"""The times of the reference models on this machine, kept between processes.

They turn a ratio, which repeats on a noisy machine, into milliseconds. One JSON file holds them by the
environment's fingerprint and the reference's name; it is made on first use, and only the references that
were needed are timed.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import platformdirs

from latency_models.clock import Budget, burst, stays_in_thread
from latency_models.reference import reference_model
from latency_models.runner import OnnxRuntimeRunner
from latency_models.statistics import low_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from latency_models.device import Device
    from latency_models.environment import Environment

FORMAT = 1
_CALIBRATION_S = 0.5
_SESSIONS = 8
_BURST_NS = 2_000_000
_MIN_CYCLES = 3


@dataclass(frozen=True)
class ReferenceTime:
    """A reference's time: its undisturbed `ms`, and how far fresh sessions of it differ (relative, 1 sd)."""

    ms: float
    session_sd: float


class ReferenceStore:
    """Reads and writes the file at `path` (default: `references.json` in the user's data folder for hwnas).

    A file that can't be read is replaced, and one that can't be written is done without; either is told by
    `warnings`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path if path is not None else platformdirs.user_data_path("hwnas") / "references.json"
        self._warnings: dict[str, None] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What went wrong with the file so far."""
        return tuple(self._warnings)

    def known(self, environment: Environment) -> dict[str, ReferenceTime]:
        """The references that were timed in this environment, by name."""
        return self._of(self._read(), environment)

    def get(self, name: str, environment: Environment, timed: Callable[[], ReferenceTime]) -> ReferenceTime:
        """The time of a reference; `timed` is asked for it when nobody was before, and its answer kept."""
        if name in (known := self.known(environment)):
            return known[name]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Whoever waits here finds the winner's answer, rather than timing against it.
            with filelock.FileLock(f"{self.path}.lock"):
                document = self._read()
                if name in (known := self._of(document, environment)):
                    return known[name]
                answer = timed()
                entry = document["environments"].setdefault(environment.fingerprint, {})
                entry["environment"] = environment.as_dict()
                entry.setdefault("references", {})[name] = asdict(answer)
                self._write(document)
                return answer
        except OSError as error:
            self._warn(f"{self.path} can't be written ({error.strerror or error}); reference times are not kept")
            return timed()

    def _warn(self, message: str) -> None:
        self._warnings[message] = None

    def _read(self) -> dict[str, Any]:
        empty: dict[str, Any] = {"format": FORMAT, "environments": {}}
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return empty
        except (OSError, UnicodeDecodeError) as error:
            self._warn(f"{self.path} can't be read ({type(error).__name__}); references are timed again")
            return empty
        try:
            document = json.loads(text)
            _check(document)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            self._warn(f"{self.path} is damaged ({type(error).__name__}); references are timed again")
            return empty
        return dict(document)

    @staticmethod
    def _of(document: dict[str, Any], environment: Environment) -> dict[str, ReferenceTime]:
        entry = document["environments"].get(environment.fingerprint, {})
        return {name: ReferenceTime(**fields) for name, fields in entry.get("references", {}).items()}

    def _write(self, document: dict[str, Any]) -> None:
        """Atomic: a reader sees the old file or the new one."""
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=1, sort_keys=True)
            Path(temporary).replace(self.path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise


def one_by_one(device: Device) -> Device:
    """The device as references are run on it: their input is one image, whatever the target's batch."""
    return replace(device, batch_size=1)


def calibrate(name: str, device: Device) -> ReferenceTime:
    """Time a reference: several fresh sessions of it in turn, about half a second in all.

    How fast a session runs depends a little on where its memory happens to lie; the median of several is
    free of that, and their spread tells how far any other measurement is subject to it.
    """
    in_thread = stays_in_thread(device)
    model = reference_model(name)
    runners = [OnnxRuntimeRunner(model, one_by_one(device)) for _ in range(_SESSIONS)]
    samples: list[list[np.ndarray]] = [[] for _ in runners]
    budget = Budget(_CALIBRATION_S, in_thread=in_thread)
    while len(samples[0]) < _MIN_CYCLES or not budget.over:
        for runner, bursts in zip(runners, samples, strict=True):
            first = burst(runner.run, 1, in_thread=in_thread)
            runs = math.ceil(_BURST_NS / max(float(first[1, 0]), 1.0))
            bursts.append(burst(runner.run, runs, in_thread=in_thread)[1])
    for runner in runners:
        runner.close()
    lows = np.array([low_time(np.concatenate(bursts)) for bursts in samples]) / 1e6
    return ReferenceTime(ms=float(np.median(lows)), session_sd=float(np.log(lows).std(ddof=1)))


def _check(document: Any) -> None:
    """Raise one of what `_read` catches unless the document is a store of this format."""
    if document["format"] != FORMAT:
        raise ValueError(document["format"])
    for entry in document["environments"].values():
        for fields in entry.get("references", {}).values():
            time_ = ReferenceTime(**fields)
            if not (time_.ms > 0 and time_.session_sd >= 0 and math.isfinite(time_.ms + time_.session_sd)):
                raise ValueError(fields)
