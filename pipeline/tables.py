"""The table of every kind of thing: name → class or function, one line of text, the model of its config section.

A row is all that a new thing needs beside its file and its options: the config, `hwnas list`, error messages and the
tests of its kind read these tables. Everything is named by dotted path and imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.registry import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping

DATA = {
    "digits": Entry(
        "pipeline.data.digits:load",
        "1,797 grey 8×8 digits, 10 classes, embedded in scikit-learn",
        "pipeline.config.data:DigitsOptions",
    ),
    "fashion_mnist": Entry(
        "pipeline.data.torchvision_sets:load",
        "70,000 grey 28×28 clothes, 10 classes, local root",
        "pipeline.config.data:TorchvisionOptions",
    ),
    "cifar10": Entry(
        "pipeline.data.torchvision_sets:load",
        "60,000 colour 32×32 photographs, 10 classes, local root",
        "pipeline.config.data:TorchvisionOptions",
    ),
}

SPACES = {
    "convnet": Entry(
        "pipeline.spaces.convnet:ConvNetSpace",
        "stages of dense-residual, fused and inverted-residual blocks, 8² to 224², activations included",
        "pipeline.config.space:ConvNetOptions",
    ),
    "nasbench201": Entry(
        "pipeline.spaces.nasbench201:NasBench201Space",
        "NAS-Bench-201's cells: 5 operators on 6 edges, 15,625 architectures; buildable, activations too",
        "pipeline.config.space:NasBench201Options",
    ),
    "table": Entry(
        "pipeline.spaces.tabular:TabularSpace",
        "names only: any table keyed by a string of choices",
        "pipeline.config.space:TableSpaceOptions",
    ),
}

STRATEGIES = {
    "guided": Entry(
        "pipeline.strategies.guided:Guided",
        "expected gain in hypervolume: models accuracy, knows the costs",
        "pipeline.config.strategy:GuidedOptions",
    ),
    "random": Entry(
        "pipeline.strategies.nni_builtin:random",
        "NNI's uniform random search",
        "pipeline.config.strategy:RandomOptions",
    ),
    "evolution": Entry(
        "pipeline.strategies.nni_builtin:evolution",
        "NNI's regularized evolution on the reward",
        "pipeline.config.strategy:EvolutionOptions",
    ),
    "grid": Entry(
        "pipeline.strategies.grid:Grid",
        "every architecture once, shuffled",
        "pipeline.config.strategy:GridOptions",
    ),
    "local_search": Entry(
        "pipeline.strategies.local_search:LocalSearch",
        "neighbours of the best, or of the front",
        "pipeline.config.strategy:LocalSearchOptions",
    ),
    "nsga2": Entry(
        "pipeline.strategies.nsga2:Nsga2",
        "NSGA-II: a population along the front, under the limits",
        "pipeline.config.strategy:Nsga2Options",
    ),
    "tpe": Entry(
        "pipeline.strategies.tpe:Tpe",
        "NNI's Tree-structured Parzen Estimator on the reward",
        "pipeline.config.strategy:TpeOptions",
    ),
    "bayesian": Entry(
        "pipeline.strategies.bayesian:Bayesian",
        "a Gaussian process of the reward",
        "pipeline.config.strategy:BayesianOptions",
    ),
    "controller": Entry(
        "pipeline.strategies.controller:Controller",
        "an LSTM policy, reinforced by the reward",
        "pipeline.config.strategy:ControllerOptions",
    ),
}

EVALUATORS = {
    "train": Entry(
        "pipeline.evaluators.train:TrainEvaluator",
        "train for a few epochs, validation accuracy at the end",
        "pipeline.config.evaluator:TrainEvaluatorOptions",
    ),
    "zero_cost": Entry(
        "pipeline.evaluators.zero_cost.evaluator:ZeroCostEvaluator",
        "a score of the untrained network: seconds, no accuracy",
        "pipeline.config.evaluator:ZeroCostOptions",
    ),
    "table": Entry(
        "pipeline.evaluators.lookup:Lookup",
        "accuracy and costs from a published table, for `hwnas bench`",
        "pipeline.config.evaluator:TableEvaluatorOptions",
    ),
}

ENGINES = {
    "inline": Entry(
        "pipeline.engines.inline:InlineEngine",
        "one trial at a time, in one persistent child process",
        "pipeline.config.engine:InlineOptions",
    ),
    "processes": Entry(
        "pipeline.engines.processes:ProcessesEngine",
        "several trials at a time, each in a child process",
        "pipeline.config.engine:ProcessesOptions",
    ),
}

SECTIONS: Mapping[str, Mapping[str, Entry]] = {
    "data": DATA,
    "space": SPACES,
    "strategy": STRATEGIES,
    "evaluator": EVALUATORS,
    "engine": ENGINES,
}
"""The config sections that are chosen by name, and their tables."""

REFERENCES = {
    "mobilenet_v3_small": Entry(
        "pipeline.references.torchvision_nets:mobilenet_v3_small",
        "MobileNetV3-Small (Howard et al. 2019), torchvision's",
    ),
    "shufflenet_v2_x0_5": Entry(
        "pipeline.references.torchvision_nets:shufflenet_v2_x0_5",
        "ShuffleNetV2 at half width (Ma et al. 2018), torchvision's",
    ),
    "squeezenet1_1": Entry(
        "pipeline.references.torchvision_nets:squeezenet1_1", "SqueezeNet 1.1 (Iandola et al. 2016), torchvision's"
    ),
    "resnet18": Entry("pipeline.references.torchvision_nets:resnet18", "ResNet-18 (He et al. 2016), torchvision's"),
    "resnet8": Entry(
        "pipeline.references.resnet8:resnet8", "ResNet-8 in the style of MLPerf Tiny (Banbury et al. 2021)"
    ),
}
"""The networks that a winner is set against: functions (input shape (C, H, W), number of classes) → network."""
