"""The digits: where they come from, how they are split, and what a swap says."""

import gzip
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from convlstm_jax.data.synthetic import digits as digits_module
from convlstm_jax.data.synthetic.digits import (
    FOLDER_VARIABLE,
    check_digits_folder,
    find_idx_file,
    load_digits,
    read_idx_images,
)
from convlstm_jax.errors import UserError

REAL_FOLDER = os.environ.get(FOLDER_VARIABLE, "")


@pytest.fixture(autouse=True)
def no_folder_named(monkeypatch):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)


def write_idx(folder, num_train=60, num_test=7):
    """Small IDX files; returns their images."""
    generator = np.random.default_rng(0)
    images = []
    for name, count in (("train", num_train), ("t10k", num_test)):
        images.append(generator.integers(0, 256, (count, 28, 28), np.uint8))
        content = struct.pack(">4I", 2051, count, 28, 28) + images[-1].tobytes()
        path = folder / f"{name}-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(content))
    return images


def failing_download(message):
    def load(cache_dir):
        raise OSError(message)

    return load


@pytest.mark.parametrize("how", ["idx", "auto", "environment"])
def test_idx_folder_is_split(tmp_path, monkeypatch, how):
    train, test = write_idx(tmp_path)
    if how == "environment":
        monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
        digits = load_digits()
    else:
        digits = load_digits(how, digits_dir=str(tmp_path))
    assert digits.source == "idx"
    np.testing.assert_array_equal(digits.train, train[:50])
    np.testing.assert_array_equal(digits.validation, train[50:])
    np.testing.assert_array_equal(digits.test, test)
    assert str(tmp_path) in digits.description
    assert "50 digits for training, 10 for validation, 7 for" in digits.description


def test_field_goes_before_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    write_idx(tmp_path)
    assert load_digits("auto", digits_dir=str(tmp_path)).source == "idx"


