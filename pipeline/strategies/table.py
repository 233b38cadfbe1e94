"""The table of strategies."""

from pipeline.registry import Entry

STRATEGIES = {
    "random": Entry("pipeline.strategies.nni_own:random", "NNI's uniform random search"),
    "evolution": Entry("pipeline.strategies.nni_own:evolution", "NNI's regularized evolution on the reward"),
    "grid": Entry("pipeline.strategies.grid:grid", "every architecture once, shuffled"),
}
