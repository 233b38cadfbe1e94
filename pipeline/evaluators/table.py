"""The table of evaluators."""

from pipeline.registry import Entry

EVALUATORS = {
    "train": Entry(
        "pipeline.evaluators.train:TrainEvaluator", "train for a few epochs, validation accuracy at the end"
    ),
    "table": Entry("pipeline.evaluators.lookup:Lookup", "accuracy and costs from a published table, for `hwnas bench`"),
}
