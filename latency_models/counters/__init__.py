"""Readings beside the clock: energy, a GPU's memory, a fresh process's memory; each may be `Unavailable`."""
