"""Names of activations in a config: rows of the table, or custom ones by dotted path."""

from __future__ import annotations

from export.activations import table as activations
from export.errors import UnknownActivationError
from export.exporter import custom_activation
from pipeline.registry import is_dotted, load, third_party

_KIND = "activation"


def resolve_activation(name: str) -> str:
    """The table's name of an activation; a custom one is added to the table.

    Args:
        name: a row or an alias, an entry point of the group `hwnas.activation`, or `package.module:attribute`. It is
            imported, so it must come from a config that the user wrote, never from a file of somebody else.

    Raises:
        UnknownActivationError: no such activation; names the nearest one, and how a custom one is named.
        CustomActivationError: what was imported can't be an activation.
        HwnasError: it can't be imported.
    """
    known = name in activations.ACTIVATIONS or name in activations.ALIASES
    if not known and (is_dotted(name) or name in third_party(_KIND)):
        custom_activation.register_custom(name, load(_KIND, name, {}))
    elif not known:
        module, _, attribute = name.rpartition(".")
        own = f"{module}:{attribute}" if module and attribute else f"my_module:{name}"
        more = f"; one's own is named as module:attribute, here perhaps {own!r}"
        raise UnknownActivationError(name, (*activations.ACTIVATIONS, *activations.ALIASES), more)
    return activations.resolve(name)
