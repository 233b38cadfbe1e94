"""The table of strategies."""

from pipeline.registry import Entry

STRATEGIES = {
    "guided": Entry(
        "pipeline.strategies.guided:guided", "expected gain in hypervolume: models accuracy, knows the costs"
    ),
    "random": Entry("pipeline.strategies.nni_own:random", "NNI's uniform random search"),
    "evolution": Entry("pipeline.strategies.nni_own:evolution", "NNI's regularized evolution on the reward"),
    "grid": Entry("pipeline.strategies.grid:grid", "every architecture once, shuffled"),
    "local_search": Entry("pipeline.strategies.local_search:local_search", "neighbours of the best, or of the front"),
    "nsga2": Entry("pipeline.strategies.nsga2:nsga2", "NSGA-II: a population along the front, under the limits"),
    "tpe": Entry("pipeline.strategies.tpe:tpe", "NNI's Tree-structured Parzen Estimator on the reward"),
    "bayesian": Entry("pipeline.strategies.bayesian:bayesian", "a Gaussian process of the reward"),
    "controller": Entry("pipeline.strategies.controller:controller", "an LSTM policy, reinforced by the reward"),
}
