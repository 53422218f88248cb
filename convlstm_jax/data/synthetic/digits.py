"""The handwritten digits that moving-digit videos are drawn from."""

import functools
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convlstm_jax.errors import UserError
from convlstm_jax.paths import local_path, read_bytes

# The environment variable that names the folder of IDX files where no field does.
FOLDER_VARIABLE = "CONVLSTM_MNIST_DIR"

_MAX_BYTES = 2**30
_MAGIC = 0x00000803  # Of IDX files of unsigned bytes in three dimensions.
_FILES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
_ADDRESS = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True, eq=False)
class DigitSet:
    """Digits for the three splits, uint8 `[N, 28, 28]`; no digit is in two of them."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    source: str
    description: str


def load_digits(
    source: str = "auto", digits_dir: str = "", tfds_dir: str = ""
) -> DigitSet:
    """Loads handwritten digits, split for training, validation and testing.

    The source "idx" reads MNIST from its IDX files in `digits_dir` (by default that
    which CONVLSTM_MNIST_DIR names); "tfds" lets tensorflow-datasets download and check
    them; "sklearn" takes the 1,797 digits that come with scikit-learn, enlarged; "auto"
    takes the first of these that is available, IDX files only where a folder is named.
    Of MNIST, the last sixth of the training digits is the validation split.
    """
    for problem in check_digits_folder(source, digits_dir):
        raise UserError(problem)
    named = digits_dir or os.environ.get(FOLDER_VARIABLE, "")
    if source == "idx" or (source == "auto" and named):
        folder = local_path(named)
        paths = [find_idx_file(folder, name) for name in _FILES]
        return _split_mnist(paths, "idx", f"from the IDX files in {folder}")
    if source == "sklearn":
        return _load_sklearn()
    try:
        return _split_mnist(_download(tfds_dir), "tfds", "from tensorflow-datasets")
    except (ImportError, OSError) as error:
        if source == "tfds":
            raise UserError(
                f"digits is 'tfds', but MNIST is not available: {error}; name a folder "
                f"of its IDX files by digits_dir or {FOLDER_VARIABLE} instead"
            ) from error
        return _load_sklearn(
            ", standing in for MNIST, as no folder of IDX files is named (digits_dir "
            f"or {FOLDER_VARIABLE}) and its download failed: {error}"
        )


def check_digits_folder(source: str, digits_dir: str) -> Iterator[str]:
    """Yields what is wrong with the folder of IDX files, see `load_digits`."""
    variable = os.environ.get(FOLDER_VARIABLE, "")
    named = digits_dir or (variable if source in ("idx", "auto") else "")
    which = "digits_dir" if named == digits_dir else FOLDER_VARIABLE
    missing = named and not local_path(named).is_dir()
    if missing or (source == "idx" and not named):
        yield (
            f"{which} is {named!r}: it must be an existing folder of MNIST's IDX files "
            f"(name it by digits_dir or the environment variable {FOLDER_VARIABLE})"
        )


def _split_mnist(paths: list[Path], source: str, origin: str) -> DigitSet:
    """Sets the last sixth of MNIST's training digits aside for validation."""
    images, test = (read_idx_images(path) for path in paths)
    train, validation = np.split(images, [len(images) - len(images) // 6])
    description = (
        f"MNIST {origin}: {len(train):,} digits for training, {len(validation):,} for "
        f"validation, {len(test):,} for testing."
    )
    return DigitSet(train, validation, test, source, description)


def _download(tfds_dir: str) -> list[Path]:
    """The IDX files in the folder of tensorflow-datasets, which checks their SHA-256.

    Raises an `OSError`, within seconds where there is no network.
    """
    # Here, because the import takes half a second.
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import download_manager, util

    folder = local_path(tfds_dir or tfds.core.constants.DATA_DIR) / "downloads"
    manager = tfds.download.DownloadManager(
        download_dir=folder, dataset_name="mnist_digits"
    )
    urls = [f"{_ADDRESS}{name}.gz" for name in _FILES]
    try:
        if len(list(folder.glob("mnist_digits/*.gz"))) < len(urls):
            # Asked first, since tensorflow-datasets sets no time limit.
            requests.head(urls[1], timeout=_TIMEOUT_SECONDS).raise_for_status()
        return [Path(path) for path in manager.download(urls)]
    except (
        requests.exceptions.RequestException,
        util.DownloadError,
        download_manager.NonMatchingChecksumError,
    ) as error:
        raise OSError(
            f"the published files cannot be downloaded from {_ADDRESS} "
            f"({type(error).__name__})"
        ) from error


@functools.cache
def _load_sklearn(why: str = "") -> DigitSet:
    """Scikit-learn's digits, enlarged from 8x8 with 17 shades to resemble MNIST's.

    `why` they replace MNIST ends the description.
    """
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
    train, validation, test = np.split(images, [1297, 1497])
    description = (
        f"scikit-learn's {len(images):,} handwritten digits, enlarged from 8x8 "
        f"({len(train):,} for training, {len(validation):,} for validation, "
        f"{len(test):,} for testing){why}."
    )
    return DigitSet(train, validation, test, "sklearn", description)


def find_idx_file(folder: Path, name: str) -> Path:
    """Finds one of the MNIST files, as published or unpacked, with `-idx` or `.idx`."""
    for stem in (name, name.replace("-idx", ".idx")):
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                return path
    raise UserError(
        f"digits_dir is {str(folder)!r}, which holds neither {name} nor {name}.gz: "
        "it must hold MNIST's published IDX files"
    )


def read_idx_images(path: Path) -> np.ndarray:
    """Reads the images of one IDX file, compressed or not: uint8 `[N, 28, 28]`."""
    expected = (
        f"it must be an IDX file (magic number {_MAGIC}) of images of 28x28 bytes"
    )
    try:
        content = read_bytes(path, _MAX_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}): {expected}") from error
    magic, count, *size = struct.unpack(">4I", content[:16].ljust(16, b"\0"))
    whole = count > 0 and len(content) == 16 + 784 * count
    if magic != _MAGIC or size != [28, 28] or not whole:
        raise UserError(
            f"{path} has magic number {magic}, sizes {[count, *size]} and "
            f"{len(content)} bytes: {expected}"
        )
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, 28, 28)
