"""Does an exported file compute what its network does? On inputs that would show it; if not, from which module on."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from torch import nn

from export import agreement, onnx_file
from export.errors import InvalidFileError
from export.module_state import evaluating

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    from onnxruntime import InferenceSession

    from export.agreement import Difference, Probe

_NAMED = 3
_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, AttributeError)


@dataclass(frozen=True)
class Infidelity:
    """A file's difference from its network, and where it begins, in words."""

    difference: Difference
    where: str

    def __str__(self) -> str:
        return f"the outputs of the file differ from the network's {self.difference}; {self.where}"


def infidelity(network: nn.Module, model: onnx.ModelProto, probes: Sequence[Probe]) -> Infidelity | None:
    """The file's largest difference from its network; None where there is none, or the network leaves it to chance.

    Args:
        network: takes one tensor and returns one; it runs in eval mode.
        model: exported from it.
        probes: inputs of both.

    Raises:
        InvalidFileError: the file can't be run on the inputs.
    """
    session = onnx_file.open_session(model.SerializeToString())
    with _one_thread():
        return _infidelity(network, model, probes, session)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute with one thread: a few small runs gain nothing from more, which wait for each other busily."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _infidelity(
    network: nn.Module, model: onnx.ModelProto, probes: Sequence[Probe], session: InferenceSession
) -> Infidelity | None:
    found: list[tuple[Difference, Probe]] = []
    with evaluating(network), torch.no_grad():
        for probe in probes:
            wanted, again, near = (_output(network, inputs) for inputs in (probe.inputs, probe.inputs, _near(probe)))
            if wanted is None or again is None or wanted.dtype.kind != "f":
                continue
            if not np.array_equal(wanted, again, equal_nan=True):
                return None
            each = agreement.difference(probe.kind, onnx_file.run(session, probe.inputs), wanted, near)
            if each is not None:
                found.append((each, probe))
    if not found:
        return None
    difference, probe = max(found, key=lambda pair: pair[0].largest / (pair[0].tolerance or 1.0))
    return Infidelity(difference, _where(network, model, probe))


def _near(probe: Probe) -> npt.NDArray[Any]:
    return agreement.nudged(probe.inputs) if probe.inputs.dtype.kind == "f" else probe.inputs


def _output(network: nn.Module, inputs: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """The network's outputs; None where it can't take such inputs, as ids that are no words."""
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    try:
        return np.asarray(network(torch.from_numpy(inputs).to(device)).cpu().numpy())
    except _ERRORS:
        return None


def _where(network: nn.Module, model: onnx.ModelProto, probe: Probe) -> str:
    """The modules that ran after the last one whose output is a value of the file."""
    seen = _module_outputs(network, probe)
    try:
        values = _file_values(model, probe)
    except InvalidFileError:
        return "its values can't be looked at"
    matched = [at for at, (_, output) in enumerate(seen) if any(_equal(output, value) for value in values)]
    after = seen[matched[-1] + 1 :] if matched else seen
    last = f"{seen[matched[-1]][0]} is still right" if matched else "no module's output is found in it"
    if not after:
        return f"{last}; what {type(network).__name__} does after it is not"
    names = [name for name, _ in after]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{last}; look at {', '.join(names[:_NAMED])}{more}"


def _module_outputs(network: nn.Module, probe: Probe) -> list[tuple[str, npt.NDArray[Any]]]:
    """Name and output of every module without modules of its own, in the order in which they ran."""
    seen: list[tuple[str, npt.NDArray[Any]]] = []

    def noting(name: str, module: nn.Module) -> Any:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                said = type(module).__name__ if not name else f"{name} ({type(module).__name__})"
                seen.append((said, output.detach().cpu().numpy().copy()))

        return note

    parts = [(name, part) for name, part in network.named_modules() if not any(True for _ in part.children())]
    handles = [part.register_forward_hook(noting(name, part)) for name, part in parts]
    try:
        with evaluating(network), torch.no_grad():
            _output(network, probe.inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _file_values(model: onnx.ModelProto, probe: Probe) -> list[npt.NDArray[Any]]:
    """All values that the file makes, node by node."""
    watched = onnx_file.copied(model)
    names = [name for node in model.graph.node for name in node.output if name]
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = onnx_file.open_session(watched.SerializeToString(), optimised=False)
    try:
        return list(session.run(names, {session.get_inputs()[0].name: probe.inputs}))
    except onnx_file.RUN_ERRORS as error:
        raise InvalidFileError("the model", str(error)) from error


def _equal(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    if one.shape != other.shape or one.dtype.kind != "f" or other.dtype.kind != "f":
        return False
    return bool(np.allclose(one, other, rtol=1e-3, atol=1e-5 * float(np.abs(one).max(initial=0)), equal_nan=True))
