"""The example of README.md and docs/library.md: costs of two files, a search, its trials."""

import sys

import hwnas

config, first, second = sys.argv[1:]
costs = hwnas.profile(first, seconds=0.2)
print(costs.latency_ms, costs.macs, costs.peak_memory_bytes, costs.unavailable.get("energy_mj"))
for row in hwnas.compare(first, second, seconds=0.5):
    print(row.model, f"{row.ratio:.2f} ({row.ratio_low:.2f} to {row.ratio_high:.2f})", row.different)
result = hwnas.search(config, overrides={"budget.trials": 2, "final.epochs": 1}, run_dir="run")
for trial in hwnas.load_run(result.run_dir).front:
    print(trial.id, trial.objectives["accuracy"], trial.architecture)
print(hwnas.verify(result.bundle_dir).ok)
