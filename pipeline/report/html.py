"""HTML pages made from templates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader

from export.bundle.plain_text import clean
from pipeline.files import write_whole

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
    write_whole(path, clean(page).encode())
