"""A user's own activation: checks, and its row in the table."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from export.activations import table as activations
from export.errors import CustomActivationError
from export.exporter import module_template
from export.module_state import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable

_CHANNELS = "channels"
_WRAP_IT = (
    "it is a function of a tensor, not a class or function that makes modules: wrap it in a torch.nn.Module whose"
    " `forward` calls it, and name that class"
)
_PROBES = ((2, 8, 5, 7), (3, 6, 4, 4), (2, 8, 1, 1))


def register_custom(name: str, factory: Callable[..., Any]) -> activations.Activation:
    """Check an activation and put it into the table, replacing a row of the same name.

    Args:
        name: of the row.
        factory: an `nn.Module` class, or a function that makes modules. It is called with `channels` (the most that
            the module will see on axis 1) where it takes a parameter of that name, else with nothing.

    Raises:
        CustomActivationError: it is a function of tensors, can't be made, is no module, works in place, changes shape
            or type, gives NaN or infinity, lets no gradient through, or depends on chance or on the rest of the batch.
    """
    _check_factory(name, factory)
    takes_channels = _takes_channels(factory)

    def create(channels: int) -> nn.Module:
        try:
            module = factory(channels=channels) if takes_channels else factory()
        except Exception as error:  # somebody else's code may raise anything
            reason = f"it can't be made: {type(error).__name__}: {error}"
            raise CustomActivationError(name, _WRAP_IT if _maps_tensors(factory) else reason) from error
        if not isinstance(module, nn.Module):
            raise CustomActivationError(name, f"it gives {_of_type(module)}, not a torch.nn.Module")
        return module

    for shape in _PROBES:
        _check_form(name, create(shape[1]), shape)
    _check_conduct(name, create(_PROBES[0][1]))
    row = activations.Activation(
        name,
        create,
        module_template.emit,
        formula=_first_line(factory),
        reference="your own",
        cost="as its module says",
        learnable=any(True for _ in create(1).parameters()),
    )
    activations.register(row, replace=True)
    return row


def _check_factory(name: str, factory: Any) -> None:
    if isinstance(factory, nn.Module):
        raise CustomActivationError(
            name, "it is a module that is made already; each place needs its own: give its class, or a function that"
            " makes one"
        )  # fmt: skip
    if not callable(factory):
        raise CustomActivationError(name, f"it is {_of_type(factory)}, not a class or function that makes modules")


def _maps_tensors(factory: Callable[..., Any]) -> bool:
    """Whether the factory is itself a function of tensors, as a module's `forward` is."""
    if isinstance(factory, type):
        return False
    try:
        return isinstance(factory(torch.linspace(-3, 3, 8)), torch.Tensor)
    except Exception:  # somebody else's code may raise anything; then it is no such function
        return False


def _of_type(value: object) -> str:
    return f"something of type {type(value).__name__}"


def _takes_channels(factory: Callable[..., Any]) -> bool:
    try:
        return _CHANNELS in inspect.signature(factory).parameters
    except ValueError:  # written in C, with no signature to read
        return False


def _check_form(name: str, module: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.linspace(-3, 3, int(torch.tensor(shape).prod())).reshape(shape)
    before = x.clone()
    try:
        with torch.no_grad(), evaluating(module):
            y = module(x)
    except Exception as error:  # somebody else's code may raise anything
        raise CustomActivationError(
            name, f"on an input of shape {shape} it raises {type(error).__name__}: {error}"
        ) from error
    if not isinstance(y, torch.Tensor):
        raise CustomActivationError(name, f"it returns {_of_type(y)}, not a tensor")
    if y.shape != x.shape:
        raise CustomActivationError(
            name, f"for an input of shape {shape} it returns {tuple(y.shape)}; an activation keeps the shape"
        )
    if not torch.equal(x, before):
        raise CustomActivationError(name, "it changes its input in place, which residual paths share")
    if y.dtype != x.dtype:
        raise CustomActivationError(name, f"for float32 it returns {str(y.dtype).removeprefix('torch.')}")


def _check_conduct(name: str, module: nn.Module) -> None:
    """Check that outputs are finite, repeatable and the same for each image alone, and that a gradient passes."""
    x = torch.linspace(-3, 3, _PROBES[0][1] * 2 * 35).reshape(_PROBES[0]).requires_grad_()
    with evaluating(module):
        y, again, alone = module(x), module(x), module(x[:1])
    if not torch.isfinite(y).all():
        raise CustomActivationError(name, "for inputs from −3 to 3 it gives NaN or infinity")
    if not torch.equal(y, again):
        raise CustomActivationError(
            name, "it gives something else each time; what is deployed can't leave things to chance"
        )
    if not torch.allclose(alone, y[:1], rtol=1e-4, atol=1e-5):
        raise CustomActivationError(name, "what it gives for an image depends on the others in the batch")
    if not y.requires_grad or torch.autograd.grad(y.sum(), x, allow_unused=True)[0] is None:
        raise CustomActivationError(
            name, "no gradient reaches its input, so that what comes before it can't be trained"
        )


def _first_line(factory: Callable[..., Any]) -> str:
    written = (factory.__doc__ or "").strip().partition("\n")[0]
    return written or getattr(factory, "__name__", type(factory).__name__)
