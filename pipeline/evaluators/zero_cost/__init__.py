"""Scores of an untrained network: plain table name → `Score`; see `pipeline.evaluators.zero_cost.scores`."""
