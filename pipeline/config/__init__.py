"""The config as strict models, a file for each section; `run.py` has the whole, `file.py` reads it from YAML."""
