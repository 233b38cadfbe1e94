"""Spaces without networks, and accuracies and costs that are made up for any space: what `wide_spaces.py` searches."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from pipeline.config.space import ConvNetOptions
from pipeline.nni_types import ModelSpace, choice
from pipeline.spaces.base import Architecture, Choice, SearchSpace, Value
from pipeline.spaces.convnet import ConvNetSpace
from pipeline.strategies.integer_codes import IntegerEncoder

_SAMPLE = 4000
_ERROR_PERCENTILE, _COST_PERCENTILE = 90, 99


class _Labels(ModelSpace):  # type: ignore[misc]  # NNI has no types
    def __init__(self, choices: Sequence[Choice]) -> None:
        super().__init__()
        for each in choices:
            self.add_mutable(choice(each.label, list(each.values)))


class _Nameless(SearchSpace):
    def model_space(self) -> ModelSpace:
        """Labels and values, without layers."""
        return _Labels(self.choices)

    def build(self, architecture: Mapping[str, Value]) -> NoReturn:
        """Raise: there is no network to build."""
        raise NotImplementedError


class Blocks(_Nameless):
    """A chain of one to four blocks."""

    def __init__(self) -> None:
        choices = [Choice("depth", (1, 2, 3, 4))]
        for block in range(4):
            present = (("depth", tuple(range(block + 1, 5))),) if block else ()
            expanding = (*present, (f"kind{block}", ("fused", "inverted")))
            choices += [
                Choice(f"kind{block}", ("residual", "fused", "inverted"), present),
                Choice(f"kernel{block}", (3, 5), present),
                Choice(f"expansion{block}", (2, 4), expanding),
            ]
        self.choices = tuple(choices)

    def network(self, architecture: Mapping[str, Value]) -> Hashable:
        """The blocks, each with what a layer of its kind would be made with."""
        made = []
        for block in range(int(architecture["depth"])):
            kind = architecture[f"kind{block}"]
            expansion = None if kind == "residual" else architecture[f"expansion{block}"]
            made.append((kind, architecture[f"kernel{block}"], expansion))
        return tuple(made)


class Mixed(_Nameless):
    """Towers that are switched on, each with as many cells as it has; numbers, names, truth values."""

    _TOWERS, _CELLS = 3, 6

    def __init__(self) -> None:
        choices = [Choice("resolution", (96, 128, 160, 192, 224)), Choice("dropout", (0.0, 0.1, 0.25, 0.5))]
        for tower in (f"tower{n}" for n in range(self._TOWERS)):
            on = ((tower, (True,)),)
            choices += [
                Choice(tower, (False, True)),
                Choice(f"{tower}.cells", tuple(range(1, self._CELLS + 1)), on),
                Choice(f"{tower}.scale", (0.5, 1.0, 2.0), on),
            ]
            for cell in range(self._CELLS):
                label, within = f"{tower}.cell{cell}", tuple(range(cell + 1, self._CELLS + 1))
                present = (*on, (f"{tower}.cells", within))
                choices += [
                    Choice(label, ("conv", "pool", "skip"), present),
                    Choice(f"{label}.kernel", (1, 3, 5, 7), (*present, (label, ("conv",)))),
                    Choice(f"{label}.mean", (False, True), (*present, (label, ("pool",)))),
                ]
        self.choices = tuple(choices)

    def network(self, architecture: Mapping[str, Value]) -> Hashable:
        """The towers that are there, and the cells that they have."""
        towers = []
        for tower in (f"tower{n}" for n in range(self._TOWERS)):
            if architecture[tower]:
                cells = range(int(architecture[f"{tower}.cells"]))
                made = tuple(self._cell(architecture, f"{tower}.cell{cell}") for cell in cells)
                towers.append((tower, architecture[f"{tower}.scale"], made))
        return architecture["resolution"], architecture["dropout"], tuple(towers)

    @staticmethod
    def _cell(architecture: Mapping[str, Value], label: str) -> Hashable:
        option = {"conv": "kernel", "pool": "mean"}.get(str(architecture[label]))
        return architecture[label], architecture[f"{label}.{option}"] if option else None


class Networks(ConvNetSpace):
    """The project's own, three stages 1 to 4 blocks deep."""

    def __init__(self) -> None:
        options = ConvNetOptions(name="convnet", stages=3, depths=[1, 2, 3, 4], activation_scope="block")
        super().__init__(options, (3, 32, 32), 10)

    def network(self, architecture: Mapping[str, Value]) -> Hashable:
        """The blocks that its cost model sees."""
        return tuple((block.kind, block.settings, block.input_shape) for block in self.blocks(architecture))


SPACES: dict[str, Callable[[], Any]] = {"blocks": Blocks, "convnet": Networks, "mixed": Mixed}
"""Spaces whose `network(architecture)` is equal for architectures that are the same network."""


class MadeUp:
    """Accuracies and costs by the effects of active choices; the costs are also known without a trial.

    Each value of a choice has an effect on the accuracy, more of it good than bad, and so has each pair of values of
    choices that follow each other; and it has a cost. So what is larger is better and dearer, by and large, and no
    choice can be made for itself. The effects are the same for every seed of a search.

    Attributes:
        metrics: the cost's name.
        reference: (2,), an error and a cost that nearly every architecture is below.
    """

    metrics: tuple[str, ...] = ("macs",)

    def __init__(self, space: SearchSpace) -> None:
        self._encoder = IntegerEncoder(space.choices)
        count, most = len(space.choices), int(self._encoder.sizes.max())
        generator = np.random.default_rng(7)
        self._single, self._pairs = np.zeros((count, most + 1)), np.zeros((count, most + 1, most + 1))
        self._single[:, :-1] = generator.normal(0.3, 1.0, (count, most))
        self._pairs[:, :-1, :-1] = generator.normal(0.0, 0.7, (count, most, most))
        self._cost = np.zeros((count, most + 1))  # the last ones, of inactive choices, stay 0
        self._cost[:, :-1] = generator.lognormal(0.0, 1.0, (count, most))
        codes = self._encoder.sample(_SAMPLE, np.random.default_rng(8))
        gains = self._gains(codes)
        self._centre, self._width = float(np.median(gains)), float(gains.std())
        shares = np.percentile(self._errors(codes), _ERROR_PERCENTILE), np.percentile(self._of(codes), _COST_PERCENTILE)
        self.reference = np.array(shares)

    def _gains(self, codes: np.ndarray) -> np.ndarray:
        places = np.arange(codes.shape[1])
        single = self._single[places, codes].sum(axis=1)
        return np.asarray(single + self._pairs[places[1:], codes[:, :-1], codes[:, 1:]].sum(axis=1))

    def _errors(self, codes: np.ndarray) -> np.ndarray:
        return np.asarray(0.02 + 0.9 / (1 + np.exp((self._gains(codes) - self._centre) / self._width + 1)))

    def _of(self, codes: np.ndarray) -> np.ndarray:
        return np.asarray(1e6 * (1 + self._cost[np.arange(codes.shape[1]), codes].sum(axis=1)))

    def costs(self, architectures: Sequence[Architecture]) -> np.ndarray:
        """(architectures, 1), as `pipeline.strategies.problem.KnownCosts` has them."""
        return self._of(self._encoder.encode(architectures))[:, None]

    def objectives(self, architecture: Architecture) -> dict[str, float]:
        """What a trial tells."""
        codes = self._encoder.encode([architecture])
        return {"accuracy": 1 - float(self._errors(codes)[0]), "macs": float(self._of(codes)[0])}
