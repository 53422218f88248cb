"""Pictures, folders of them, and files that hold several: GIF, TIFF, APNG, WebP."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import tifffile
from PIL import Image, ImageOps

from convlstm_jax.data.files import (
    MAX_FRAME_BYTES,
    check_budget,
    natural_order,
    reason,
)
from convlstm_jax.data.video.fit import Bad, Opened, Raw
from convlstm_jax.errors import UserError
from convlstm_jax.paths import check_regular, read_bytes

PICTURE_SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".pgm.gz", ".tif",
    ".tiff", ".webp",
)  # fmt: skip
STACK_SUFFIXES = (".png", ".apng", ".tif", ".tiff", ".webp")
"""Pictures that may hold several frames, and are then films."""

# Pillow must open no others: for a PostScript file named .png it starts a program.
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "GIF", "WEBP")
_FFMPEG_FORMATS = {"PNG": "png_pipe", "PPM": "ppm_pipe"}
_ORIENTATION = 0x0112

# It also raises the errors that it would print.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def open_picture(path: Path) -> Image.Image:
    """Opens a picture, also one with gzip; a damaged file may raise any exception."""
    if path.suffix.lower() == ".gz":
        content = io.BytesIO(read_bytes(path, MAX_FRAME_BYTES))
        picture = Image.open(content, formats=("PPM",))
    else:
        check_regular(path)
        picture = Image.open(path, formats=_FORMATS)
    check_budget(path, 1, picture.width * picture.height * 3)
    return picture


def num_pages(path: Path) -> int:
    """Frames in a file of one of `STACK_SUFFIXES`; 1 if it cannot be read."""
    try:
        with open_picture(path) as picture:
            return getattr(picture, "n_frames", 1)
    except Exception:
        return 1


def _pixels(path: Path, picture: Image.Image, page: int, channels: int) -> Raw:
    """The upright pixels of a page, transparent ones on black; 8-bit grey by luma."""
    form, tile = picture.format or "", list(getattr(picture, "tile", ()))
    if form == "TIFF":
        misread = _is_misread_tiff(picture)
    else:
        misread = picture.mode in ("RGB", "RGBA", "LA") and bool(
            ";16" in repr(tile) or (form == "PPM" and tile and tile[0][3][1] > 255)
        )
    if misread:
        tags: Any = picture.tag_v2 if form == "TIFF" else picture.getexif()  # type: ignore[attr-defined]
        values = _values(path, form, page)
        white = 255 if values.dtype == np.uint8 else 65535
        return Raw(_upright(values, int(tags.get(_ORIENTATION, 1))), white)
    if form != "TIFF":
        ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode == "F" or picture.mode.startswith("I"):
        values = np.asarray(picture)[..., np.newaxis]
        if form == "PPM" and tile[0][3][1] != 65535:
            white = tile[0][3][1]  # Pillow scales to 16 bits.
            return Raw(np.rint(values * (white / 65535)).astype(np.int32), white)
        return Raw(values, 65535)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture)
    # Palettes become grey through RGB, as their direct conversion rounds differently.
    if channels == 3 or picture.mode not in ("L", "1"):
        picture = picture.convert("RGB")
    if channels == 3:
        return Raw(np.asarray(picture))
    return Raw(np.asarray(picture.convert("L"))[..., np.newaxis])


def _is_misread_tiff(picture: Image.Image) -> bool:
    """Whether Pillow misreads a page: deep colours, signs, inverted or rotated ones."""
    tags = picture.tag_v2  # type: ignore[attr-defined]
    bits, signed = max(tags.get(258, (1,))), 2 in tags.get(339, (1,))
    return (
        (bits > 8 and (len(picture.getbands()) > 1 or tags.get(262) == 0))
        or (signed and bits == 8)
        or (bits == 32 and tags.get(339, (1,)) == (1,))
        or tags.get(_ORIENTATION, 1) != 1
    )


def _values(path: Path, form: str, page: int) -> np.ndarray:
    """The values `[H, W, C]` of pictures that Pillow misreads."""
    if form == "TIFF":
        with tifffile.TiffFile(path) as file:
            one: Any = file.pages[page]
            values = one.asarray()
            if "S" in one.axes and one.axes.index("S") == 0:
                values = np.moveaxis(values, 0, -1)
            if one.photometric == 0 and values.dtype.kind == "u":
                values = np.iinfo(values.dtype).max - values
            if one.photometric > 2 or values.dtype.kind == "b":
                raise ValueError("such a TIFF is not read: save it as grey or RGB")
        values = values[..., np.newaxis] if values.ndim == 2 else values
    elif form in _FFMPEG_FORMATS:
        with av.open(str(path.absolute()), format=_FFMPEG_FORMATS[form]) as file:
            frame = next(file.decode(video=0))
            values = frame.reformat(format="rgb48le").to_ndarray()
    else:
        raise ValueError("colours of 16 bits are read from TIFF, PNG and PPM only")
    return values[..., :3] if values.shape[-1] >= 3 else values[..., :1]


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Rotates and mirrors a picture by its EXIF orientation."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    upside_down, mirrored = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return values[:: -1 if upside_down else 1, :: -1 if mirrored else 1]


def picture_paths(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order; at least one."""
    try:
        names = [
            path.name
            for path in folder.iterdir()
            if path.name.lower().endswith(PICTURE_SUFFIXES) and path.is_file()
        ]
    except OSError as error:
        why = f"The folder '{folder}' cannot be read ({reason(error)})"
        raise UserError(why) from error
    names = [name for name in names if name[0] != "."]
    if not names:
        kinds = ", ".join(PICTURE_SUFFIXES)
        raise UserError(f"The folder '{folder}' holds no picture ({kinds})")
    return [folder / name for name in sorted(sorted(names), key=natural_order)]


