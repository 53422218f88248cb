"""The named data sets: fixed splits, seeds, and what they say of themselves."""

import re

import numpy as np
import pytest

from convlstm_jax.config import validated
from convlstm_jax.data.data_sets import DATA_SETS
from convlstm_jax.data.synthetic.bubbles import CONDITIONS
from convlstm_jax.data.synthetic.digits import load_digits
from convlstm_jax.data.synthetic.moving_mnist import MovingMNISTConfig, MovingMNISTFile
from convlstm_jax.errors import UserError


def small_sources(seed=0, num_frames=6, **fields):
    defaults = {
        "digits": "sklearn",
        "num_train_sequences": 50,
        "num_validation_sequences": 5,
        "num_test_sequences": 8,
    }
    config = MovingMNISTConfig(**(defaults | fields))
    return config.sources(num_frames=num_frames, seed=seed)


def test_each_split_draws_its_own_digits():
    digits = load_digits("sklearn")
    sources = small_sources(num_digits=1, height=28, width=28, num_frames=1)
    for split in ("train", "validation", "test"):
        own = {image.tobytes() for image in getattr(digits, split)}
        for clip in getattr(sources, split):
            assert clip["frames"].tobytes() in own


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


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("moving_mnist", {"num_train_sequences": 0}, "num_train_sequences is 0: it"),
        ("moving_mnist", {"digits": "cats"}, "digits is 'cats': it must be one of"),
        ("moving_mnist", {"height": 27}, "height is 27: .* of at least 28"),
        ("moving_mnist", {"velocity": 1.5}, "velocity is 1.5: .* at most 1"),
        ("moving_mnist", {"test_file": "a", "height": 32}, "test_file .*height of 32"),
        (
            "moving_mnist",
            {"test_file": "a", "num_digits": 3},
            "test_file.*digits of 3",
        ),
        ("moving_squares", {"width": 0}, "width is 0"),
        ("bubbles", {"height": 15}, "height is 15: .* of at least 16"),
        ("bubbles", {"test_conditions": ("3 L/min",)}, "test_conditions is .*3 L"),
        ("bubbles", {"test_conditions": CONDITIONS}, "test_conditions is .* leave one"),
        ("theft_videos", {"height": 31}, "height is 31: .* of at least 32"),
        ("theft_videos", {"height": 99}, "width is 64: it must be at least 2/3 of"),
        ("theft_videos", {"channels": 2}, "channels is 2: it must be one of 1, 3"),
        ("rain_cells", {"width": 15}, "width is 15: .* of at least 16"),
        ("rain_cells", {"dbz_min": 70.0}, "dbz_min is 70: it must be below dbz_max"),
        ("rain_cells", {"zr_a": 0.0}, "zr_a is 0.0: .* above 0"),
        ("rain_cells", {"zoom": 5.0}, "zoom is 5.0: .* from 1 to 4"),
    ],
)
def test_wrong_fields_are_named(name, fields, message):
    config, problems = validated(DATA_SETS[name], fields, "config.data.")
    assert config is None and len(problems) == 1
    assert re.search(f"config.data.{message}", problems[0]), problems


def test_files_that_are_not_there_are_told_before_work():
    config = MovingMNISTConfig(test_file="none.npy", digits_dir="nowhere")
    problems = list(config.check_machine())
    assert [text.split(":")[0] for text in problems] == [
        "digits_dir is 'nowhere'",
        "test_file is 'none.npy'",
    ]
    assert config.max_frames == 20 and MovingMNISTConfig().max_frames is None


@pytest.mark.parametrize("name", sorted(DATA_SETS))
def test_each_data_set_goes_by_its_name(name):
    assert DATA_SETS[name].model_fields["name"].default == name
    assert (DATA_SETS[name].own_data or name) in DATA_SETS
