"""Regressions that predict a latency: `operator_model` from timed parts, `feature_model` from whole networks."""
