"""Opens the reader of a video by its kind, and decodes whole videos frame by frame."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from convlstm_jax.data.array_frames import ArrayReader, ArrayValues
from convlstm_jax.data.clip_files import OPENED_SUFFIXES
from convlstm_jax.data.container_frames import ContainerReader
from convlstm_jax.data.frame_fitting import check_crop_box
from convlstm_jax.data.frame_readers import FolderReader, FrameReader, GifReader
from convlstm_jax.data.npz_frames import open_npz
from convlstm_jax.data.pictures import PICTURE_ERRORS, PICTURE_SUFFIXES, reason
from convlstm_jax.data.xarray_frames import (
    XARRAY_SUFFIXES,
    XarrayReader,
    require_xarray,
)
from convlstm_jax.errors import UserError

_ARRAY_SUFFIXES = (".npy", ".npz", *XARRAY_SUFFIXES)


class UnreadableVideo(UserError):
    """A file that is there and of a known kind, but cannot be read."""


def open_reader(
    path: Path,
    channels: int,
    *,
    strict: bool,
    crop_box: tuple[int, ...] = (),
    value_range: tuple[float, ...] = (),
    variable: str = "",
) -> FrameReader:
    """Opens a video without decoding it.

    Args:
      path: see `video_frames.open_video`, as for the arguments below.
      channels: C wanted.
      strict: whether to refuse damage that the index and the end of the file show.
      crop_box: part of the frames that will be used.
      value_range: values of an array that become 0 and 1.
      variable: the array in the file, where it may hold several.

    Raises:
      UnreadableVideo: the file is damaged or does not hold what is asked for.
      UserError: it is missing, of an unknown kind, or cannot be read as this program is
        installed.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise UserError(
            f"There is no video at '{path}'; expected a file "
            f"({', '.join(OPENED_SUFFIXES)}) or a folder of pictures."
        )
    is_folder = path.is_dir() and suffix != ".zarr"
    if not is_folder and suffix not in OPENED_SUFFIXES:
        raise UserError(
            f"'{path}' is of the kind '{suffix}', but a video must be one of "
            f"{', '.join(OPENED_SUFFIXES)} or a folder of pictures "
            f"({', '.join(PICTURE_SUFFIXES)})."
        )
    if channels not in (1, 3) and (is_folder or suffix not in _ARRAY_SUFFIXES):
        raise UserError(
            f"channels is {channels}, but '{path}' can be read with 1 channel (grey) "
            "or 3 (RGB) only."
        )
    if suffix in XARRAY_SUFFIXES and not is_folder:
        require_xarray(path)
    try:
        reader: FrameReader
        if is_folder:
            reader = FolderReader.open(path, channels, strict)
        elif suffix in _ARRAY_SUFFIXES:
            values = ArrayValues(channels, value_range)
            if suffix == ".npy":
                reader = ArrayReader.open(path, values, strict)
            elif suffix == ".npz":
                reader = open_npz(path, values, strict, variable)
            else:
                reader = XarrayReader.open(path, values, variable)
        elif suffix == ".gif":
            reader = GifReader.open(path, channels, strict)
        else:
            reader = ContainerReader.open(path, channels, strict)
        check_crop_box(path, crop_box, reader.size)
    except UserError as error:
        raise UnreadableVideo(str(error)) from error
    return reader


def decode_frames(
    reader: FrameReader,
    wanted: Sequence[int],
    fit: Callable[[np.ndarray], np.ndarray],
    keep: Callable[[int, np.ndarray], None],
) -> str:
    """Decodes frames one after the other, passing over those that cannot be.

    Args:
      reader: the video.
      wanted: numbers of the frames, ascending.
      fit: makes a frame what is to be kept of it.
      keep: takes each frame's number and what `fit` gave; what it raises goes on.

    Returns:
      Why the first frame failed; "" if none did, or one is missing without a reason.
    """
    first_error = ""
    kept: set[int] = set()
    walk = reader.frames(wanted)
    while True:
        try:
            number, load = next(walk)
            if number not in wanted or number in kept:
                continue
            frame = fit(load())
        except StopIteration:
            return first_error
        except (UserError, *PICTURE_ERRORS) as error:
            # A walk that failed itself ends here: it has nothing more to give.
            first_error = first_error or reason(error)
            continue
        kept.add(number)
        keep(number, frame)


def told_problem(cut: str, total: int, readable: Sequence[int], why: str) -> str:
    """One clause on what cannot be read of a video, "" if everything can.

    Args:
      cut: why the file ends early, "" if it does not.
      total: frames it should have.
      readable: numbers of the frames that can be read, ascending.
      why: why the first of the others cannot, "" if unknown.
    """
    count = len(readable)
    if not cut and count == total:
        return ""
    if cut and (not count or (readable[0], readable[-1]) == (0, count - 1)):
        of_total = f" of {total}" if total > count else ""
        return f"the file ends early: {count}{of_total} frames can be read"
    return f"{count} of {total} frames can be read{f' ({why})' if why else ''}"
