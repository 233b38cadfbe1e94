"""Pages from templates."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader

if TYPE_CHECKING:
    from pathlib import Path


def write_html(path: Path, template: str, **facts: Any) -> None:
    """Write a page, whole or not at all.

    Args:
        path: of the page.
        template: its name in this package.
        facts: what the template tells.
    """
    environment = Environment(
        loader=PackageLoader("pipeline", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template(template).render(**facts)
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")  # another process may write it, too
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(path)
