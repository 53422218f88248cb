"""IDX files: every name they go by, and every way they can be damaged."""

import gzip
import struct

import numpy as np
import pytest

from convlstm_jax.data.idx_files import find_idx_file, read_idx_images
from convlstm_jax.errors import UserError

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
    with pytest.raises(UserError, match=r"nowhere' is not a folder"):
        find_idx_file(tmp_path / "nowhere", NAME)
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
    assert "28x28 bytes is expected" in str(error.value)
