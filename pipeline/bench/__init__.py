"""Strategies against a published table, over seeds and devices: the command `hwnas bench`."""
