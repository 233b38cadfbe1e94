"""A distribution over a space's architectures: an LSTM that makes one choice after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.spaces.base import Architecture, Choice, SearchSpace, Value

_INITIAL_RANGE = 0.08


class Policy(nn.Module):
    """The policy network of Zoph & Le, Neural architecture search with reinforcement learning, 2017.

    The LSTM makes one step for each active choice with more than one value. Its input is the value chosen before, its
    output the probabilities of the choice's values. Inactive choices are no steps, so they are in no probability and
    no gradient. Double precision, because a resumed search has to draw the same architectures again.

    Args:
        space: the search space.
        hidden_size: of the LSTM and of the embeddings of chosen values.
        generator: draws the initial weights, uniform within ±0.08 as in the paper: all architectures begin alike.
    """

    def __init__(self, space: SearchSpace, hidden_size: int, generator: np.random.Generator) -> None:
        super().__init__()
        self._space = space
        self._first: dict[str, int] = {}  # label → place of its first value among all values
        self._total = 0
        for choice in space.choices:
            if len(choice.values) > 1:
                self._first[choice.label] = self._total
                self._total += len(choice.values)
        last = len(space.choices[-1].values) if len(space.choices[-1].values) > 1 else 0
        # The last choice's values are nobody's input.
        self.embedding = nn.Embedding(1 + self._total - last, hidden_size, dtype=torch.double)
        self.lstm = nn.LSTM(hidden_size, hidden_size, dtype=torch.double)
        self.head = nn.Linear(hidden_size, max(1, self._total), dtype=torch.double)
        with torch.no_grad():
            for parameter in self.parameters():
                drawn = generator.uniform(-_INITIAL_RANGE, _INITIAL_RANGE, tuple(parameter.shape))
                parameter.copy_(torch.from_numpy(drawn))

    @torch.no_grad()
    def sample(self, generator: np.random.Generator) -> Architecture:
        """Draw an architecture from the policy."""
        made: Architecture = {}
        hidden = cell = torch.zeros(1, self.lstm.hidden_size, dtype=torch.double)
        weights, before = self.lstm.all_weights[0], 0
        for choice in self._space.choices:
            if not choice.is_active(made):
                continue
            place = 0
            if choice.label in self._first:
                hidden, cell = torch.lstm_cell(self.embedding.weight[before : before + 1], (hidden, cell), *weights)
                own = self._own(choice)
                logits = torch.addmv(self.head.bias[own], self.head.weight[own], hidden[0])
                bounds = np.cumsum(torch.softmax(logits, dim=0).numpy())
                place = int(np.searchsorted(bounds, generator.random() * bounds[-1], side="right"))
                before = 1 + own.start + place
            made[choice.label] = choice.values[place]
        return made

    def forward(self, architecture: Mapping[str, Value]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of an architecture and the entropy of its choices' distributions, both scalars."""
        decided = [c for c in self._space.choices if c.label in architecture and c.label in self._first]
        if not decided:
            nothing = self.head.weight.sum() * 0
            return nothing, nothing
        owns = [self._own(choice) for choice in decided]
        taken = [own.start + c.values.index(architecture[c.label]) for own, c in zip(owns, decided, strict=True)]
        outputs, _ = self.lstm(self.embedding(torch.tensor([0, *(1 + place for place in taken[:-1])])))
        others = torch.ones(len(decided), self._total, dtype=torch.bool)
        for row, own in enumerate(owns):
            others[row, own] = False
        logits = self.head(outputs).masked_fill(others, -torch.inf)
        logarithms = torch.log_softmax(logits, dim=1).masked_fill(others, 0)  # 0 where the probability is none
        entropy = -(logarithms.exp() * logarithms).sum()
        return logarithms[torch.arange(len(taken)), taken].sum(), entropy

    def _own(self, choice: Choice) -> slice:
        """The slice of a choice's values among the values of all choices."""
        first = self._first[choice.label]
        return slice(first, first + len(choice.values))
