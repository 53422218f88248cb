"""The IDX format, in which MNIST is published (http://yann.lecun.com/exdb/mnist/)."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from convlstm_jax.errors import UserError

_IMAGE_MAGIC = 0x00000803  # unsigned bytes, three dimensions


def find_idx_file(folder: Path, name: str) -> Path:
    """Finds one of the MNIST files under the names it goes by.

    Args:
      folder: where to look.
      name: the published name less `.gz`, e.g. "train-images-idx3-ubyte". Also found
        with `.gz` and with '.' in place of '-' before "idx", as some tools unpack it.

    Returns:
      The path of the file.

    Raises:
      UserError: the folder does not exist or does not hold the file.
    """
    if not folder.is_dir():
        raise UserError(
            f"digits_dir {str(folder)!r} is not a folder; the folder of MNIST's IDX "
            f"files (such as {name}.gz) is expected."
        )
    for stem in (name, name.replace("-idx", ".idx")):
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                return path
    raise UserError(
        f"digits_dir {str(folder)!r} holds neither {name} nor {name}.gz; MNIST's "
        "published IDX files are expected there."
    )


def read_idx_images(path: Path) -> np.ndarray:
    """Reads the images of one IDX file, compressed (`.gz`) or not.

    Args:
      path: the file.

    Returns:
      uint8 [N, 28, 28].

    Raises:
      UserError: the file is damaged, cut short or holds something else.
    """
    expected = "an IDX file of N images of 28x28 bytes is expected"
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); {expected}.") from error
    if len(content) < 16:
        raise UserError(f"{path} is cut short ({len(content)} bytes); {expected}.")
    magic, count, height, width = struct.unpack(">4I", content[:16])
    if magic != _IMAGE_MAGIC or (height, width) != (28, 28) or count < 1:
        raise UserError(
            f"{path} starts with magic number {magic} and sizes {count}, {height}, "
            f"{width}, where {_IMAGE_MAGIC} and N, 28, 28 belong; {expected}."
        )
    if len(content) != 16 + count * height * width:
        raise UserError(
            f"{path} promises {count} images, which take "
            f"{16 + count * height * width} bytes, but has {len(content)} bytes; "
            f"{expected}."
        )
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, height, width)
