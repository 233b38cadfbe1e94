"""A bundle: the folder that is deployed, written whole and verified from outside; start at `write` and `verify`.

`manifest` reads and hashes its record, `model_card` renders its README, `predict` is the program inside it, and the
files ending in `_checks` hold the single checks of `verify`.
"""
