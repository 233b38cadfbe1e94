"""Rewriting each activation of a graph in its cheapest exact form, however it was written; no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from export.lowering import elementwise, families
from export.lowering.families import RecognisedActivation
from export.lowering.forms import Context, forms_of
from export.lowering.node_writer import NodeWriter, initializers
from export.lowering.regions import Region, regions
from export.lowering.scale_folding import ScaleFolding
from export.lowering.value_types import ValueTypes
from export.onnx_file import all_graphs, copied, opset_of, value_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import onnx

    from export.lowering.forms import Form

    Array = npt.NDArray[Any]

_SAFE_SCALES = (1e-2, 1e2)  # learned scales outside stay where they are: weights would lose digits
_REMEMBERED = 4096
OLDEST_OPSET = 9
"""Older operators broadcast by other rules."""
_SPECIAL = np.array([np.nan, np.inf, -np.inf], np.float32)
_SPECIAL_NAMES = ("NaN", "+∞", "−∞")
_ONLY_SHORTER = frozenset({"piecewise_linear"})  # |x|, say, is one of them


@dataclass(frozen=True)
class LoweredSite:
    """One activation of a graph, before and after lowering.

    Attributes:
        place: module path, or name of the node.
        activation: its family.
        name: its name with these parameters, as relu is a leaky_relu.
        form: the form that it is written in now; None where it was left as it was.
        folded: whether a scale of its own went into the weights around it.
        before: operators that it was written with.
        after: operators that it is written with now.
        forms: all forms that fit, the default first.
        deviations: inputs with another result than before, as in "NaN gives 0 instead of NaN".
    """

    place: str
    activation: str
    name: str
    form: str | None
    folded: bool
    before: tuple[str, ...]
    after: tuple[str, ...]
    forms: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()


@dataclass
class _Memory:
    """A cache of recognised regions and checked forms, shared by all graphs of a process."""

    recognised: dict[object, RecognisedActivation | None] = field(default_factory=dict)
    checked: dict[object, tuple[str, ...] | None] = field(default_factory=dict)

    def trim(self) -> None:
        for remembered in (self.recognised, self.checked):
            if len(remembered) > _REMEMBERED:
                remembered.clear()


_MEMORY = _Memory()


def lower_activations(model: onnx.ModelProto, forms: Mapping[str, str] | None = None) -> list[LoweredSite]:
    """Write every activation that is recognised in its cheapest form, in place.

    Args:
        model: its main graph is changed.
        forms: family → name of the form to prefer where it fits; the default is the first of `FORMS` that fits.

    Returns:
        The activations, in order of execution.
    """
    _MEMORY.trim()
    types = ValueTypes(model)
    found = activation_regions(model, types)
    if not found:
        return []
    pass_ = _Pass(model, found, types.channels, forms or {})
    sites = [pass_.lower(region) for region in found]
    pass_.write()
    return sites


def activation_regions(model: onnx.ModelProto, types: ValueTypes) -> list[Region]:
    """Regions of the main graph that are activations, in order of execution; none below `OLDEST_OPSET`."""
    if (opset_of(model) or 0) < OLDEST_OPSET:
        return []
    found = regions(model.graph, lambda region: _accepted(region, types))
    return sorted(found, key=lambda region: region.positions[-1])


def _accepted(region: Region, types: ValueTypes) -> bool:
    act = _recognised(region)
    if act is None or not types.takes(region):
        return False
    return act.family not in _ONLY_SHORTER or _shortened(region, act, types.channels.get(region.root))


def _shortened(region: Region, act: RecognisedActivation, channels: int | None) -> bool:
    """Whether the activation has a form that isn't longer; otherwise smaller activations within it may have one."""
    for form in forms_of(act, Context(channels, joins=False, opset=OLDEST_OPSET)):
        writer = NodeWriter(set(), "", channels=channels)
        form.write(writer, region.root, act)
        return len(writer.nodes) <= len(region.nodes)
    return False


def _recognised(region: Region) -> RecognisedActivation | None:
    key = region.key
    if key not in _MEMORY.recognised:
        _MEMORY.recognised[key] = families.recognise(region)
    return _MEMORY.recognised[key]


