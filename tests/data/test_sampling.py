"""Batches: the same stream however it is loaded, nothing dropped, nothing repeated."""

import numpy as np
import pytest
import torch
from PIL import Image

from vistok.data import check_loading, eval_batches, open_dataset, train_batches
from vistok.data.draws import permutation, uniform

NUM_IMAGES, BATCH = 23, 8


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISTOK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["cached", "adm", "fixed"])
def dataset(request, tmp_path):
    """23 training images, each of its own colour with a gradient, with every way of cropping ("fixed": none)."""
    folder = tmp_path / "images"
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        for i in range(NUM_IMAGES):
            pixels = np.zeros((24, 20, 3), np.uint8)
            pixels[..., 0] = 10 * i
            pixels[..., 1] = 10 * np.arange(20)
            pixels[..., 2] = 10 * np.arange(24)[:, None]
            Image.fromarray(pixels).save(folder / split / f"{i:02d}.png")
    if request.param == "fixed":
        return open_dataset("folder", "test", 16, data_root=folder)
    return open_dataset("folder", "train", 16, data_root=folder, crop=request.param)


def identity(images: torch.Tensor) -> list[int]:
    """Which image each one is, by its colour."""
    return (images[:, 0].float().mean((1, 2)) / 10).round().int().tolist()


def stream(dataset, **options) -> torch.Tensor:
    return torch.cat(list(train_batches(dataset, BATCH, **{"seed": 3, "steps": 9} | options)))


def test_every_epoch_holds_every_image_once(dataset):
    images = stream(dataset, steps=3 * NUM_IMAGES)  # 24 epochs
    assert images.shape == (3 * NUM_IMAGES * BATCH, 3, 16, 16) and images.dtype == torch.uint8
    epochs = np.array(identity(images)).reshape(-1, NUM_IMAGES)
    assert (np.sort(epochs, axis=1) == np.arange(NUM_IMAGES)).all()
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_the_stream_is_what_is_promised(dataset):
    images = stream(dataset)
    for position, image in enumerate(images):
        epoch, place = divmod(position, NUM_IMAGES)
        index = permutation(3, epoch, NUM_IMAGES)[[place]]
        assert torch.equal(image, dataset.images(index, uniform(3, epoch, index))[0])


def test_the_stream_does_not_depend_on_how_it_is_loaded(dataset):
    whole = stream(dataset)
    assert torch.equal(whole, stream(dataset))
    assert torch.equal(whole, stream(dataset, num_workers=2))
    assert torch.equal(whole[5 * BATCH :], stream(dataset, start_step=5))
    for num_processes in (2, 4):
        shares = [
            list(train_batches(dataset, BATCH, seed=3, steps=9, rank=rank, num_processes=num_processes))
            for rank in range(num_processes)
        ]
        assert torch.equal(whole, torch.cat([torch.cat(step) for step in zip(*shares, strict=True)]))
    assert not torch.equal(whole, stream(dataset, seed=4))


def test_batches_are_channels_last(dataset):
    for options in ({}, {"num_workers": 1}):
        batch = next(train_batches(dataset, BATCH, seed=0, steps=1, **options))
        assert batch.is_contiguous(memory_format=torch.channels_last)


def test_flips_are_half_and_can_be_turned_off(dataset):
    def rising(images):  # the green channel grows from left to right
        return images[:, 1, :, -1].float().mean(1) > images[:, 1, :, 0].float().mean(1)

    assert 0.4 < rising(stream(dataset, steps=100)).float().mean() < 0.6
    plain = stream(dataset, steps=100, flip=False)
    assert rising(plain).all()
    flipped = stream(dataset, steps=100)
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in zip(plain, flipped, strict=True))


