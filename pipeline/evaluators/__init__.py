"""Evaluators: from a built network to its accuracy. Start with `base.py`; `train.py` is the smallest."""
