"""The handwritten digits that moving-digit videos are drawn from."""

import functools
import gzip
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convlstm_jax.errors import UserError

FOLDER_VARIABLE = "CONVLSTM_MNIST_DIR"
"""Environment variable that names the folder of IDX files where no field does."""

_IDX_IMAGES = 0x00000803  # Magic number: unsigned bytes, three dimensions.


@dataclass(frozen=True, eq=False)
class DigitSet:
    """Digits for the three splits, uint8 `[N, 28, 28]`; no digit is in two of them.

    `source` says where they come from, "idx", "tfds" or "sklearn"; `description` which
    digits these are and, where scikit-learn's stand in for MNIST, why.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    source: str
    description: str


def load_digits(
    source: str = "auto", digits_dir: str = "", tfds_dir: str = ""
) -> DigitSet:
    """Loads handwritten digits, split for training, validation and testing.

    Of MNIST, the last sixth of the training digits (10,000 of 60,000) is the
    validation split and the published test digits are the test split.

    Args:
        source: "idx" reads MNIST from its published IDX files; "tfds" lets
            tensorflow-datasets download, check and cache it; "sklearn" takes the 1,797
            digits that come with scikit-learn, enlarged; "auto" takes the first of
            these that can be had, IDX files only where a folder is named.
        digits_dir: folder of the two IDX files of images; where empty, the environment
            variable CONVLSTM_MNIST_DIR names it.
        tfds_dir: cache folder of tensorflow-datasets; "" for its own default.

    Raises:
        UserError: the folder named holds no sound IDX files, or "tfds" was asked for
            and cannot be had.
    """
    for problem in check_digits_folder(source, digits_dir):
        raise UserError(problem)
    folder = digits_dir or os.environ.get(FOLDER_VARIABLE, "")
    if source == "idx" or (source == "auto" and folder):
        return _load_idx(Path(folder).expanduser())
    if source == "sklearn":
        return _load_sklearn()
    try:
        return _load_tfds(tfds_dir)
    except (ImportError, OSError) as error:
        if source == "tfds":
            raise UserError(
                f"digits is 'tfds', but MNIST cannot be had: {error}; name a folder of "
                "its IDX files by digits_dir or the environment variable "
                f"{FOLDER_VARIABLE} instead"
            ) from error
        return _load_sklearn(
            "standing in for MNIST, as no folder of IDX files is named (digits_dir or "
            f"{FOLDER_VARIABLE}) and its download failed: {error}"
        )


def check_digits_folder(source: str, digits_dir: str) -> Iterator[str]:
    """Yields what is wrong with the folder of IDX files, see `load_digits`."""
    if digits_dir:
        if not Path(digits_dir).expanduser().is_dir():
            yield (
                f"digits_dir is {digits_dir!r}: it must be an existing folder that "
                "holds the IDX files of MNIST"
            )
        return
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder and source in ("idx", "auto") and not Path(folder).expanduser().is_dir():
        yield (
            f"the environment variable {FOLDER_VARIABLE} is {folder!r}: it must be an "
            "existing folder that holds the IDX files of MNIST, or unset"
        )
    if source == "idx" and not folder:
        yield (
            "digits_dir is '': it must be the folder that holds the IDX files of "
            f"MNIST, as digits is 'idx' and {FOLDER_VARIABLE} is not set"
        )


def _split_mnist(
    train: np.ndarray, test: np.ndarray, source: str, origin: str
) -> DigitSet:
    """Sets the last sixth of MNIST's training digits aside for validation."""
    num_train = len(train) - len(train) // 6
    description = (
        f"MNIST {origin}: {num_train:,} digits for training, "
        f"{len(train) - num_train:,} for validation, {len(test):,} for testing."
    )
    return DigitSet(train[:num_train], train[num_train:], test, source, description)


def _load_idx(folder: Path) -> DigitSet:
    # Both are looked for before either is read, so that a missing one is told at once.
    names = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
    paths = [find_idx_file(folder, name) for name in names]
    train, test = (read_idx_images(path) for path in paths)
    if len(train) < 6:
        raise UserError(
            f"{paths[0]} holds {len(train)} images: it must hold at least 6, one of "
            "them for validation"
        )
    return _split_mnist(train, test, "idx", f"from the IDX files in {folder}")


def _load_tfds(cache_dir: str) -> DigitSet:
    # Here, because the import takes half a second.
    from convlstm_jax.data.synthetic.mnist_builder import read_mnist

    return _split_mnist(*read_mnist(cache_dir), "tfds", "from tensorflow-datasets")


@functools.cache
def _enlarged_digits() -> np.ndarray:
    """Scikit-learn's digits, enlarged from 8x8 with 17 shades to MNIST's manner."""
    # Here, because the imports take a second which users of MNIST need not wait for.
    from scipy import ndimage
    from sklearn.datasets import load_digits as load_small_digits

    small = load_small_digits().images / 16.0
    # To 20x20 centred in 28x28, as MNIST is.
    large = ndimage.zoom(
        small, (1, 2.5, 2.5), order=3, mode="grid-constant", grid_mode=True
    )
    # The cubic interpolation blurs; with this contrast strokes are as wide and as
    # bright as MNIST's (mean pixel 33.6 against 33.3).
    large = np.clip((large - 0.4) / 0.4, 0.0, 1.0)
    images = np.zeros((len(large), 28, 28), np.uint8)
    images[:, 4:24, 4:24] = np.round(255.0 * large)
    images.flags.writeable = False
    return images


def _load_sklearn(standing_in: str = "") -> DigitSet:
    """Splits scikit-learn's digits; `standing_in` says why they replace MNIST."""
    images = _enlarged_digits()
    train, validation, test = np.split(images, [1297, 1497])
    description = (
        f"scikit-learn's {len(images):,} handwritten digits, enlarged from 8x8 "
        "({:,} for training, {:,} for validation, {:,} for testing)"
    ).format(len(train), len(validation), len(test))
    description += f", {standing_in}." if standing_in else "."
    return DigitSet(train, validation, test, "sklearn", description)


def find_idx_file(folder: Path, name: str) -> Path:
    """Finds one of the MNIST files by its published name less `.gz`.

    Also with `.gz`, and with '.' in place of '-' before "idx", as some tools unpack it.
    """
    for stem in (name, name.replace("-idx", ".idx")):
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                return path
    raise UserError(
        f"digits_dir is {str(folder)!r}, which holds neither {name} nor {name}.gz: "
        "it must hold MNIST's published IDX files"
    )


def read_idx_images(path: Path) -> np.ndarray:
    """Reads the images of one IDX file, compressed or not: uint8 `[N, 28, 28]`.

    Raises:
        UserError: the file is damaged, cut short or holds something else.
    """
    expected = "it must be an IDX file of N images of 28x28 bytes"
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}): {expected}") from error
    if len(content) < 16:
        raise UserError(f"{path} is cut short ({len(content)} bytes): {expected}")
    magic, count, height, width = struct.unpack(">4I", content[:16])
    if magic != _IDX_IMAGES or (height, width) != (28, 28) or count < 1:
        raise UserError(
            f"{path} starts with magic number {magic} and sizes {count}, {height}, "
            f"{width}, where {_IDX_IMAGES} and N, 28, 28 belong: {expected}"
        )
    if len(content) != 16 + count * height * width:
        raise UserError(
            f"{path} promises {count} images, which take "
            f"{16 + count * height * width} bytes, but has {len(content)} bytes: "
            f"{expected}"
        )
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, height, width)
