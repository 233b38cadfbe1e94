"""Evaluators that know an accuracy without training, and some that misbehave; named by dotted path in configs."""

import contextlib
import ctypes
import errno
import hashlib
import itertools
import os
import sys
import time
from pathlib import Path

import numpy as np
from torch import nn

from pipeline.evaluators.base import CandidateEvaluator
from pipeline.trials.result import Progress


def structure_accuracy(model: nn.Module) -> float:
    """A number in [0, 1) that depends on the network's structure alone."""
    return int.from_bytes(hashlib.sha256(str(model).encode()).digest()[:6], "big") / 2**48


def _tell_pid() -> None:
    unfinished = Path("worker.unfinished")
    unfinished.write_text(str(os.getpid()), encoding="utf-8")
    unfinished.replace("worker.pid")


def _claimed_number(name: str) -> int:
    """0, 1, …, each once over all worker processes, however many ask at the same time."""
    for number in itertools.count():
        with contextlib.suppress(FileExistsError):
            Path(f"{name}.{number}").touch(exist_ok=False)
            return number
    raise AssertionError("numbers don't end")


class Hash(CandidateEvaluator):
    """The base of the others: the structure's hash is the accuracy."""

    def evaluate(self, model: nn.Module, progress: Progress | None = None) -> float:
        return structure_accuracy(model)


class SlowHash(Hash):
    """Takes a moment, so that a test can end the process in the middle of a trial."""

    def evaluate(self, model: nn.Module, progress: Progress | None = None) -> float:
        _tell_pid()
        time.sleep(0.15)
        return structure_accuracy(model)


class Curved(Hash):
    """Four epochs in which the accuracy grows evenly to the structure's hash; heeds a request to stop.

    Option `crash_at`: the number of the trial, over all worker processes, in which this one dies.
    """

    stops = True

    def evaluate(self, model: nn.Module, progress: Progress | None = None) -> float:
        crash_at = getattr(self.options, "crash_at", None)
        if crash_at is not None and _claimed_number("curved") == crash_at:
            os._exit(7)
        for epoch in range(1, 5):
            accuracy = structure_accuracy(model) * epoch / 4
            if progress is not None and progress(epoch, 4, accuracy):
                return accuracy
        return accuracy


class Deaf(Curved):
    """Doesn't take part in stopping, whatever its section says."""

    stops = False


class Pid(Hash):
    """Tells its process, then takes for ever."""

    def evaluate(self, model: nn.Module, progress: Progress | None = None) -> float:
        _tell_pid()
        time.sleep(3600)
        return 0.0


class Mishaps(Hash):
    """The first candidates meet what `mishaps` lists, one each; a file counts them over all worker processes."""

    def evaluate(self, model: nn.Module, progress: Progress | None = None) -> float:
        mishaps = self.options.mishaps
        counter = Path("mishaps.count")
        done = int(counter.read_text(encoding="utf-8")) if counter.exists() else 0
        counter.write_text(str(done + 1), encoding="utf-8")
        if done < len(mishaps):
            result = getattr(self, "_" + mishaps[done])(progress)
            if result is not None:
                return result
        return structure_accuracy(model)

    def _hang(self, progress: Progress | None) -> None:
        time.sleep(3600)

    def _hang_and_tell(self, progress: Progress | None) -> float:
        """Reports an epoch now and then; ends by itself, so that a missing limit shows as a success."""
        end = time.monotonic() + 25
        while time.monotonic() < end:
            time.sleep(0.5)
            if progress is not None:
                progress(1, 1, 0.5)
        return 0.5

    def _segfault(self, progress: Progress | None) -> None:
        ctypes.string_at(0)

    def _exit(self, progress: Progress | None) -> None:
        sys.exit(7)

    def _interrupt(self, progress: Progress | None) -> None:
        raise KeyboardInterrupt

    def _raise(self, progress: Progress | None) -> None:
        raise RuntimeError("this candidate is unlucky\nand says so at length")

    def _numpy(self, progress: Progress | None) -> None:
        np.ones(30 * 10**9 // 8)

    def _bytearray(self, progress: Progress | None) -> None:
        block = bytearray(30 * 10**9)
        block[::4096] = b"x" * len(block[::4096])

    def _print(self, progress: Progress | None) -> None:
        print('{"status": "ok"}')
        print("noise", file=sys.stderr)

    def _not_a_number(self, progress: Progress | None) -> float:
        return float("nan")

    def _numpy_float(self, progress: Progress | None) -> float:
        return np.float32(0.5)  # type: ignore[return-value]

    def _above_one(self, progress: Progress | None) -> float:
        return 97.3

    def _text(self, progress: Progress | None) -> float:
        return "very good"  # type: ignore[return-value]


class NoRoom(Hash):
    """Finds the disk full."""

    def evaluate(self, model: nn.Module, progress: Progress | None = None) -> float:
        raise OSError(errno.ENOSPC, "No space left on device")
