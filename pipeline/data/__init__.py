"""Data sets: labelled images with one preprocessing record. Start with `dataset.py`; `digits.py` is a loader."""

from pipeline.data.dataset import DataSet, Split, load_data
from pipeline.tables import DATA

__all__ = ["DATA", "DataSet", "Split", "load_data"]
