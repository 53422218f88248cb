"""Single pictures: which files they are, their order, and their pixels.

Shared by the readers of whole clips (`clip_files`) and of single frames
(`video_frames`), which so agree on every pixel.
"""

import gzip
import re
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
from PIL import Image

from convlstm_jax.errors import UserError

PICTURE_SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".pgm",
    ".pgm.gz",
    ".tif",
    ".tiff",
)

# BT.601 luma. As green plus differences it leaves a grey pixel exactly as it is.
_RED_WEIGHT, _BLUE_WEIGHT = 0.299, 0.114

PICTURE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow and gzip raise on pictures that are damaged, cut or absurdly large."""


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """Sort key that puts `frame2` before `frame10`, letters without regard to case."""
    return [
        (0, int(part)) if part.isdecimal() else (1, part.casefold())
        for part in re.split(r"(\d+)", name)
        if part
    ]


def is_picture_name(name: str) -> bool:
    """Tells whether a file of this name counts as a picture; hidden files do not."""
    return name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")


def picture_paths(folder: Path) -> list[Path]:
    """Lists the pictures of a folder in natural order, passing over other files.

    Args:
      folder: The folder; its own folders are not entered.

    Returns:
      At least one path.

    Raises:
      UserError: The folder cannot be read or holds no picture.
    """
    try:
        paths = [
            path
            for path in folder.iterdir()
            if is_picture_name(path.name) and path.is_file()
        ]
    except OSError as error:
        raise UserError(
            f"The folder '{folder}' cannot be read ({reason(error)})."
        ) from error
    if not paths:
        raise UserError(
            f"The folder '{folder}' holds no picture "
            f"({', '.join(PICTURE_SUFFIXES)}), but a clip needs at least one."
        )
    paths.sort(key=lambda path: (natural_order(path.name), path.name))
    return paths


def picture_size(path: Path) -> tuple[int, int]:
    """Reads (width, height) from the head of a picture, without decoding it.

    Raises:
      UserError: The file cannot be read as a picture.
    """
    try:
        with open_picture(path) as picture:
            return picture.size
    except PICTURE_ERRORS as error:
        raise unreadable_picture(path, error) from error


def read_picture(path: Path, channels: int | None) -> np.ndarray:
    """Reads a picture as `picture_array` gives it.

    Raises:
      UserError: The file cannot be read as a picture.
    """
    try:
        with open_picture(path) as picture:
            return picture_array(picture, channels)
    except PICTURE_ERRORS as error:
        raise unreadable_picture(path, error) from error


def open_picture(path: Path) -> Image.Image:
    """Opens a picture, through gzip where its name ends so; raises `PICTURE_ERRORS`."""
    if path.suffix.lower() != ".gz":
        return Image.open(path)
    with gzip.open(path) as file:
        picture = Image.open(cast(IO[bytes], file), formats=("PPM",))
        picture.load()  # while the file is open
        return picture


def unreadable_picture(path: Path, error: BaseException) -> UserError:
    """The error for a picture that failed with one of `PICTURE_ERRORS`."""
    return UserError(f"'{path}' cannot be read as a picture ({reason(error)}).")


def picture_array(picture: Image.Image, channels: int | None) -> np.ndarray:
    """The pixels of an open picture.

    Sixteen-bit values are divided by 65535. Transparent pixels lie on black. Colour
    becomes grey by the BT.601 luma, which does not change what is grey already.

    Args:
      picture: The picture.
      channels: 1 (grey) or 3 (RGB); None stands for 3, with three equal channels for a
        grey picture.

    Returns:
      uint8 [H, W, C], or float32 in [0, 1] if the picture has more than 8 bits.

    Raises:
      ValueError: It has values outside 8 bits, 16 bits and floats in [0, 1].
      OSError: The picture is damaged; see `PICTURE_ERRORS` for what else Pillow raises.
    """
    if picture.mode == "F" or picture.mode.startswith("I"):
        values = np.asarray(picture, np.float32)
        if picture.mode != "F":
            values = values / np.float32(65535)
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(
                "its values lie outside 8 bits, 16 bits and floats in [0, 1]"
            )
        return np.repeat(values[..., np.newaxis], channels or 3, axis=-1)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture)
    if channels == 1:
        # Palettes go through RGB: their direct conversion rounds on its own.
        source = (
            picture if picture.mode in ("L", "1", "RGB") else picture.convert("RGB")
        )
        return np.asarray(source.convert("L"))[..., np.newaxis]
    return np.asarray(picture.convert("RGB"))


def luma(frame: np.ndarray) -> np.ndarray:
    """BT.601 luma of float [H, W, 3], as [H, W, 1]."""
    red, green, blue = frame[..., :1], frame[..., 1:2], frame[..., 2:]
    return green + _RED_WEIGHT * (red - green) + _BLUE_WEIGHT * (blue - green)


def reason(error: BaseException) -> str:
    """The first line of an error without system numbers and repeated paths."""
    text = str(getattr(error, "strerror", None) or error).strip()
    first = text.splitlines()[0] if text else type(error).__name__
    return re.sub(r"^\[Errno -?\d+\] ", "", first).rstrip(".")
