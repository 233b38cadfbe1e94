"""Trials: their results and objectives, the journal that keeps them, and the budget. Start with `journal.py`."""
