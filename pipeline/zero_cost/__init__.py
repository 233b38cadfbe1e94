"""What an untrained network tells about itself: plain table name → `Score`; see `pipeline.zero_cost.scores`."""
