"""A network's activation modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.activations import table as activations

if TYPE_CHECKING:
    from torch import nn


def sites_of(network: nn.Module) -> dict[str, nn.Module]:
    """Map the path of each of the table's activations in a network to its module; nested ones are left out."""
    found: dict[str, nn.Module] = {}
    for path, module in network.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in found)
        if activations.emitter_of(type(module)) is not None and not inside:
            found[path] = module
    return found
