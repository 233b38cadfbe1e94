"""Data sets: a plain table name → loader. A loader takes the section of the config and gives a `DataSet`."""

from pipeline.data.dataset import DataSet, Split, load_data
from pipeline.tables import DATA

__all__ = ["DATA", "DataSet", "Split", "load_data"]
