"""What a candidate costs on the device: counted, predicted or measured. Start with `target.py`; `latency_source.py`
decides between predicting and measuring.
"""
