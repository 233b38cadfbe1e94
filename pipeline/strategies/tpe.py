"""`tpe`: NNI's Tree-structured Parzen Estimator, asked for one architecture at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.nni_types import TpeArguments, TpeRecord, create_liar, format_search_space, suggest_parameter
from pipeline.spaces.base import architecture_id
from pipeline.strategies.base import ProposingStrategy
from pipeline.strategies.neighbours import untried_at_random

if TYPE_CHECKING:
    import numpy as np

    from pipeline.config.strategy import TpeOptions
    from pipeline.spaces.base import Architecture
    from pipeline.strategies.problem import Problem
    from pipeline.trials.journal import TrialRecord

_TRIES = 20


class Tpe(ProposingStrategy):
    """Tree-structured Parzen Estimator (Bergstra, Bardenet, Bengio & Kégl, 2011) in NNI's implementation.

    NNI's estimator suggests each active choice from the trials in which it was active, too. NNI's tuner around it
    isn't used: it counts inactive choices, steps through a grid past known architectures, and waits a second a trial.
    Pending trials count as the best result so far, or as `liar` says, so that simultaneous proposals differ.

    Attributes:
        records: label of a choice → the results of the trials in which it was active.
    """

    def __init__(self, options: TpeOptions, problem: Problem) -> None:
        super().__init__(problem)
        self._arguments = TpeArguments(
            constant_liar_type=options.liar,
            n_startup_jobs=options.startup,
            n_ei_candidates=options.candidates,
            gamma=options.gamma,
        )
        self._liar = create_liar(options.liar)
        choices = problem.space.choices
        formatted = format_search_space({c.label: {"_type": "choice", "_value": list(c.values)} for c in choices})
        self._specs = {choice.label: formatted[choice.label,] for choice in choices}
        self.records: dict[str, list[TpeRecord]] = {choice.label: [] for choice in choices}

    def propose(self, generator: np.random.Generator) -> Architecture | None:
        """Return the first suggestion that is new, or a random architecture when all suggestions are known.

        The estimator suggests the value with the best ratio among some drawn from the good trials' distribution. With
        24 draws of a few values that is always the same one, so each further try draws half as many, down to one.
        """
        tried = self.tried()
        records = {label: list(each) for label, each in self.records.items()}
        for running in self.pending:
            self._note(records, running, self._liar.lie())
        for number in range(_TRIES):
            fewer = self._arguments._replace(n_ei_candidates=max(1, self._arguments.n_ei_candidates >> number))
            suggested = self._suggest(fewer, records, generator)
            if architecture_id(suggested) not in tried:
                return suggested
        return untried_at_random(self.problem.space, tried, generator)

    def _suggest(
        self, arguments: TpeArguments, records: dict[str, list[TpeRecord]], generator: np.random.Generator
    ) -> Architecture:
        made: Architecture = {}
        for choice in self.problem.space.choices:
            if choice.is_active(made):
                spec, known = self._specs[choice.label], records[choice.label]
                made[choice.label] = choice.values[int(suggest_parameter(arguments, generator, spec, known))]
        return made

    def learn(self, record: TrialRecord) -> None:
        """Add the record to the estimator's, which minimises: the loss is the negated score."""
        self._liar.update(-record.score)
        self._note(self.records, record.architecture, -record.score)

    def _note(self, records: dict[str, list[TpeRecord]], architecture: Architecture, loss: float) -> None:
        for choice in self.problem.space.choices:
            if choice.label in architecture:
                index = choice.values.index(architecture[choice.label])
                records[choice.label].append(TpeRecord(index, loss))
