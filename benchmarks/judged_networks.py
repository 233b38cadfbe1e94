"""Networks with random weights that the predictions of files are judged by; nothing is developed or fitted on them."""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import torch
from networks import TORCHVISION, published_files, torchvision_net
from torch import nn

from export.exporter.onnx_export import export_model
from pipeline.shims import import_torchvision

_SIDE = 224
_MORE_OF_TORCHVISION = ("swin_t", "convnext_tiny", "mnasnet0_5", "regnet_y_400mf")
_CLASSES = 10
_WORDS, _TOKENS = 10_000, 64


@dataclass(frozen=True)
class JudgedFile:
    """A file, and the sizes of its inputs that it leaves open."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class Recurrent(nn.Module):
    """Two recurrent layers over (batch, steps, width), and a layer that sorts the last state into classes."""

    def __init__(self, kind: Callable[..., nn.Module], width: int, hidden: int, *, both_ways: bool = False) -> None:
        super().__init__()
        self.layers = kind(width, hidden, num_layers=2, batch_first=True, bidirectional=both_ways)
        self.classes = nn.Linear(hidden * (2 if both_ways else 1), _CLASSES)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        """(batch, steps, width) → (batch, classes)."""
        return self.classes(self.layers(steps)[0][:, -1])


class Text(nn.Module):
    """A transformer over the numbers of words (batch, length), with two blocks and the mean of the words at its end."""

    def __init__(self, width: int = 192, heads: int = 6) -> None:
        super().__init__()
        self.words = nn.Embedding(_WORDS, width)
        self.places = nn.Embedding(512, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, activation="gelu", batch_first=True) for _ in range(2)
        )
        self.classes = nn.Linear(width, _CLASSES)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """(batch, length) → (batch, classes)."""
        state = self.words(words) + self.places(torch.arange(words.shape[1]))
        for block in self.blocks:
            state = block(state)
        return self.classes(state.mean(1))


def judged_files(folder: Path) -> Iterator[JudgedFile]:
    """The published files, and those of networks that are exported into `folder`."""
    for path in published_files():
        yield JudgedFile(path)
    for name in (*TORCHVISION, *_MORE_OF_TORCHVISION):
        torch.manual_seed(0)
        yield _exported(folder / f"{name}.onnx", torchvision_net(name), torch.randn(1, 3, _SIDE, _SIDE))
    torch.manual_seed(0)
    vit = import_torchvision().models.VisionTransformer(
        image_size=128, patch_size=16, num_layers=6, num_heads=4, hidden_dim=256, mlp_dim=1024
    )
    yield _exported(folder / "vit_small.onnx", vit, torch.randn(1, 3, 128, 128))
    yield _exported(folder / "lstm.onnx", Recurrent(nn.LSTM, 40, 128), torch.randn(1, 50, 40))
    yield _exported(folder / "gru.onnx", Recurrent(nn.GRU, 64, 160, both_ways=True), torch.randn(1, 40, 64))
    yield _open_text(folder / "text.onnx")


def _exported(path: Path, network: nn.Module, example: torch.Tensor) -> JudgedFile:
    path.write_bytes(export_model(network.eval(), example).SerializeToString())
    return JudgedFile(path)


def _open_text(path: Path) -> JudgedFile:
    """A text of any length, of which 64 words are read."""
    sizes = {"words": {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}}
    example = torch.randint(0, _WORDS, (2, _TOKENS))
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Text().eval(), (example,), path, dynamo=True, opset_version=20, dynamic_shapes=sizes, external_data=False
        )
    return JudgedFile(path, {"words": (1, _TOKENS)})
