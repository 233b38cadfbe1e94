"""Calibrated times of the reference models on this machine, kept between processes.

They turn a ratio, which repeats on a noisy machine, into milliseconds. One JSON file holds them by the environment's
fingerprint and the reference's name; a reference is timed when it is first needed.
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
CALIBRATION_S = 0.6
SESSIONS = 6
"""Seconds of a reference's calibration, and the most fresh sessions of it."""
_LONGEST_CYCLE_S = 0.4


@dataclass(frozen=True)
class ReferenceTime:
    """A reference's calibrated time.

    Attributes:
        ms: of an undisturbed run.
        session_sd: the standard deviation between fresh sessions (relative).
        against: the reference that it was timed beside; None for the first one of an environment.
    """

    ms: float
    session_sd: float
    against: str | None = None


class ReferenceStore:
    """The file of reference times at `path` (default: `references.json` in the user's data folder for hwnas).

    A file that can't be read is replaced, and one that can't be written is done without; `warnings` says so.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path if path is not None else platformdirs.user_data_path("hwnas") / "references.json"
        self._warnings: dict[str, None] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """The problems with the file so far, a sentence each."""
        return tuple(self._warnings)

    def known(self, environment: Environment) -> dict[str, ReferenceTime]:
        """The times that are kept for this environment, by the reference's name."""
        return self._of(self._read(), environment)

    def get(self, name: str, environment: Environment, calibration: Callable[[], ReferenceTime]) -> ReferenceTime:
        """The kept time of a reference; where there is none, `calibration` is called and its result kept."""
        if name in (known := self.known(environment)):
            return known[name]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Of several processes one calibrates; those that wait here find its result.
            with filelock.FileLock(f"{self.path}.lock"):
                document = self._read()
                if name in (known := self._of(document, environment)):
                    return known[name]
                answer = calibration()
                entry = document["environments"].setdefault(environment.fingerprint, {})
                entry["environment"] = environment.as_dict()
                entry.setdefault("references", {})[name] = asdict(answer)
                write_whole(self.path, json.dumps(document, indent=1, sort_keys=True))
                return answer
        except OSError as error:
            self._warn(f"{self.path} can't be written ({error.strerror or error}); reference times are not kept")
            return calibration()

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
    """Time several fresh sessions of a reference, each beside one of the anchor's, for about half a second in all.

    A session's speed depends a little on where its memory happens to lie. The median of several is free of that, and
    their spread shows how much of it any other measurement holds. The result is the ratio to the anchor's time, times
    the anchor's stored time: so all references stand for one moment, whatever the clock's speed was later on.
    """
    names = [name] if anchor is None else [name, ANCHOR]
    sessions = {each: [timer.load(reference_model(each), 1)] for each in names}
    pilots_ns = {each: warm_up(timer, handles[0], CALIBRATION_S / 4) for each, handles in sessions.items()}
    runs = {each: burst_runs(pilots_ns[each]) for each in names}
    cycle_s = sum(runs[each] * pilots_ns[each] for each in names) / 1e9
    for each, handles in sessions.items():
        more = min(SESSIONS, max(2, int(_LONGEST_CYCLE_S / cycle_s))) - 1
        handles += [timer.load(reference_model(each), 1) for _ in range(more)]
    order = [(each, sessions[each][at]) for at in range(len(sessions[name])) for each in names]
    rounds = interleave(
        timer,
        [handle for _, handle in order],
        [runs[each] for each, _ in order],
        StopRule(budget_s=CALIBRATION_S, cycle_s=cycle_s * len(sessions[name])),
    )
    for _, handle in order:
        timer.unload(handle)
    lows = [math.log(low_time(settled(times[:, 1]).ravel()) / 1e6) for times in rounds.times_ns]
    own = np.array([low for low, (each, _) in zip(lows, order, strict=True) if each == name])
    log_ms = float(np.median(own))
    if anchor is not None:
        beside = [low for low, (each, _) in zip(lows, order, strict=True) if each == ANCHOR]
        log_ms += math.log(anchor.ms) - float(np.median(beside))
    return ReferenceTime(math.exp(log_ms), float(own.std(ddof=1)), None if anchor is None else ANCHOR)


def _check(document: Any) -> None:
    """Raise an error that `_read` catches, unless the document is a store of this format."""
    if document["format"] != FORMAT:
        raise ValueError(document["format"])
    for entry in document["environments"].values():
        for fields in entry.get("references", {}).values():
            time_ = ReferenceTime(**fields)
            if not (time_.ms > 0 and time_.session_sd >= 0 and math.isfinite(time_.ms + time_.session_sd)):
                raise ValueError(fields)
