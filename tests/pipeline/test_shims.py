"""NNI without its detours: what a search doesn't use is imported when somebody asks for it, and then works."""

import subprocess
import sys

CODE = """
import importlib.util, sys, warnings
warnings.simplefilter("ignore")
import pipeline.nni_types
print(sorted({"pytorch_lightning", "torchvision", "matplotlib", "pandas", "torch._dynamo"} & set(sys.modules)))
assert importlib.util.find_spec("torchvision") is not None  # somebody only looks whether it is there
from nni.nas.strategy import DARTS, RegularizedEvolution
from nni.nas.evaluator import Classification
import pandas, torchvision
print(DARTS.__module__, Classification.__module__, torchvision.models.resnet18.__name__)
try:
    import nni.nas.strategy
    nni.nas.strategy.Nothing
except AttributeError as error:
    print(error)
"""


def test_what_a_search_leaves_out_comes_when_it_is_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    before, found, missing = done.stdout.splitlines()
    assert before == "[]"
    assert found == "nni.nas.oneshot.pytorch.strategy nni.nas.evaluator.pytorch.lightning resnet18"
    assert missing == "module 'nni.nas.strategy' has no attribute 'Nothing'"