@pytest.mark.parametrize("source", ["idx", "auto"])
def test_a_named_folder_must_be_sound(tmp_path, source):
    with pytest.raises(UserError, match="nowhere': it must be an existing folder"):
        load_digits(source, digits_dir=str(tmp_path / "nowhere"))
    write_idx(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(UserError, match="holds neither t10k-images-idx3-ubyte nor"):
        load_digits(source, digits_dir=str(tmp_path))
    write_idx(tmp_path, num_train=5)
    with pytest.raises(UserError, match="holds 5 images: it must hold at least 6"):
        load_digits(source, digits_dir=str(tmp_path))


def test_idx_without_a_folder():
    with pytest.raises(UserError, match=f"digits_dir is '': .*{FOLDER_VARIABLE}"):
        load_digits("idx")


def test_a_folder_that_is_not_there_is_told_before_work(tmp_path, monkeypatch):
    none = str(tmp_path / "nowhere")
    assert not [*check_digits_folder("auto", ""), *check_digits_folder("idx", ".")]
    (problem,) = check_digits_folder("sklearn", none)
    assert problem.startswith(f"digits_dir is '{none}': it must be an existing")
    (problem,) = check_digits_folder("idx", "")
    assert "digits is 'idx'" in problem
    monkeypatch.setenv(FOLDER_VARIABLE, none)
    (problem,) = check_digits_folder("auto", "")
    assert problem.startswith(f"the environment variable {FOLDER_VARIABLE} is")
    assert not list(check_digits_folder("sklearn", ""))


def test_sklearn_digits_look_like_mnist():
    digits = load_digits("sklearn")
    assert digits.source == "sklearn"
    splits = (digits.train, digits.validation, digits.test)
    assert [len(split) for split in splits] == [1297, 200, 300]
    assert "standing in" not in digits.description
    images = np.concatenate(splits)
    assert images.dtype == np.uint8 and images.shape == (1797, 28, 28)
    # MNIST: mean 33.3, 13.2 % of pixels above one half, all of it inside 20x20.
    assert abs(images.mean() - 33.3) < 1.0
    assert abs((images > 127).mean() - 0.132) < 0.005
    assert images.max(axis=(1, 2)).min() > 200
    inside = images[:, 4:24, 4:24]
    assert inside.sum(dtype=np.int64) == images.sum(dtype=np.int64)
    # The enlargement keeps the picture: block means follow the small image.
    from sklearn.datasets import load_digits as load_small_digits

    small = load_small_digits().images
    rows = images[:, 4:24, 4:24].astype(float).reshape(1797, 4, 5, 4, 5).mean((2, 4))
    small_rows = small.reshape(1797, 4, 2, 4, 2).mean((2, 4))
    assert np.corrcoef(rows.ravel(), small_rows.ravel())[0, 1] > 0.95


def test_auto_says_why_it_swaps(monkeypatch):
    monkeypatch.setattr(digits_module, "_load_tfds", failing_download("no network"))
    digits = load_digits("auto")
    assert digits.source == "sklearn"
    assert "standing in for MNIST" in digits.description
    assert "no network" in digits.description
    assert FOLDER_VARIABLE in digits.description
    np.testing.assert_array_equal(digits.train, load_digits("sklearn").train)


def test_tfds_asked_for_says_what_to_do(monkeypatch):
    monkeypatch.setattr(digits_module, "_load_tfds", failing_download("no network"))
    with pytest.raises(UserError, match="cannot be had: no network; name a folder"):
        load_digits("tfds")


def test_missing_package_swaps_too(monkeypatch):
    def load(cache_dir):
        raise ImportError("No module named 'tensorflow_datasets'")

    monkeypatch.setattr(digits_module, "_load_tfds", load)
    assert "No module named" in load_digits("auto").description


def test_real_mnist(monkeypatch):
    if not REAL_FOLDER:
        pytest.skip(f"{FOLDER_VARIABLE} names no folder of MNIST's files")
    start = time.perf_counter()
    digits = load_digits("idx", digits_dir=str(Path(REAL_FOLDER)))
    assert time.perf_counter() - start < 5
    assert digits.train.shape == (50_000, 28, 28)
    assert digits.validation.shape == (10_000, 28, 28)
    assert digits.test.shape == (10_000, 28, 28)
    np.testing.assert_allclose(
        np.concatenate([digits.train, digits.validation]).mean(), 33.318, atol=1e-3
    )


# --- IDX files: every name they go by, and every way they can be damaged

NAME = "train-images-idx3-ubyte"
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
CONTENT = struct.pack(">4I", 2051, 3, 28, 28) + IMAGES.tobytes()


@pytest.mark.parametrize(
    "name",
    [NAME, f"{NAME}.gz", "train-images.idx3-ubyte", "train-images.idx3-ubyte.gz"],
)
def test_reads_each_name(tmp_path, name):
    content = gzip.compress(CONTENT) if name.endswith(".gz") else CONTENT
    (tmp_path / name).write_bytes(content)
    path = find_idx_file(tmp_path, NAME)
    assert path.name == name
    images = read_idx_images(path)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, IMAGES)


def test_missing_folder_and_file(tmp_path):
    with pytest.raises(UserError, match=f"holds neither {NAME} nor {NAME}.gz"):
        find_idx_file(tmp_path, NAME)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (NAME, CONTENT[:10], r"cut short \(10 bytes\)"),
        (NAME, CONTENT[:-1], "promises 3 images, which take 2368 bytes"),
        (NAME, CONTENT + b"!", "has 2369 bytes"),
        (NAME, b"\0" * 3000, "magic number 0"),
        (NAME, struct.pack(">4I", 2051, 3, 28, 29) + b"\0" * 99, "3, 28, 29"),
        (NAME, struct.pack(">4I", 2051, 0, 28, 28), "sizes 0, 28, 28"),
        (f"{NAME}.gz", CONTENT, "cannot be read"),
        (f"{NAME}.gz", gzip.compress(CONTENT)[:-20], "cannot be read"),
        (f"{NAME}.gz", gzip.compress(CONTENT)[:20] + b"\xff" * 99, "cannot be read"),
    ],
)
def test_damage_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_idx_images(path)
    assert str(path) in str(error.value)
    assert "images of 28x28 bytes" in str(error.value)
