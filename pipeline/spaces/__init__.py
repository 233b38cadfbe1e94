"""Search spaces: choices, architectures and their networks; begin with `base.py` and the smallest one, `tabular.py`."""
