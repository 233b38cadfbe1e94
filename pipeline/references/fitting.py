"""How often a network that was made for large images may halve small ones."""

from __future__ import annotations

import math


def halvings(height: int, width: int, most: int, least_map: int) -> int:
    """How many of a network's halvings an image can bear; its first ones are to be left out.

    At the usual sizes that is what the literature does by hand: a residual network of 5 halvings keeps all of them at
    224 pixels (a last map of 7×7) and its last 3 at 32 (4×4, no stride and no pooling in the stem).

    Args:
        height: of the images.
        width: of the images.
        most: halvings that the network has.
        least_map: what the last map's shorter side shall not fall below; of small images a quarter of the side, and
            2 pixels, where that is less.
    """
    side = min(height, width)
    wanted = min(least_map, max(2, side // 4))
    return max((n for n in range(most + 1) if math.ceil(side / 2**n) >= wanted), default=0)
