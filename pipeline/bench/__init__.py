"""`hwnas bench`: strategies compared on a published table, over seeds and devices; begin with `command.py`."""