def test_loading_leaves_the_global_random_state_alone(dataset):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    np.random.seed(0)
    numpy_before = np.random.get_state()[1].copy()
    stream(dataset)
    list(eval_batches(dataset, 5))
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_is_in_order_and_complete(dataset, num_workers):
    batches = list(eval_batches(dataset, 5, num_workers=num_workers))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    images = torch.cat(batches)
    assert identity(images) == list(range(NUM_IMAGES))
    assert torch.equal(images, dataset.images(np.arange(NUM_IMAGES)))


@pytest.mark.parametrize("num_processes", [2, 3, 40])
def test_evaluation_is_shared_without_loss(dataset, num_processes):
    shares = [list(eval_batches(dataset, 5, rank=rank, num_processes=num_processes)) for rank in range(num_processes)]
    assert identity(torch.cat([batch for share in shares for batch in share])) == list(range(NUM_IMAGES))


def test_refused_batches(dataset):
    with pytest.raises(ValueError, match="has 23 images, fewer than one batch of 24; the largest batch_size is 23"):
        train_batches(dataset, 24, seed=0, steps=1)
    with pytest.raises(
        ValueError, match="batch_size 8 cannot be shared evenly by 3, the processes times accumulate; 9 can"
    ):
        train_batches(dataset, 8, seed=0, steps=1, num_processes=3)
    for function in (lambda: train_batches(dataset, 0, seed=0, steps=1), lambda: eval_batches(dataset, 0)):
        with pytest.raises(ValueError, match="batch_size is 0"):
            function()


def test_crops_move_from_epoch_to_epoch(dataset):
    images = stream(dataset, steps=3 * NUM_IMAGES, flip=False)
    of_image_5 = [image.numpy().tobytes() for image, i in zip(images, identity(images), strict=True) if i == 5]
    assert len(of_image_5) == 24
    assert len(set(of_image_5)) == 1 if dataset.crop is None else len(set(of_image_5)) > 5


# The random numbers.


def test_draws_are_a_function_of_their_coordinates():
    some = uniform(1, 2, np.array([5, 9]))
    assert np.array_equal(some, uniform(1, 2, np.arange(20))[[5, 9]])
    assert len({uniform(*at, np.array([i]))[0, 0] for at in ((1, 2), (2, 1), (1, 3), (0, 0)) for i in range(9)}) == 36
    # These numbers fix the stream: a change of them changes what a resumed run sees.
    assert permutation(8888, 0, 8).tolist() == [7, 3, 4, 6, 1, 5, 2, 0]
    assert uniform(8888, 1, np.array([3]))[0] == pytest.approx(
        [0.12729799726015, 0.592704218328431, 0.767246461238042, 0.98477824747465], abs=1e-12
    )


def test_draws_are_uniform_and_uncorrelated():
    draws = np.concatenate([uniform(0, epoch, np.arange(5000)) for epoch in range(4)])  # [20000, 4]
    assert draws.min() >= 0 and draws.max() < 1
    counts = np.stack([np.histogram(column, 20, (0, 1))[0] for column in draws.T])
    chi_square = ((counts - 1000) ** 2 / 1000).sum(1)  # 19 degrees of freedom: 43.8 is exceeded once in a thousand
    assert (chi_square < 43.8).all()
    assert np.abs(np.corrcoef(draws.T) - np.eye(4)).max() < 0.03
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.03
    epochs = draws[:, 0].reshape(4, 5000)
    assert np.abs(np.corrcoef(epochs) - np.eye(4)).max() < 0.06


def test_permutations_are_permutations_without_pattern():
    orders = np.stack([permutation(7, epoch, 50) for epoch in range(400)])
    assert (np.sort(orders, axis=1) == np.arange(50)).all()
    means = orders.mean(0)  # of each place: 24.5, with a deviation of 14.4 / 20 = 0.72
    assert np.abs(means - 24.5).max() < 4 * 0.72


def test_a_number_of_images_that_is_none_may_be_none() -> None:
    check_loading(1, max_images=None)
    with pytest.raises(TypeError, match=r"^max_images is '2' \(str\), but must be of type int or None\.$"):
        check_loading(1, max_images="2")
