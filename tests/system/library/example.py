import hwnas

costs = hwnas.profile("model.onnx", device="cpu", threads=1)
print(costs.latency_ms, costs.latency_low_ms, costs.latency_high_ms, costs.peak_memory_bytes)

for row in hwnas.compare("model.onnx", "other.onnx"):
    print(row.model, row.ratio, row.different)

result = hwnas.search("config.yaml", overrides={"budget.trials": 10})
print(result.picked, result.objectives, result.bundle_dir)
for trial in hwnas.load_run(result.run_dir).front:
    print(trial.id, trial.objectives)
