"""The graph that ONNX Runtime's optimiser makes, kept in a file beside its larger weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_KEPT_WITH_THE_GRAPH = 1024  # bytes; larger weights go to a file of their own, which hardly anybody reads


def save_optimised_graph(options: Any, path: Path) -> None:
    """Have a session with these options write its optimised graph to `path`, its larger weights to a file beside it."""
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", str(_KEPT_WITH_THE_GRAPH)
    )
