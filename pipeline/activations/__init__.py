"""A finished run's activations: their effects, costs and behaviour. Start with `record.py`."""
