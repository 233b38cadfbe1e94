"""Zero-cost scores of untrained networks. Start with `scores.py`, which has their table."""
