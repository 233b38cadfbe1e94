"""One set of weights for all networks of a space. Start with `shared_weights.py`; `training.py` trains them."""
