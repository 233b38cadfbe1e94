"""The command line: `app.py` parses and calls, `console.py` shows progress, `text.py` writes results."""
