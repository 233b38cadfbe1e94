"""Search strategies, which decide what is tried next; begin with `base.py` and its smallest example, `nsga2.py`."""
