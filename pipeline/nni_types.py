"""The only module that imports NNI, after its surroundings are prepared: NNI's names for the rest of the package."""

from pipeline.shims import prepare_nni

prepare_nni()

import nni  # noqa: E402  - only now: see pipeline.shims
from nni.algorithms.hpo.tpe_tuner import Record as TpeRecord  # noqa: E402
from nni.algorithms.hpo.tpe_tuner import TpeArguments, create_liar, suggest_parameter  # noqa: E402
from nni.common.hpo_utils import format_search_space  # noqa: E402
from nni.mutable import Categorical  # noqa: E402
from nni.nas.evaluator import Evaluator  # noqa: E402
from nni.nas.execution import ExecutionEngine  # noqa: E402
from nni.nas.execution.event import FinalMetricEvent, ModelEventType, TrainingEndEvent  # noqa: E402
from nni.nas.nn.pytorch import (  # noqa: E402
    LayerChoice,
    ModelSpace,
    MutableBatchNorm2d,
    MutableConv2d,
    MutableLinear,
    Repeat,
)
from nni.nas.space import (  # noqa: E402
    ExecutableModelSpace,
    ModelStatus,
    SimplifiedModelSpace,
    current_model,
    model_context,
)
from nni.nas.strategy import GridSearch, Random, RegularizedEvolution  # noqa: E402
from nni.nas.strategy.base import Strategy  # noqa: E402

choice = nni.choice

__all__ = [
    "Categorical",
    "Evaluator",
    "ExecutableModelSpace",
    "ExecutionEngine",
    "FinalMetricEvent",
    "GridSearch",
    "LayerChoice",
    "ModelEventType",
    "ModelSpace",
    "ModelStatus",
    "MutableBatchNorm2d",
    "MutableConv2d",
    "MutableLinear",
    "Random",
    "RegularizedEvolution",
    "Repeat",
    "SimplifiedModelSpace",
    "Strategy",
    "TpeArguments",
    "TpeRecord",
    "TrainingEndEvent",
    "choice",
    "create_liar",
    "current_model",
    "format_search_space",
    "model_context",
    "suggest_parameter",
]
