"""Optuna's samplers as strategies, to compare the project's own ones with; for `strategies` of a benchmark's config.

    cd benchmarks && hwnas bench ../configs/bench-nasbench201.yaml --set 'strategies=[guided, "optuna_strategies:tpe"]'

Optuna is a development dependency, not one of the product. Its studies are asked and told as its documentation has
it: every choice is categorical, accuracy is maximised and every other objective minimised, limits are a constraint of
each trial, the seed is the search's. All else is as Optuna has it by default. Optuna asks for known
architectures again; it is told what is known, which costs no trial, and asked anew, as any strategy is by the engine.
"""

import warnings

import numpy as np
import optuna
from pydantic import BaseModel

from pipeline.spaces.base import Architecture, architecture_id
from pipeline.strategies.base import ProposingStrategy
from pipeline.strategies.dominance import violation
from pipeline.strategies.neighbours import untried_at_random
from pipeline.strategies.problem import Problem
from pipeline.trials.journal import TrialRecord

_REPEATS = 200
"""After so many known architectures in a row one is drawn at random, where the engine would end the search."""

_POPULATION = 50

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class Optuna(ProposingStrategy):
    """A study that is asked for one architecture at a time.

    Args:
        problem: what is searched.
        sampler: Optuna's.
    """

    def __init__(self, problem: Problem, sampler: optuna.samplers.BaseSampler) -> None:
        super().__init__(problem)
        directions = ["maximize" if name == "accuracy" else "minimize" for name in problem.objectives]
        self._study = optuna.create_study(directions=directions, sampler=sampler)
        self._asked: dict[str, optuna.Trial] = {}
        self._known: dict[str, TrialRecord] = {}

    def propose(self, generator: np.random.Generator) -> Architecture | None:
        """The study's next suggestion that isn't known yet."""
        tried = self.tried()
        for _ in range(_REPEATS):
            trial = self._study.ask()
            suggested = self._suggested(trial)
            identity = architecture_id(suggested)
            if identity not in tried:
                self._asked[identity] = trial
                return suggested
            if identity in self._known:
                self._tell(trial, self._known[identity])
            else:
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)  # it runs elsewhere, and is told there
        drawn = untried_at_random(self.problem.space, tried, generator)
        if drawn is not None:
            self._study.enqueue_trial(drawn)
            trial = self._study.ask()
            self._asked[architecture_id(self._suggested(trial))] = trial
        return drawn

    def _suggested(self, trial: optuna.Trial) -> Architecture:
        made: Architecture = {}
        for choice in self.problem.space.choices:
            if choice.is_active(made):
                made[choice.label] = trial.suggest_categorical(choice.label, choice.values)
        return made

    def learn(self, record: TrialRecord) -> None:
        """Report a result to the study."""
        self._known[record.id] = record
        self._tell(self._asked.pop(record.id), record)

    def _tell(self, trial: optuna.Trial, record: TrialRecord) -> None:
        if record.status == "failed":
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        if self.problem.limits:
            trial.set_constraint("limits", violation(record))
        # What breaks a limit has no accuracy, and Optuna looks at no value of it.
        self._study.tell(trial, [record.objectives.get(name, 0.0) for name in self.problem.objectives])


def tpe(options: BaseModel, problem: Problem) -> Optuna:
    """The multivariate Tree-structured Parzen Estimator, which models choices jointly."""
    return Optuna(problem, optuna.samplers.TPESampler(seed=problem.seed, multivariate=True))


def nsga2(options: BaseModel, problem: Problem) -> Optuna:
    """NSGA-II; option `population`, by default Optuna's own, 50, which is many for a search of 200 trials."""
    population = (options.model_extra or {}).get("population", _POPULATION)
    return Optuna(problem, optuna.samplers.NSGAIISampler(seed=problem.seed, population_size=population))
