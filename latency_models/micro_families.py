"""Families of micro-benchmarks: short chains of operators as they occur in networks, of random sizes.

Each family draws one graph from a random generator. Chains are so long that the call itself is a small part of their
time; each link has weights of its own, so that they come from as far away as they do in a network.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from latency_models import micro_convolutions, micro_others

Family = Callable[[np.random.Generator], bytes]

FAMILIES: tuple[tuple[Family, int], ...] = (
    (micro_convolutions.convolutions, 80),
    (micro_convolutions.pointwise, 80),
    (micro_convolutions.separable, 70),
    (micro_convolutions.first, 30),
    (micro_convolutions.few_channels, 20),
    (micro_convolutions.excitation, 25),
    (micro_convolutions.activations, 50),
    (micro_others.elementwise, 60),
    (micro_convolutions.residual, 25),
    (micro_convolutions.branches, 25),
    (micro_convolutions.dense, 15),
    (micro_convolutions.affine, 15),
    (micro_convolutions.shuffled, 20),
    (micro_convolutions.grouped, 40),
    (micro_convolutions.open_convolutions, 45),
    (micro_others.heads, 15),
    (micro_others.layouts, 15),
    (micro_others.vectors, 25),
    (micro_others.matrices, 25),
    (micro_others.pools, 30),
    (micro_others.others, 45),
    (micro_convolutions.eight_bits, 40),
    (micro_convolutions.heavy, 20),
    (micro_others.tiny, 10),
)
"""Each family with the number of graphs that are drawn from it."""
