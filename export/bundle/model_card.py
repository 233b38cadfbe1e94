"""The model card, a bundle's README: data, results, costs and limits of the network; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from export.bundle.manifest import IMAGE_FILE, INT8_FILE, MODEL_FILE, section
from export.bundle.plain_text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TEMPLATE = "bundle_readme.md.jinja"
_LARGEST_TABLE = 20
_PAIRS = 10
_SECTIONS = ("metrics", "device", "preprocessing", "dataset", "evaluation", "search", "run", "image_model", "versions")


def render(content: Mapping[str, Any], image_shape: tuple[int, ...], sizes: Mapping[str, int]) -> str:
    """Render the model card as Markdown; facts that the manifest lacks are left out.

    Args:
        content: the manifest.
        image_shape: of the stored images: (N, height, width, channels).
        sizes: of the model files, in bytes.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(),  # of HTML; this is Markdown, where `cell` does what is needed
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.ChainableUndefined,
    )
    environment.filters["cell"] = cell
    sections = {name: section(content, name) for name in _SECTIONS}
    resize, confusion = sections["preprocessing"].get("resize"), sections["evaluation"].get("confusion") or []
    card = environment.get_template(_TEMPLATE).render(
        manifest=content,
        **sections,
        resizes=resize is not None and list(resize) != list(image_shape[1:3]),
        image_shape=image_shape,
        samples=image_shape[0],
        model_bytes=sizes[MODEL_FILE],
        int8_bytes=sizes.get(INT8_FILE),
        image_bytes=sizes.get(IMAGE_FILE),
        int8_deployed=content.get("deployed") == INT8_FILE,
        deployed=content.get("deployed") or MODEL_FILE,
        whole_table=0 < len(confusion) <= _LARGEST_TABLE,
        pairs=most_confused(confusion, content.get("classes") or []),
    )
    return clean(card)


def most_confused(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> list[tuple[str, str, int, int]]:
    """The most frequent confusions first, each as (true class, predicted class, how often, of how many)."""
    found = [
        (classes[truth], classes[taken], count, sum(row))
        for truth, row in enumerate(confusion)
        for taken, count in enumerate(row)
        if truth != taken and count
    ]
    return sorted(found, key=lambda pair: -pair[2])[:_PAIRS]


def cell(value: object) -> str:
    """A value as one cell of a Markdown table."""
    text = " ".join(str(value).split())
    for special in "\\`|<*_":
        text = text.replace(special, f"\\{special}")
    return text
