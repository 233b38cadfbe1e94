"""Micro-benchmarks: small random networks that the costs of operators are learnt from. Start at `benchmarks`."""
