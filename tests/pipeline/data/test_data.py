import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.data import DigitsOptions, TorchvisionOptions
from pipeline.data import Split, idx, load_data
from pipeline.data.dataset import channel_statistics, stratified
from pipeline.errors import DataError


def rows(*splits: Split) -> list[bytes]:
    return [image.tobytes() for split in splits for image in split.images]


@pytest.fixture(scope="module")
def digits() -> Any:
    return load_data(DigitsOptions(name="digits"))


@pytest.fixture(scope="module")
def clothes(fashion_mnist_root: Path) -> Any:
    options = TorchvisionOptions(
        name="fashion_mnist", root=str(fashion_mnist_root), train_samples=500, validation_samples=200
    )
    return load_data(options)


class TestDigits:
    def test_splits_are_disjoint_and_whole(self, digits: Any) -> None:
        from sklearn.datasets import load_digits

        splits = (digits.train, digits.validation, digits.load_test())
        assert [len(split) for split in splits] == [1077, 360, 360]
        every = sorted(image.astype(np.uint8).tobytes() for image in load_digits().images)
        assert sorted(rows(*splits)) == every

    def test_classes_have_equal_shares(self, digits: Any) -> None:
        shares = [
            np.bincount(s.labels, minlength=10) / len(s) for s in (digits.train, digits.validation, digits.load_test())
        ]
        assert np.ptp(shares, axis=0).max() < 0.01

    def test_labels_belong_to_their_images(self, digits: Any) -> None:
        from sklearn.datasets import load_digits

        raw = load_digits()
        known = dict(zip((i.astype(np.uint8).tobytes() for i in raw.images), raw.target, strict=True))
        for split in (digits.train, digits.validation, digits.load_test()):
            assert [known[row] for row in rows(split)] == split.labels.tolist()

    def test_is_the_same_every_time(self, digits: Any) -> None:
        again = load_data(DigitsOptions(name="digits"))
        assert np.array_equal(again.train.images, digits.train.images)
        assert np.array_equal(again.validation.labels, digits.validation.labels)

    def test_preprocessing_makes_the_training_images_standard(self, digits: Any) -> None:
        inputs = digits.preprocessing.apply(digits.train.images)
        assert inputs.dtype == np.float32
        assert inputs.shape == (1077, *digits.input_shape) == (1077, 1, 8, 8)
        assert abs(float(inputs.mean())) < 1e-4
        assert float(inputs.std()) == pytest.approx(1, abs=1e-4)

    def test_classes_have_names(self, digits: Any) -> None:
        assert digits.classes == tuple("0123456789")

    @pytest.mark.parametrize("size", [8, 16, 32])
    def test_images_can_be_resized(self, digits: Any, size: int) -> None:
        large = load_data(DigitsOptions(name="digits", image_size=size))
        assert large.input_shape == (1, size, size)
        inputs = large.preprocessing.apply(large.train.images)
        assert inputs.shape == (1077, 1, size, size)
        assert inputs.dtype == np.float32
        # The same images in the same splits; only what the network sees is larger.
        for name in ("train", "validation"):
            assert np.array_equal(getattr(large, name).images, getattr(digits, name).images)
            assert np.array_equal(getattr(large, name).labels, getattr(digits, name).labels)
        assert np.array_equal(large.load_test().images, digits.load_test().images)
        assert abs(float(inputs.mean())) < 0.1
        if size == 8:
            assert np.array_equal(inputs, digits.preprocessing.apply(digits.train.images))

    @pytest.mark.parametrize("size", [0, -8, 2.5, "large"])
    def test_a_size_that_is_none_is_refused(self, size: Any) -> None:
        with pytest.raises(ValueError, match="image_size"):
            DigitsOptions(name="digits", image_size=size)


