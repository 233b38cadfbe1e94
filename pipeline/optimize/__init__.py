"""`hwnas optimize`: any ONNX file in its cheapest exact form. Start with `optimize.py`."""
