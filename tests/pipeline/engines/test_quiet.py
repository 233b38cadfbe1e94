"""Measurements have the room alone; trainings of other processes wait at their next step."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized

import pytest
import torch

from pipeline.engines.quiet import Quiet, shared_file

_FORK = multiprocessing.get_context("fork")
_SOON_S = 20.0


def train(file: int, steps: "Synchronized[int]") -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with Quiet(file).working():
        while True:
            time.sleep(0.002)
            optimizer.step()
            steps.value += 1


def sleep(file: int, steps: "Synchronized[int]") -> None:
    with Quiet(file).working():
        steps.value += 1
        time.sleep(_SOON_S)


@contextmanager
def other(work: Callable[..., None], file: int) -> Iterator["Synchronized[int]"]:
    """Another process that works in the room, once it has begun; gives the number of its steps."""
    steps = _FORK.Value("i", 0)
    process = _FORK.Process(target=work, args=(file, steps), daemon=True)
    process.start()
    try:
        until = time.monotonic() + _SOON_S
        while steps.value < 1:
            assert time.monotonic() < until
            time.sleep(0.01)
        yield steps
    finally:
        process.kill()
        process.join()


def test_no_step_is_taken_while_somebody_measures() -> None:
    file = shared_file()
    with other(train, file) as steps:
        for _ in range(5):
            with Quiet(file).alone() as alone:
                assert alone
                before = steps.value
                time.sleep(0.05)
                assert steps.value <= before + 1  # the one that had ended, and wasn't counted yet
            later = steps.value
            until = time.monotonic() + _SOON_S
            while steps.value <= later and time.monotonic() < until:
                time.sleep(0.005)
            assert steps.value > later


def test_one_measures_beside_what_takes_no_steps() -> None:
    file = shared_file()
    with other(sleep, file), Quiet(file, patience_s=0.1).alone() as alone:
        assert not alone


def test_what_has_died_holds_up_nobody() -> None:
    file = shared_file()
    with other(sleep, file):
        pass
    with Quiet(file, patience_s=5.0).alone() as alone:
        assert alone


@pytest.mark.parametrize("quiet", [Quiet(), Quiet(shared_file())])
def test_one_after_the_other_waits_for_nothing(quiet: Quiet) -> None:
    for _ in range(2):
        with quiet.working():
            torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1).step()
        with quiet.alone() as alone:
            assert alone
