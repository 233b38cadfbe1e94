import torch

from pipeline.evaluators.augmentation import shifted_and_mirrored


def test_shifted_images_are_padded_with_black() -> None:
    white = torch.full((5, 1, 8, 8), 9, dtype=torch.uint8)
    torch.manual_seed(0)
    shapes = set()
    for _ in range(60):
        shifted = shifted_and_mirrored(white, mirrored=False)
        assert set(shifted.unique().tolist()) <= {9, 0}
        rows, columns = (int((shifted[0, 0] == 0).all(dim=axis).sum()) for axis in (1, 0))
        shapes.add((rows, columns))
        assert (shifted == shifted[:1]).all()
    assert shapes == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert torch.all(white == 9)  # the data itself isn't changed


def test_a_shift_moves_the_image() -> None:
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    images[0, 0, 4, 4] = 5
    torch.manual_seed(0)
    shifted = (shifted_and_mirrored(images, mirrored=False) for _ in range(200))
    places = {tuple(int(v) for v in (image[0, 0] == 5).nonzero()[0]) for image in shifted}
    assert places == {(4 + down, 4 + right) for down in (-1, 0, 1) for right in (-1, 0, 1)}


def test_photographs_are_mirrored_half_the_time() -> None:
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    image[:, :, :, :2] = 5
    torch.manual_seed(0)
    mirrored = sum(bool((shifted_and_mirrored(image, mirrored=True)[..., 5:] == 5).any()) for _ in range(200))
    assert 60 < mirrored < 140
    assert not any(bool((shifted_and_mirrored(image, mirrored=False)[..., 5:] == 5).any()) for _ in range(50))


def test_is_a_roll_whose_wrapped_edge_is_black() -> None:
    torch.manual_seed(0)
    images = torch.randint(1, 256, (3, 3, 16, 20), dtype=torch.uint8)
    for _ in range(50):
        state = torch.get_rng_state()
        found = shifted_and_mirrored(images, mirrored=False)
        torch.set_rng_state(state)
        down, right = torch.randint(-2, 3, (2,)).tolist()
        rolled = torch.roll(images, (down, right), (2, 3))
        kept = found != 0
        assert torch.equal(found[kept], rolled[kept])
        assert int(kept.sum()) == 9 * (16 - abs(down)) * (20 - abs(right))


def test_the_results_lie_as_their_source() -> None:
    grey = torch.ones(4, 1, 8, 8, dtype=torch.uint8)
    assert shifted_and_mirrored(grey, mirrored=False).stride() == (64, 64, 8, 1)
