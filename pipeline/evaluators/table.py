"""The table of evaluators."""

from pipeline.registry import Entry

EVALUATORS = {
    "train": Entry(
        "pipeline.evaluators.train:TrainEvaluator", "train for a few epochs, validation accuracy at the end"
    ),
    "zero_cost": Entry(
        "pipeline.evaluators.zero_cost:ZeroCostEvaluator", "a score of the untrained network: seconds, no accuracy"
    ),
    "table": Entry("pipeline.evaluators.lookup:Lookup", "accuracy and costs from a published table, for `hwnas bench`"),
}
