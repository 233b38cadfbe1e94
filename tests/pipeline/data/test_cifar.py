"""CIFAR-10's reading, on a small set in its form: the published checksums are replaced by those of the small files."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.data import TorchvisionOptions
from pipeline.data import load_data
from pipeline.errors import DataError
from pipeline.shims import import_torchvision

IMAGES_A_FILE = 40
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def store(path: Path, content: dict[str, object]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cifar = import_torchvision().datasets.CIFAR10
    generator = np.random.default_rng(0)

    def batch() -> dict[str, object]:
        pixels = generator.integers(0, 256, (IMAGES_A_FILE, 3072), dtype=np.uint8)
        return {"data": pixels, "labels": [i % 10 for i in range(IMAGES_A_FILE)]}

    folder = tmp_path / cifar.base_folder
    train = [[name, store(folder / name, batch())] for name, _ in cifar.train_list]
    test = [[name, store(folder / name, batch())] for name, _ in cifar.test_list]
    meta = {**cifar.meta, "md5": store(folder / cifar.meta["filename"], {"label_names": CLASSES})}
    for name, value in (("train_list", train), ("test_list", test), ("meta", meta)):
        monkeypatch.setattr(cifar, name, value)
    return tmp_path


def options(root: Path, **more: int) -> TorchvisionOptions:
    return TorchvisionOptions(name="cifar10", root=str(root), validation_samples=50, **more)


def test_colour_images_and_their_split(root: Path) -> None:
    data = load_data(options(root))
    assert data.train.images.shape == (150, 32, 32, 3)
    assert len(data.validation) == 50
    assert len(data.load_test()) == IMAGES_A_FILE
    assert data.classes == tuple(CLASSES)
    assert data.input_shape == (3, 32, 32)
    assert set(np.bincount(data.validation.labels)) == {5}


def test_images_are_resized_by_the_preprocessing(root: Path) -> None:
    data = load_data(options(root, image_size=16))
    assert data.input_shape == (3, 16, 16)
    assert data.preprocessing.apply(data.train.images[:2]).shape == (2, 3, 16, 16)


def test_a_file_that_is_not_the_published_one_is_never_unpickled(root: Path) -> None:
    victim = root / "cifar-10-batches-py" / "data_batch_3"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (Path(root / "sprung"),)

    victim.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match=r"data_batch_3 is damaged"):
        load_data(options(root))
    assert not (root / "sprung").exists()
