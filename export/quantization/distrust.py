"""What stays float in a network because the runtime's integer kernels are wrong; it grows with every check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export import onnx_file
from export.errors import InvalidFileError, QuantizationError
from export.quantization import kernel_check, qdq, qdq_plan
from export.quantization.ranges import made_up

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import onnx

    from export.quantization.kernel_check import Disagreement, Feeds
    from export.quantization.qdq_plan import Plan, Range

_ERRORS: tuple[type[Exception], ...] = (InvalidFileError, *onnx_file.RUN_ERRORS)
_WIDER, _WIDEST = 1.0013, 1.004
"""Factors of a range: for each attempt, and at most: about one of its 255 steps."""
_ROUNDS = 12  # of checking, leaving nodes float, and checking again


class Distrust:
    """Values whose nodes stay float, and values behind which a barrier stands, for one network.

    Attributes:
        kept: value → the reason why its node stays float.
        isolated: values that no kernel may reach across.
        widened: value → factor of its range, so that fewer of its elements lie just between two integers.
    """

    def __init__(self) -> None:
        self.widened: dict[str, float] = {}
        self.kept: dict[str, str] = {}
        self.isolated: set[str] = set()

    def learn(self, plan: Plan, found: Sequence[Disagreement]) -> None:
        """Leave the nodes float that the runtime computes otherwise; where they are float already, keep them apart.

        Args:
            plan: of the graph that was checked.
            found: the values that are wrong.

        Raises:
            QuantizationError: they are wrong even in float, each node on its own.
        """
        for each in found:
            values = [plan.pairs.get(each.value, each.value), *each.between]
            if not self._keep(plan, values, each) and not self._isolate(values):
                raise QuantizationError(
                    f"ONNX Runtime computes {' → '.join(each.operators) or each.value} otherwise than the graph says"
                    f" ({_extent(each)}), even in float"
                )

    def widen(self, plan: Plan, restless: Sequence[str]) -> bool:
        """Widen the ranges of such values a little; returns whether there was one that could be."""
        names = {plan.moved.get(name, name) for name in (plan.pairs[value] for value in restless)}
        new = [name for name in names if name in plan.unknown() and self.widened.get(name, 1.0) < _WIDEST]
        self.widened.update((name, self.widened.get(name, 1.0) * _WIDER) for name in new)
        return bool(new)

    def wider(self, ranges: Mapping[str, Range]) -> dict[str, Range]:
        """The ranges, with those of restless values widened."""
        factors = {name: self.widened.get(name, 1.0) for name in ranges}
        return {name: (low * factors[name], high * factors[name]) for name, (low, high) in ranges.items()}

    def _keep(self, plan: Plan, values: Sequence[str], found: Disagreement) -> bool:
        named = [name for value in values for name in plan.sources.get(value, ())]
        new = [name for name in dict.fromkeys(named) if name not in self.kept]
        operators = " → ".join(found.operators)
        reason = f"ONNX Runtime's integer kernel for {operators} computes something else than the graph says"
        self.kept.update((name, f"{reason} ({_extent(found)})") for name in new)
        return bool(new)

    def _isolate(self, values: Sequence[str]) -> bool:
        new = set(values) - self.isolated
        self.isolated |= new
        return bool(new)

    def learn_from_refusal(self, values: Sequence[str], opens: Callable[[dict[str, str]], bool], reason: str) -> None:
        """Find the node whose integer form the runtime refuses to load, and leave it float.

        Args:
            values: of the integer operators, in order of execution.
            opens: whether the model can be loaded with these values' nodes in float, besides the kept ones.
            reason: what the runtime said.

        Raises:
            QuantizationError: it can't be loaded with all of them in float either.
        """
        words = f"ONNX Runtime can't load its integer form: {reason}"
        if not opens(dict.fromkeys(values, words)):
            raise QuantizationError(f"ONNX Runtime can't load it, nor with all of it in float: {reason}")
        good, bad = 0, len(values)  # with the first `good` of them quantised it loads, with the first `bad` it doesn't
        while bad - good > 1:
            middle = (good + bad) // 2
            if opens(dict.fromkeys(values[middle:], words)):
                good = middle
            else:
                bad = middle
        self.kept[values[good]] = words


def _extent(found: Disagreement) -> str:
    if found.steps > 1e6:
        return "results that can't be compared"
    return f"{found.share:.2%} of its values are off, by up to {found.steps:.1f} steps"


def trusted_model(
    source: onnx.ModelProto,
    float_nodes: Collection[str],
    distrust: Distrust,
    ranges: Callable[[Plan], Mapping[str, Range]],
    feeds: Feeds,
) -> tuple[Plan, onnx.ModelProto]:
    """Quantise a model so that the session that runs it computes what its graph says.

    Args:
        source: the float model, prepared.
        float_nodes: values whose nodes stay float in any case.
        distrust: what is known to be wrong, and learns what is found.
        ranges: of a plan's activations.
        feeds: inputs to check the kernels on.

    Returns:
        The plan and the quantised model.

    Raises:
        QuantizationError: nothing is left to quantise, the model can't be run on the inputs, or the runtime computes
            a part of it wrongly even in float.
    """
    for _ in range(_ROUNDS):
        plan = planned(source, float_nodes, distrust)
        model = qdq.write(plan, distrust.wider(ranges(plan)))
        try:
            found = kernel_check.findings(model, feeds)
        except InvalidFileError as error:
            values = [name for value in plan.activations for name in plan.sources.get(value, ())[-1:]]
            distrust.learn_from_refusal(values, _opening(source, float_nodes, distrust, feeds), error.reason)
            continue
        except onnx_file.RUN_ERRORS as error:
            raise QuantizationError(f"it can't be run on the inputs of the check: {error}") from error
        if not found.wrong and not (found.restless and distrust.widen(plan, found.restless)):
            return plan, model
        distrust.learn(plan, found.wrong)
    raise QuantizationError(f"after {_ROUNDS} rounds of leaving nodes in float the runtime still computes it wrongly")


def _opening(
    source: onnx.ModelProto, float_nodes: Collection[str], distrust: Distrust, feeds: Feeds
) -> Callable[[dict[str, str]], bool]:
    """Whether the model can be loaded and run with some more nodes in float, as a function of these."""

    def opens(kept: dict[str, str]) -> bool:
        plan = qdq_plan.plan(source, float_nodes, kept={**distrust.kept, **kept}, isolated=distrust.isolated)
        try:
            onnx_file.open_session(qdq.write(plan, made_up(plan)).SerializeToString()).run(None, dict(feeds))
        except _ERRORS:
            return False
        return True

    return opens


def planned(
    model: onnx.ModelProto, float_nodes: Collection[str] = (), distrust: Distrust | None = None
) -> qdq_plan.Plan:
    """Plan a model's quantisation.

    Raises:
        QuantizationError: there is nothing to quantise.
    """
    distrust = distrust or Distrust()
    plan = qdq_plan.plan(model, float_nodes, kept=distrust.kept, isolated=distrust.isolated)
    if not plan.weights and distrust.kept:
        reasons = "; ".join(dict.fromkeys(distrust.kept.values()))
        raise QuantizationError(f"all of it has to stay float: {reasons}")
    if not plan.weights and float_nodes:
        raise QuantizationError("all of it is to stay float")
    if not plan.weights:
        raise QuantizationError(
            "it has no convolution of 1 or 2 dimensions and no matrix product with constant float32 weights"
        )
    return plan
