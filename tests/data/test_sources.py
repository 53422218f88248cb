"""The named data sets: fixed splits, seeds, and what they say of themselves."""

import pickle

import numpy as np
import pytest

from convlstm_jax.data.data_sets import make_sources
from convlstm_jax.data.digits import load_digits
from convlstm_jax.data.moving_mnist import MovingMNIST, MovingMNISTFile
from convlstm_jax.errors import UserError


def small_sources(**fields):
    defaults = {
        "num_frames": 6,
        "seed": 0,
        "digits": "sklearn",
        "num_train_sequences": 50,
        "num_validation_sequences": 5,
        "num_test_sequences": 8,
    }
    return make_sources("moving_mnist", **(defaults | fields))


def test_splits_and_description():
    sources = small_sources(height=40, width=48, num_digits=1)
    assert (len(sources.train), len(sources.validation), len(sources.test)) == (
        50,
        5,
        8,
    )
    assert (sources.height, sources.width, sources.channels) == (40, 48, 1)
    assert sources.digits_source == "sklearn"
    assert "1 digit on 40x48" in sources.description
    assert "scikit-learn's 1,797" in sources.description
    for source in (sources.train, sources.validation, sources.test):
        frames = pickle.loads(pickle.dumps(source))[0]["frames"]
        assert frames.shape == (6, 40, 48, 1) and frames.dtype == np.uint8


def test_each_split_draws_its_own_digits():
    digits = load_digits("sklearn")
    sources = small_sources(num_digits=1, height=28, width=28, num_frames=1)
    for split in ("train", "validation", "test"):
        own = {image.tobytes() for image in getattr(digits, split)}
        for clip in getattr(sources, split):
            assert clip["frames"].tobytes() in own


def test_only_training_depends_on_the_seed():
    first, second = small_sources(), small_sources(seed=1, num_test_sequences=3)
    for split, same in (("train", False), ("validation", True), ("test", True)):
        pairs = [
            (getattr(first, split)[index], getattr(second, split)[index])
            for index in range(3)
        ]
        assert same == all(np.array_equal(a["frames"], b["frames"]) for a, b in pairs)


def test_no_seed_trains_on_the_test_trajectories():
    digits = np.full((1, 28, 28), 255, np.uint8)
    sources = small_sources(seed=1)
    for seed in (0, 1, 2**32 - 1):
        train = MovingMNIST(digits, 8, 6, seed=seed)
        assert not np.array_equal(train[0]["frames"] > 0, sources.test[0]["frames"] > 0)


def test_published_test_file(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (20, 9, 64, 64), np.uint8)
    path = tmp_path / "mnist_test_seq.npy"
    np.save(path, array)
    sources = small_sources(test_file=str(path))
    assert isinstance(sources.test, MovingMNISTFile)
    assert len(sources.test) == 8
    np.testing.assert_array_equal(sources.test[7]["frames"][..., 0], array[:6, 7])
    assert f"test sequences from {path}" in sources.description
    with pytest.raises(UserError, match="10 sequences are asked"):
        small_sources(test_file=str(path), num_test_sequences=10)
    with pytest.raises(UserError, match="height, width and num_digits are 32, 64 and"):
        small_sources(test_file=str(path), height=32)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"num_train_sequences": 0}, "num_train_sequences is 0"),
        ({"num_validation_sequences": 0}, "num_validation_sequences is 0"),
        ({"num_test_sequences": 0}, "num_test_sequences is 0"),
        ({"digits": "cats"}, "digits is 'cats'"),
        ({"height": 3}, "height is 3"),
    ],
)
def test_wrong_fields_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        small_sources(**wrong)


def test_unknown_data_set():
    with pytest.raises(
        UserError, match=r"data.name is 'movies', .*'moving_mnist', 'moving_"
    ):
        make_sources("movies", num_frames=6, seed=0)
