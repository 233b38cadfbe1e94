"""A pilot: a few steps of a candidate's training, timed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from pipeline.spaces.base import architecture_id, trial_seed

if TYPE_CHECKING:
    from pipeline.engines.trial import TrialRunner
    from pipeline.spaces.base import Architecture

_WARM_UP_STEPS = 3
_LEAST_STEPS = 3
_LONGEST_S = 30.0


class _EnoughError(Exception):
    """The steps that were wanted are done."""


def steps_per_second(runner: TrialRunner, architecture: Architecture, seconds: float) -> float | None:
    """Steps of the training of `architecture` in a second, timed for about `seconds`, then left.

    None if the evaluator doesn't say that it can be stopped in a step (`CandidateEvaluator.pilot`), trains on a GPU, or
    ends before.
    """
    if not runner.evaluator.pilot or torch.cuda.is_available():
        return None
    torch.manual_seed(trial_seed(runner.config.seed, architecture_id(architecture)))
    times: list[float] = []

    def count(*_: object) -> None:
        times.append(time.perf_counter())
        steps, took = len(times) - _WARM_UP_STEPS, times[-1] - times[min(_WARM_UP_STEPS, len(times)) - 1]
        if (steps >= _LEAST_STEPS and took > seconds) or times[-1] - times[0] > _LONGEST_S:
            raise _EnoughError

    hook = register_optimizer_step_post_hook(count)
    try:
        runner.evaluator.evaluate(runner.space.build(architecture))
    except _EnoughError:
        pass
    finally:
        hook.remove()
    steps = len(times) - _WARM_UP_STEPS
    return steps / (times[-1] - times[_WARM_UP_STEPS - 1]) if steps > 0 else None
