"""The table of every kind of thing, a row each: name → class or function, model of its config section, line of text.

A row is all that a new thing needs beside its file and its options: the config, `hwnas list`, error messages and the
tests of its kind read these tables. Classes and models are imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.registry import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping


def _table(package: str, models: str, **rows: tuple[str, str, str]) -> dict[str, Entry]:
    """Entries of rows (module and attribute within a package, model within a module, line of text)."""
    return {name: Entry(f"{package}.{path}", text, f"{models}:{model}") for name, (path, model, text) in rows.items()}


DATA = _table(
    "pipeline.data",
    "pipeline.config.data",
    digits=("digits:load", "DigitsOptions", "1,797 grey 8×8 digits, 10 classes, embedded in scikit-learn"),
    fashion_mnist=("torchvision_sets:load", "TorchvisionOptions", "70,000 grey 28×28 clothes, 10 classes, local root"),
    cifar10=("torchvision_sets:load", "TorchvisionOptions", "60,000 colour 32×32 photographs, 10 classes, local root"),
)

SPACES = _table(
    "pipeline.spaces",
    "pipeline.config.space",
    convnet=(
        "convnet:ConvNetSpace",
        "ConvNetOptions",
        "stages of dense-residual, fused and inverted-residual blocks, 8² to 224², activations included",
    ),
    nasbench201=(
        "nasbench201:NasBench201Space",
        "NasBench201Options",
        "NAS-Bench-201's cells: 5 operators on 6 edges, 15,625 architectures; buildable, activations too",
    ),
    table=("tabular:TabularSpace", "TableSpaceOptions", "names only: any table keyed by a string of choices"),
)

STRATEGIES = _table(
    "pipeline.strategies",
    "pipeline.config.strategy",
    guided=("guided:Guided", "GuidedOptions", "expected gain in hypervolume: models accuracy, knows the costs"),
    random=("nni_builtin:random", "RandomOptions", "NNI's uniform random search"),
    evolution=("nni_builtin:evolution", "EvolutionOptions", "NNI's regularized evolution on the reward"),
    grid=("grid:Grid", "GridOptions", "every architecture once, shuffled"),
    local_search=("local_search:LocalSearch", "LocalSearchOptions", "neighbours of the best, or of the front"),
    nsga2=("nsga2:Nsga2", "Nsga2Options", "NSGA-II: a population along the front, under the limits"),
    tpe=("tpe:Tpe", "TpeOptions", "NNI's Tree-structured Parzen Estimator on the reward"),
    bayesian=("bayesian:Bayesian", "BayesianOptions", "a Gaussian process of the reward"),
    controller=("controller:Controller", "ControllerOptions", "an LSTM policy, reinforced by the reward"),
)

EVALUATORS = _table(
    "pipeline.evaluators",
    "pipeline.config.evaluator",
    train=("train:TrainEvaluator", "TrainEvaluatorOptions", "train for a few epochs, validation accuracy at the end"),
    zero_cost=(
        "zero_cost.evaluator:ZeroCostEvaluator",
        "ZeroCostOptions",
        "a score of the untrained network: seconds, no accuracy",
    ),
    supernet=(
        "supernet.evaluator:SupernetEvaluator",
        "SupernetOptions",
        "weights that all networks share, trained once: a candidate takes a moment",
    ),
    table=("lookup:Lookup", "TableEvaluatorOptions", "accuracy and costs from a published table, for `hwnas bench`"),
)

ENGINES = _table(
    "pipeline.engines",
    "pipeline.config.engine",
    auto=(
        "auto:AutoEngine",
        "AutoOptions",
        "trials side by side, or one at a time: whichever a pilot shows to be faster",
    ),
    inline=("inline:InlineEngine", "InlineOptions", "one trial at a time, in one persistent child process"),
    processes=("processes:ProcessesEngine", "ProcessesOptions", "several trials at a time, each in a child process"),
)

SECTIONS: Mapping[str, Mapping[str, Entry]] = {
    "data": DATA,
    "space": SPACES,
    "strategy": STRATEGIES,
    "evaluator": EVALUATORS,
    "engine": ENGINES,
}
"""The config sections that are chosen by name, and their tables."""

_TORCHVISION = "pipeline.references.torchvision_nets"
REFERENCES = {
    "mobilenet_v3_small": Entry(
        f"{_TORCHVISION}:mobilenet_v3_small", "MobileNetV3-Small (Howard et al. 2019), torchvision's"
    ),
    "shufflenet_v2_x0_5": Entry(
        f"{_TORCHVISION}:shufflenet_v2_x0_5", "ShuffleNetV2 at half width (Ma et al. 2018), torchvision's"
    ),
    "squeezenet1_1": Entry(f"{_TORCHVISION}:squeezenet1_1", "SqueezeNet 1.1 (Iandola et al. 2016), torchvision's"),
    "resnet18": Entry(f"{_TORCHVISION}:resnet18", "ResNet-18 (He et al. 2016), torchvision's"),
    "resnet8": Entry(
        "pipeline.references.resnet8:resnet8", "ResNet-8 in the style of MLPerf Tiny (Banbury et al. 2021)"
    ),
}
"""The networks that a winner is set against: functions (input shape (C, H, W), number of classes) → network."""
