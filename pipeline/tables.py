"""The table of reference points: name → factory (input shape (C, H, W), number of classes) → untrained network."""

from __future__ import annotations

from pipeline.registry import Entry

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


ENGINES = {
    "inline": Entry("pipeline.engines.inline:InlineEngine", "one trial at a time, in one persistent child process"),
    "processes": Entry(
        "pipeline.engines.processes:ProcessesEngine", "several trials at a time, each in a child process"
    ),
}


STRATEGIES = {
    "guided": Entry(
        "pipeline.strategies.guided:guided", "expected gain in hypervolume: models accuracy, knows the costs"
    ),
    "random": Entry("pipeline.strategies.nni_builtin:random", "NNI's uniform random search"),
    "evolution": Entry("pipeline.strategies.nni_builtin:evolution", "NNI's regularized evolution on the reward"),
    "grid": Entry("pipeline.strategies.grid:grid", "every architecture once, shuffled"),
    "local_search": Entry("pipeline.strategies.local_search:local_search", "neighbours of the best, or of the front"),
    "nsga2": Entry("pipeline.strategies.nsga2:nsga2", "NSGA-II: a population along the front, under the limits"),
    "tpe": Entry("pipeline.strategies.tpe:tpe", "NNI's Tree-structured Parzen Estimator on the reward"),
    "bayesian": Entry("pipeline.strategies.bayesian:bayesian", "a Gaussian process of the reward"),
    "controller": Entry("pipeline.strategies.controller:controller", "an LSTM policy, reinforced by the reward"),
}


DATA = {
    "digits": Entry("pipeline.data.digits:load", "1,797 grey 8×8 digits, 10 classes, embedded in scikit-learn"),
    "fashion_mnist": Entry("pipeline.data.torchvision_sets:load", "70,000 grey 28×28 clothes, 10 classes, local root"),
    "cifar10": Entry("pipeline.data.torchvision_sets:load", "60,000 colour 32×32 photographs, 10 classes, local root"),
}


EVALUATORS = {
    "train": Entry(
        "pipeline.evaluators.train:TrainEvaluator", "train for a few epochs, validation accuracy at the end"
    ),
    "zero_cost": Entry(
        "pipeline.evaluators.zero_cost.evaluator:ZeroCostEvaluator",
        "a score of the untrained network: seconds, no accuracy",
    ),
    "table": Entry("pipeline.evaluators.lookup:Lookup", "accuracy and costs from a published table, for `hwnas bench`"),
}


SPACES = {
    "convnet": Entry(
        "pipeline.spaces.convnet:ConvNetSpace",
        "stages of dense-residual, fused and inverted-residual blocks, 8² to 224², activations included",
    ),
    "nasbench201": Entry(
        "pipeline.spaces.nasbench201:NasBench201Space",
        "NAS-Bench-201's cells: 5 operators on 6 edges, 15,625 architectures; buildable, activations too",
    ),
    "table": Entry("pipeline.spaces.tabular:TabularSpace", "names only: any table keyed by a string of choices"),
}