class TestFashionMnist:
    def test_splits(self, clothes: Any) -> None:
        assert (len(clothes.train), len(clothes.validation), len(clothes.load_test())) == (500, 200, 10_000)
        assert not set(rows(clothes.train)) & set(rows(clothes.validation))
        assert np.bincount(clothes.train.labels).tolist() == [50] * 10
        assert np.bincount(clothes.validation.labels).tolist() == [20] * 10
        assert clothes.input_shape == (1, 28, 28)
        assert clothes.classes[9] == "Ankle boot"

    def test_validation_is_the_same_for_every_size_of_training(self, clothes: Any, fashion_mnist_root: Path) -> None:
        options = TorchvisionOptions(
            name="fashion_mnist", root=str(fashion_mnist_root), train_samples=1000, validation_samples=200
        )
        assert np.array_equal(load_data(options).validation.images, clothes.validation.images)

    def test_images_can_be_resized(self, fashion_mnist_root: Path) -> None:
        options = TorchvisionOptions(
            name="fashion_mnist", root=str(fashion_mnist_root), train_samples=20, validation_samples=10, image_size=16
        )
        data = load_data(options)
        assert data.input_shape == (1, 16, 16)
        assert data.preprocessing.apply(data.train.images).shape == (20, 1, 16, 16)

    def test_a_missing_test_set_is_told_before_the_search(self, shared_fashion_mnist: Path, tmp_path: Path) -> None:
        raw = tmp_path / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        for path in shared_fashion_mnist.glob("train*"):
            (raw / path.name).symlink_to(path)
        with pytest.raises(DataError, match="t10k-images"):
            load_data(TorchvisionOptions(name="fashion_mnist", root=str(tmp_path)))

    def test_test_data_is_read_only_when_asked_for(
        self, fashion_mnist_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []
        original = idx.read_fashion_mnist

        def spy(root: Path, *, train: bool) -> Any:
            asked.append(train)
            return original(root, train=train)

        monkeypatch.setattr(idx, "read_fashion_mnist", spy)
        options = TorchvisionOptions(
            name="fashion_mnist", root=str(fashion_mnist_root), train_samples=20, validation_samples=10
        )
        data = load_data(options)
        assert asked == [True]
        data.load_test()
        assert asked == [True, False]

    def test_it_is_what_torchvision_reads(self, fashion_mnist_root: Path, tmp_path: Path) -> None:
        """Files, checksums, classes, images and labels; the reader itself does without torch."""
        from pipeline.shims import import_torchvision

        theirs = import_torchvision().datasets.FashionMNIST
        assert dict(theirs.resources) == idx.FILES
        assert tuple(theirs.classes) == idx.CLASSES
        unpacked = tmp_path / "FashionMNIST" / "raw"
        unpacked.mkdir(parents=True)
        for name in idx.FILES:
            content = (fashion_mnist_root / "FashionMNIST" / "raw" / name).read_bytes()
            (unpacked / name).with_suffix("").write_bytes(gzip.decompress(content))
        data = theirs(str(tmp_path), train=False)
        images, labels = idx.read_fashion_mnist(fashion_mnist_root, train=False)
        assert np.array_equal(images, data.data.numpy())
        assert np.array_equal(labels, data.targets.numpy())
        code = (
            "import sys\n"
            "from pipeline.config.data import TorchvisionOptions\n"
            "from pipeline.data import load_data\n"
            f"load_data(TorchvisionOptions(name='fashion_mnist', root={str(fashion_mnist_root)!r})).load_test()\n"
            "print('torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"


class TestSplit:
    def test_refuses_what_is_no_labelled_image(self) -> None:
        images = np.zeros((3, 8, 8, 1), np.uint8)
        with pytest.raises(ValueError, match="uint8"):
            Split(images.astype(np.float32), np.zeros(3, np.int64))
        with pytest.raises(ValueError, match="uint8"):
            Split(images[0], np.zeros(3, np.int64))
        with pytest.raises(ValueError, match="3 images have 2 labels"):
            Split(images, np.zeros(2, np.int64))

    def test_stratified(self) -> None:
        labels = np.repeat(np.arange(4), 25)
        one, two = stratified(labels, 40, 20, seed=0)
        assert not set(one) & set(two)
        assert np.bincount(labels[one]).tolist() == [10] * 4
        assert np.bincount(labels[two]).tolist() == [5] * 4
        assert np.array_equal(stratified(labels, 40, 60, seed=0)[1], stratified(labels, 40, None, seed=0)[1])

    def test_channel_statistics(self) -> None:
        images = np.zeros((2, 1, 1, 2), np.uint8)
        images[..., 0] = [[[0]], [[200]]]
        mean, std = channel_statistics(images, 0.01)
        assert mean == (1.0, 0.0)
        assert std == (1.0, 1e-3)  # a constant channel must not be divided by zero
