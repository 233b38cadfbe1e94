"""NNI's model space for searches of many trials: what it samples shares all with it but the sample."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from pipeline.nni_types import Categorical, ModelStatus, SimplifiedModelSpace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

_Drawn = tuple[str, "Sequence[Any]", "Sequence[float]"]


class LightModelSpace(SimplifiedModelSpace):  # type: ignore[misc]  # NNI has no types
    """Gives a strategy the same models as `SimplifiedModelSpace`, in a tenth of the time.

    NNI copies each sample deeply, labels included, looks its mutables up again for every model, and draws them one by
    one; a resumed search of 100,000 trials spends minutes on that. The draws here are the same numbers, so a strategy
    with the same seed asks for the same models.
    """

    def simplify(self) -> dict[str, Any]:
        """The choices by their labels."""
        return dict(self._simplified)

    @cached_property
    def _simplified(self) -> dict[str, Any]:
        return dict(super().simplify())

    @cached_property
    def _table(self) -> list[_Drawn] | None:
        """Label, values and cumulative weights of each choice, as NumPy's `choice` has them; None for other kinds."""
        mutables = list(self._simplified.values())
        if any(type(each) is not Categorical for each in mutables):
            return None
        return [(each.label, each.values, _cumulative(each.weights)) for each in mutables]

    def random(self, memo: dict[str, Any] | None = None, random_state: np.random.RandomState | None = None) -> Any:
        """A random model; `memo` receives its sample."""
        sample: dict[str, Any] = {} if memo is None else memo
        if sample or random_state is None or self._table is None:
            return super().random(sample, random_state)
        for (label, values, cumulative), drawn in zip(
            self._table, random_state.random_sample(len(self._table)).tolist(), strict=True
        ):
            sample[label] = values[bisect_right(cumulative, drawn)]
        return self.freeze(sample)

    def freeze(self, sample: Mapping[str, Any]) -> LightModelSpace:
        """The model of a sample."""
        if self.status != ModelStatus.Initialized:
            raise RuntimeError("a model that is frozen can't be frozen again")
        self.validate(sample)
        model = object.__new__(type(self))
        model.__dict__ |= self.__dict__
        model.status, model.metrics, model.sample = ModelStatus.Frozen, type(self.metrics)(), dict(sample)
        return model


def _cumulative(weights: Sequence[float]) -> list[float]:
    sums = list(accumulate(weights))
    return [each / sums[-1] for each in sums]
