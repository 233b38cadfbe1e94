"""The convnet space is one that NNI's one-shot strategies take as it is."""

import pytest
import torch

from pipeline.config.space import ConvNetOptions
from pipeline.spaces.convnet import ConvNetSpace


@pytest.mark.filterwarnings("ignore")  # NNI 3.0's and Lightning's own
@pytest.mark.parametrize("scope", ["network", "stage", "block"])
def test_darts_trains_the_supernet_and_proposes_an_architecture(scope):
    from nni.nas.evaluator.pytorch import Classification, DataLoader
    from nni.nas.execution import SequentialExecutionEngine
    from nni.nas.space import RawFormatModelSpace
    from nni.nas.strategy import DARTS

    options = ConvNetOptions(
        name="convnet", stages=2, width=8, depths=[1, 2], width_multipliers=[1.0, 2.0], activation_scope=scope
    )
    space = ConvNetSpace(options, (1, 8, 8), 3)
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(32, 1, 8, 8, generator=generator), torch.arange(32) % 3
    loader = DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=16)
    evaluator = Classification(
        train_dataloaders=loader,
        val_dataloaders=loader,
        num_classes=3,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    strategy = DARTS()
    strategy(RawFormatModelSpace.from_model(space.model_space(), evaluator), SequentialExecutionEngine())
    (best,) = strategy.list_models(limit=1)
    architecture = space.canonical(best.sample)
    assert space.build(architecture)(images).shape == (32, 3)