class _Pass:
    def __init__(
        self, model: onnx.ModelProto, found: list[Region], channels: Mapping[str, int], forms: Mapping[str, str]
    ) -> None:
        self._graph, self._forms = model.graph, forms
        self._opset = opset_of(model) or 0
        self._channels = channels
        self._maker = {name: node for node in model.graph.node for name in node.output}
        self._names = value_names(model.graph).union(
            node.name for graph in all_graphs(model.graph) for node in graph.node
        )
        within = frozenset(node.output[0] for region in found for node in region.nodes)
        self._folding = ScaleFolding(model.graph, self._names, channels, within)
        self._readers: dict[str, int] = {}
        for node in model.graph.node:
            for name in set(node.input):
                self._readers[name] = self._readers.get(name, 0) + 1
        self._outputs = {info.name for info in model.graph.output}
        self._new: dict[int, list[onnx.NodeProto]] = {}
        self._dropped: set[int] = set()

    def lower(self, region: Region) -> LoweredSite:
        act = _recognised(region)
        assert act is not None
        readers = sum(region.root in node.input for node in region.nodes)
        foldable = act.channels == 1 or self._channels_of(region, act) is not None
        folded = _folded(act, region, self._folding, readers) if foldable else act
        joins = self._joins(region, readers)
        context = Context(self._channels_of(region, folded), joins, self._opset)
        before = tuple(node.op_type for node in region.nodes)
        site = LoweredSite(_place(region), act.family, act.name, None, folded is not act, before, before)
        exact = {
            form: differences
            for form in forms_of(folded, context)
            if (differences := deviations(folded, form, region if folded is act else None)) is not None
        }
        form = self._chosen(exact, self._forms.get(folded.family), region, readers)
        if form is None:
            return site
        site = replace(site, form=form.name, forms=tuple(each.name for each in exact))
        old = _inner_names(region)
        self._names -= old  # the new nodes may have them
        writer = self._writer(region, context)
        output = form.write(writer, region.root, folded)
        self._names |= old
        if folded is act and form.scale == 1.0 and _alike(writer.nodes, region.nodes):
            return site
        self._replace(region, writer, output)
        return replace(site, after=tuple(node.op_type for node in writer.nodes), deviations=exact[form])

    def _chosen(
        self, exact: dict[Form, tuple[str, ...]], wanted: str | None, region: Region, readers: int
    ) -> Form | None:
        """Choose the wanted form, else the first that fits, and fold the scale that it needs on its input."""
        for form in sorted(exact, key=lambda each: each.name != wanted):
            if form.scale == 1.0 or self._folding.before(region.root, np.array([form.scale]), readers):
                return form
            del exact[form]
        return None

    def write(self) -> None:
        """Put the new nodes where the old ones were."""
        nodes: list[onnx.NodeProto] = []
        for at, node in enumerate(self._graph.node):
            nodes.extend(self._new.get(at, ()))
            if at not in self._dropped:
                nodes.append(copied(node))
        del self._graph.node[:]
        self._graph.node.extend(nodes)

    def _writer(self, region: Region, context: Context) -> NodeWriter:
        axis = region.channel_axis if region.channel_axis is not None else 2
        prefix = "" if region.nodes[-1].name.startswith(region.nodes[-1].op_type) else _place(region)
        return NodeWriter(self._names, prefix, channels=context.channels, axis=axis, origin=region.nodes[-1])

    def _replace(self, region: Region, writer: NodeWriter, output: str) -> None:
        for node in writer.nodes:
            for at, name in enumerate(node.output):
                if name == output:
                    node.output[at] = region.output
            for at, name in enumerate(node.input):
                if name == output:
                    node.input[at] = region.output
        self._graph.initializer.extend(initializers(writer.constants))
        self._maker[region.output] = next(node for node in writer.nodes if region.output in node.output)
        self._dropped.update(region.positions)
        self._new[region.positions[-1]] = writer.nodes

    def _joins(self, region: Region, readers: int) -> bool:
        maker = self._maker.get(region.root)
        if maker is None or maker.op_type != "Conv" or region.root in self._outputs:
            return False
        return self._readers.get(region.root, 0) == readers

    def _channels_of(self, region: Region, act: RecognisedActivation) -> int | None:
        channels = self._channels.get(region.root)
        on_axis_1 = region.channel_axis in (None, 2)
        return channels if channels is not None and on_axis_1 and act.channels in (1, channels) else None


def _folded(act: RecognisedActivation, region: Region, folding: ScaleFolding, readers: int) -> RecognisedActivation:
    """The activation that is left when its learned scales are folded into the weights around it."""
    fold = _FOLDS.get(act.family)
    return fold(act, region, folding, readers) if fold is not None else act


def _fold_swish(act: RecognisedActivation, region: Region, folding: ScaleFolding, readers: int) -> RecognisedActivation:
    beta = act.parameters["beta"]
    if act.all("beta", 1.0) or not _safe(beta) or not folding.before(region.root, np.ones(1), readers):  # can it be?
        return act
    if not folding.behind(region.output, 1 / beta):
        return act
    folding.before(region.root, beta, readers)
    return RecognisedActivation("swish", {"beta": np.ones(1)})


