"""The digits: where they come from, how they are split, and what a swap says."""

import functools
import gzip
import hashlib
import http.server
import os
import struct
import sys
import threading

import numpy as np
import pytest
from tensorflow_datasets.core.download import checksums

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


def write_idx(folder):
    """Small IDX files; returns their images."""
    generator = np.random.default_rng(0)
    images = []
    for name, count in (("train", 60), ("t10k", 7)):
        images.append(generator.integers(0, 256, (count, 28, 28), np.uint8))
        content = struct.pack(">4I", 2051, count, 28, 28) + images[-1].tobytes()
        path = folder / f"{name}-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(content))
    return images


@pytest.mark.parametrize("how", ["idx", "auto", "environment"])
def test_idx_folder_is_split(tmp_path, monkeypatch, how):
    train, test = write_idx(tmp_path)
    if how == "environment":
        monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
        digits = load_digits()
    else:  # The field goes before the environment.
        monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "nowhere"))
        digits = load_digits(how, digits_dir=str(tmp_path))
    assert digits.source == "idx"
    np.testing.assert_array_equal(digits.train, train[:50])
    np.testing.assert_array_equal(digits.validation, train[50:])
    np.testing.assert_array_equal(digits.test, test)
    assert str(tmp_path) in digits.description
    assert "50 digits for training, 10 for validation, 7 for" in digits.description


@pytest.mark.parametrize("source", ["idx", "auto"])
def test_a_named_folder_must_be_sound(tmp_path, source):
    with pytest.raises(UserError, match="nowhere': it must be an existing folder"):
        load_digits(source, digits_dir=str(tmp_path / "nowhere"))
    write_idx(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(UserError, match="holds neither t10k-images-idx3-ubyte nor"):
        load_digits(source, digits_dir=str(tmp_path))


def test_a_folder_that_is_not_there_is_told_before_work(tmp_path, monkeypatch):
    none = str(tmp_path / "nowhere")
    assert not [*check_digits_folder("auto", ""), *check_digits_folder("idx", ".")]
    (problem,) = check_digits_folder("sklearn", none)
    assert problem.startswith(f"digits_dir is '{none}': it must be an existing")
    with pytest.raises(UserError, match=f"digits_dir is '': .*{FOLDER_VARIABLE}"):
        load_digits("idx")
    monkeypatch.setenv(FOLDER_VARIABLE, none)
    (problem,) = check_digits_folder("auto", "")
    assert problem.startswith(f"{FOLDER_VARIABLE} is '{none}'")
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


@pytest.mark.parametrize(
    "error", [OSError("no network"), ImportError("No module named 'x'")]
)
def test_auto_says_why_it_swaps_and_tfds_what_to_do(monkeypatch, error):
    def failing(tfds_dir):
        raise error

    monkeypatch.setattr(digits_module, "_download", failing)
    digits = load_digits("auto")
    assert digits.source == "sklearn"
    for text in ("standing in for MNIST", str(error), FOLDER_VARIABLE):
        assert text in digits.description
    np.testing.assert_array_equal(digits.train, load_digits("sklearn").train)
    with pytest.raises(UserError, match=f"is not available: {error}; name a folder"):
        load_digits("tfds")


@pytest.mark.skipif(not REAL_FOLDER, reason=f"{FOLDER_VARIABLE} names no folder")
def test_real_mnist():
    digits = load_digits("idx", digits_dir=REAL_FOLDER)
    assert (len(digits.validation), len(digits.test)) == (10_000, 10_000)
    both = np.concatenate([digits.train, digits.validation])
    np.testing.assert_allclose(both.mean(), 33.318, atol=1e-3)


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
    np.testing.assert_array_equal(read_idx_images(path), IMAGES)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (NAME, CONTENT[:10], "and 10 bytes: it must be an IDX file"),
        (NAME, CONTENT[:-1], r"sizes \[3, 28, 28\] and 2367 bytes: it must be"),
        (NAME, CONTENT + b"!", "and 2369 bytes"),
        (NAME, b"\0" * 3000, "magic number 0"),
        (NAME, struct.pack(">4I", 2051, 3, 28, 29) + CONTENT[16:], "3, 28, 29"),
        (NAME, struct.pack(">4I", 2051, 0, 28, 28), r"sizes \[0, 28, 28\]"),
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


# --- the download by tensorflow-datasets, from a small server on this machine


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served_mnist(tmp_path, monkeypatch):
    """MNIST in small at a local address; yields the images and the folder served."""
    # A proxy of the machine's must not be asked for a local address.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    images = write_idx(folder)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder))
    )
    address = f"http://127.0.0.1:{server.server_port}/"
    infos = {}
    for path in folder.iterdir():
        content = path.read_bytes()
        infos[address + path.name] = checksums.UrlInfo(
            size=len(content),
            checksum=hashlib.sha256(content).hexdigest(),
            filename=path.name,
        )
    monkeypatch.setattr(checksums, "get_all_url_infos", lambda: infos)
    monkeypatch.setattr(digits_module, "_ADDRESS", address)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield images, folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_downloads_once_without_tensorflow(served_mnist, tmp_path):
    (train, test), folder = served_mnist
    had_tensorflow = "tensorflow" in sys.modules
    digits = load_digits("tfds", tfds_dir=str(tmp_path / "cache"))
    assert digits.source == "tfds" and "tensorflow-datasets" in digits.description
    np.testing.assert_array_equal(digits.train, train[:50])
    np.testing.assert_array_equal(digits.validation, train[50:])
    np.testing.assert_array_equal(digits.test, test)
    assert had_tensorflow == ("tensorflow" in sys.modules)
    # From now on the cache serves: the address may be gone.
    for path in folder.iterdir():
        path.unlink()
    again = load_digits("auto", tfds_dir=str(tmp_path / "cache"))
    assert again.source == "tfds"
    np.testing.assert_array_equal(again.train, digits.train)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x", "from .*NonMatchingChecksumError"),
        (None, "from .*HTTPError"),
    ],
)
def test_other_or_no_files_at_the_address(served_mnist, tmp_path, content, message):
    path = served_mnist[1] / "t10k-images-idx3-ubyte.gz"
    path.unlink()
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{message}.*; name a folder"):
        load_digits("tfds", tfds_dir=str(tmp_path / "cache"))
    assert load_digits("auto", tfds_dir=str(tmp_path / "cache")).source == "sklearn"


def test_the_published_files_are_registered():
    infos = checksums.get_all_url_infos()
    published = {
        "train-images-idx3-ubyte.gz": (9912422, "440fcabf"),
        "t10k-images-idx3-ubyte.gz": (1648877, "8d422c7b"),
    }
    for name, (size, checksum) in published.items():
        info = infos[digits_module._ADDRESS + name]
        assert (info.size, info.checksum[:8]) == (size, checksum)
