"""Fitting networks for large images to small ones."""

from __future__ import annotations

import math


def halvings(height: int, width: int, most: int, least_map: int) -> int:
    """The number of a network's halvings of the resolution to keep for an image; its first ones are left out.

    At usual sizes that agrees with the literature: a residual network of 5 halvings keeps all of them at 224 pixels (a
    last map of 7×7) and its last 3 at 32 (4×4, no stride and no pooling in the stem).

    Args:
        height: of the images.
        width: of the images.
        most: halvings of the whole network.
        least_map: smallest shorter side of the last map; for small images a quarter of their side, but at least 2
            pixels, if that is less.
    """
    side = min(height, width)
    wanted = min(least_map, max(2, side // 4))
    return max((n for n in range(most + 1) if math.ceil(side / 2**n) >= wanted), default=0)