def _fold_sigmoid(
    act: RecognisedActivation, region: Region, folding: ScaleFolding, readers: int
) -> RecognisedActivation:
    parameters = dict(act.parameters)
    changed = False
    if act.all("scale", 2.0) and act.all("shift", -1.0) and act.all("inner", 2.0):
        return act  # tanh
    inner = parameters["inner"]
    if not act.all("inner", 1.0) and _safe(inner) and folding.before(region.root, inner, readers):
        parameters["inner"], changed = np.ones(1), True
    plain = act.all("scale", 1.0) and act.all("shift", 0.0)
    shift = parameters["shift"] if parameters["shift"].any() else None
    if not plain and _safe(parameters["scale"]) and folding.behind(region.output, parameters["scale"], shift):
        parameters |= {"scale": np.ones(1), "shift": np.zeros(1)}
        changed = True
    return RecognisedActivation("sigmoid", parameters) if changed else act


def _fold_acon(act: RecognisedActivation, region: Region, folding: ScaleFolding, readers: int) -> RecognisedActivation:
    """Fold k and d: x(dσ(kx) + b) = u(d/k·σ(u) + b/k) with u = kx, which is d/k times u(σ(u) + b/d)."""
    inner = act.parameters["inner"]
    difference, lower = act.parameters["difference"], act.parameters["lower"]
    if act.all("inner", 1.0) or not _safe(inner) or not folding.before(region.root, inner, readers):
        return act
    difference, lower = difference / inner, lower / inner
    if _safe(difference) and folding.behind(region.output, difference):
        difference, lower = np.ones(1), lower / difference
        if not lower.any():
            return RecognisedActivation("swish", {"beta": np.ones(1)})
    return RecognisedActivation("acon", {"difference": difference, "lower": lower, "inner": np.ones(1)})


_FOLDS = {"swish": _fold_swish, "sigmoid": _fold_sigmoid, "acon": _fold_acon}


def _safe(scale: Array) -> bool:
    low, high = _SAFE_SCALES
    return bool(np.all((np.abs(scale) >= low) & (np.abs(scale) <= high)))


def deviations(act: RecognisedActivation, form: Form, region: Region | None) -> tuple[str, ...] | None:
    """Phrases on how a form differs at NaN and ±∞ from the region; None where it isn't the same function at all.

    Without a region, as after folding, it is compared with the activation itself.
    """
    parameters = tuple((name, values.shape, values.tobytes()) for name, values in act.parameters.items())
    key = (act.family, parameters, form.name, None if region is None else region.key)
    if key not in _MEMORY.checked:
        _MEMORY.checked[key] = _checked(act, form, region)
    return _MEMORY.checked[key]


def _checked(act: RecognisedActivation, form: Form, region: Region | None) -> tuple[str, ...] | None:
    axis = 2 if region is None or region.channel_axis is None else region.channel_axis
    writer = NodeWriter(set(), "", channels=act.channels, axis=axis)
    output = form.write(writer, "x", act)
    points = families.points_for(act.channels)

    def written(x: Array) -> Array:
        shaped = x.reshape(-1, *([1] * (axis + 1)))
        values = elementwise.evaluate(writer.nodes, writer.constants, "x", output, np.float32(form.scale) * shaped)
        return np.moveaxis(values.reshape(len(x), -1), 0, 1)

    if not families.same(points, act(points), written(points)):
        return None
    return _compared(act(_SPECIAL) if region is None else region(_SPECIAL), written(_SPECIAL))


def _compared(old: Array, new: Array) -> tuple[str, ...]:
    phrases = []
    for at, name in enumerate(_SPECIAL_NAMES):
        pairs = {
            (_text(a), _text(b))
            for a, b in zip(*np.broadcast_arrays(old[:, at], new[:, at]), strict=True)
            if _text(a) != _text(b)
        }
        phrases += [f"{name} gives {found} instead of {expected}" for expected, found in sorted(pairs)]
    return tuple(phrases)


def _text(value: float) -> str:
    return "NaN" if np.isnan(value) else "+∞" if value == np.inf else "−∞" if value == -np.inf else f"{value:.4g}"


def _inner_names(region: Region) -> set[str]:
    return {name for node in region.nodes for name in (node.name, *node.output)} - {region.output, region.root, ""}


def _alike(new: list[onnx.NodeProto], old: tuple[onnx.NodeProto, ...]) -> bool:
    return sorted(node.op_type for node in new) == sorted(node.op_type for node in old)


def _place(region: Region) -> str:
    """The module's path where the node's name contains it; otherwise the node's name, or its output's."""
    name = region.nodes[-1].name
    return name.rpartition("/")[0] or name or region.output