def open_folder(folder: Path, channels: int) -> Opened:
    """Opens the pictures of a folder as one film, in natural order."""
    paths = picture_paths(folder)
    check_budget(folder, len(paths), 1)

    def frames() -> Iterator[Raw | Bad]:
        size: tuple[int, ...] = ()
        for path in paths:
            try:
                with open_picture(path) as picture:
                    pages = getattr(picture, "n_frames", 1)
                    if pages > 1 and picture.format in ("TIFF", "PNG", "WEBP"):
                        raise ValueError(
                            f"it holds {pages} frames and must lie in another folder "
                            "than single pictures"
                        )
                    raw = _pixels(path, picture, 0, channels)
                found = raw.values.shape[:2]
                size = size or found
                if found != size:
                    raise ValueError(
                        f"it is {found[1]}x{found[0]} pixels, but those before are "
                        f"{size[1]}x{size[0]}"
                    )
                yield raw
            except UserError as error:
                yield Bad(str(error))
            except Exception as error:
                yield Bad(f"'{path}' cannot be read as a picture ({reason(error)})")

    return Opened(frames(), total=len(paths))


def open_stack(path: Path, channels: int) -> Opened:
    """Opens a GIF, TIFF, APNG or WebP; each of its frames may build on those before."""
    try:
        cut = ""
        with open_picture(path) as picture:
            total = getattr(picture, "n_frames", 1)
            first = 1 if picture.info.get("default_image") else 0
            if picture.format == "GIF" and not is_whole_gif(path.read_bytes()):
                cut = "the file is cut short"
            deep = ";16" in repr(vars(picture)["tile"])
            if picture.format == "PNG" and total > 1 and deep:
                raise ValueError("animations of 16 bits are not read: use TIFF or .npy")
            if picture.format == "TIFF":
                _check_hyperstack(path, total)
            duration = picture.info.get("duration") or 0
            rate = 1000 / duration if duration > 0 else None
        check_budget(path, total, 1)
    except UserError:
        raise
    except Exception as error:
        kind = path.suffix.upper().strip(".")
        raise UserError(
            f"'{path}' cannot be read as a {kind} ({reason(error)})"
        ) from error

    def frames() -> Iterator[Raw | Bad]:
        number = first
        try:
            with open_picture(path) as picture:
                for number in range(first, total):
                    picture.seek(number)
                    page: Any = picture
                    if picture.format != "TIFF" and total > 1:
                        page = picture.copy()  # Rotating it must not affect the next.
                    yield _pixels(path, page, number, channels)
        except Exception as error:
            # Nor can those that follow be read.
            yield from (Bad(reason(error)) for _ in range(number, total))

    return Opened(frames(), total - first, rate, cut)


def _check_hyperstack(path: Path, total: int) -> None:
    """Refuses stacks of microscopes whose pages are not a time series."""
    with tifffile.TiffFile(path) as file:
        if not (file.is_imagej or file.is_ome):
            return
        axes = zip(file.series[0].axes, file.series[0].shape, strict=True)
        long = {axis: size for axis, size in axes if size > 1 and axis not in "YXS"}
        written = sum(len(series.pages) for series in file.series)
    if "C" in long or len(long) > 1:
        sizes = ", ".join(f"{axis}: {length}" for axis, length in long.items())
        raise ValueError(
            f"it is a hyperstack ({sizes}): save each channel and slice as a stack of "
            "its own"
        )
    if written != total:
        raise ValueError(
            f"{written} frames were written, of which {total} can be found: save it as "
            "an image sequence or as .npy"
        )


def is_whole_gif(content: bytes) -> bool:
    """Whether the blocks of a GIF end with its trailer; Pillow does not check this."""
    try:
        position = 13 + _colour_table_size(content[10])
        while content[position] != ord(";"):
            if content[position] == ord("!"):  # An extension.
                position += 2
            elif content[position] == ord(","):  # An image.
                position += 10 + _colour_table_size(content[position + 9]) + 1
            else:
                return False
            while content[position]:  # Its sub-blocks, up to an empty one.
                position += content[position] + 1
            position += 1
    except IndexError:
        return False
    return True


def _colour_table_size(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
