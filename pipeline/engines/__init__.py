"""Engines, NNI's `ExecutionEngine`s: where trials run. Start with `base.py`; `trial.py` has the life of one trial."""
