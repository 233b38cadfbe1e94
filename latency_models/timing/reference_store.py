"""The times of the reference models on this machine, kept between processes.

They turn a ratio, which repeats on a noisy machine, into milliseconds. One JSON file holds them by the
environment's fingerprint and the reference's name; it is made on first use, and only the references that
were needed are timed.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import platformdirs

from latency_models.files import write_whole
from latency_models.timing.interleaving import StopRule, burst_runs, interleave, warm_up
from latency_models.timing.reference_models import ANCHOR, reference_model
from latency_models.timing.statistics import low_time, settled

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from latency_models.devices.environment import Environment
    from latency_models.timing.timers import Timer

FORMAT = 2
_OLDER_FORMATS = (1,)
_CALIBRATION_S = 0.6
_SESSIONS = 6
_LONGEST_CYCLE_S = 0.4


@dataclass(frozen=True)
class ReferenceTime:
    """A reference's time: its undisturbed `ms`, and how far fresh sessions of it differ (relative, 1 sd).

    `against` is the reference that it was timed beside; None for the first one of an environment.
    """

    ms: float
    session_sd: float
    against: str | None = None


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
                write_whole(self.path, json.dumps(document, indent=1, sort_keys=True))
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
            if document["format"] in _OLDER_FORMATS:
                return empty
            _check(document)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            self._warn(f"{self.path} is damaged ({type(error).__name__}); references are timed again")
            return empty
        return dict(document)

    @staticmethod
    def _of(document: dict[str, Any], environment: Environment) -> dict[str, ReferenceTime]:
        entry = document["environments"].get(environment.fingerprint, {})
        return {name: ReferenceTime(**fields) for name, fields in entry.get("references", {}).items()}


def calibrate(name: str, timer: Timer, anchor: ReferenceTime | None) -> ReferenceTime:
    """Time a reference: several fresh sessions of it, each beside one of the anchor's, about half a second in all.

    How fast a session runs depends a little on where its memory happens to lie; the median of several is free of that,
    and their spread tells how far any other measurement is subject to it. The time is the ratio to the anchor's, times
    that one's stored time: so all references tell of one moment, whatever the clock's speed was later on.
    """
    names = [name] if anchor is None else [name, ANCHOR]
    sessions = {each: [timer.load(reference_model(each), 1)] for each in names}
    pilots_ns = {each: warm_up(timer, handles[0], _CALIBRATION_S / 4) for each, handles in sessions.items()}
    runs = {each: burst_runs(pilots_ns[each]) for each in names}
    cycle_s = sum(runs[each] * pilots_ns[each] for each in names) / 1e9
    for each, handles in sessions.items():
        more = min(_SESSIONS, max(2, int(_LONGEST_CYCLE_S / cycle_s))) - 1
        handles += [timer.load(reference_model(each), 1) for _ in range(more)]
    order = [(each, sessions[each][at]) for at in range(len(sessions[name])) for each in names]
    taken = interleave(
        timer,
        [handle for _, handle in order],
        [runs[each] for each, _ in order],
        StopRule(budget_s=_CALIBRATION_S, cycle_s=cycle_s * len(sessions[name])),
    )
    for _, handle in order:
        timer.unload(handle)
    lows = [math.log(low_time(settled(times[:, 1]).ravel()) / 1e6) for times in taken.times_ns]
    own = np.array([low for low, (each, _) in zip(lows, order, strict=True) if each == name])
    log_ms = float(np.median(own))
    if anchor is not None:
        beside = [low for low, (each, _) in zip(lows, order, strict=True) if each == ANCHOR]
        log_ms += math.log(anchor.ms) - float(np.median(beside))
    return ReferenceTime(math.exp(log_ms), float(own.std(ddof=1)), None if anchor is None else ANCHOR)


def _check(document: Any) -> None:
    """Raise one of what `_read` catches unless the document is a store of this format."""
    if document["format"] != FORMAT:
        raise ValueError(document["format"])
    for entry in document["environments"].values():
        for fields in entry.get("references", {}).values():
            time_ = ReferenceTime(**fields)
            if not (time_.ms > 0 and time_.session_sd >= 0 and math.isfinite(time_.ms + time_.session_sd)):
                raise ValueError(fields)
