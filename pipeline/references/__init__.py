"""Published networks, trained and measured like the winner, as its reference points. Start with `training.py`."""
