"""Frames by number from a folder of pictures or a GIF.

A reader is what `video_frames.Video` reads through: plain data about one file, which
can be pickled, and a method that decodes. Video files have theirs in
`container_frames`, array files in `array_frames`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from convlstm_jax.data.container_size import is_whole_gif
from convlstm_jax.data.pictures import (
    PICTURE_ERRORS,
    picture_array,
    picture_paths,
    picture_size,
    read_picture,
    reason,
)
from convlstm_jax.errors import UserError

LoadFrame = Callable[[], np.ndarray]
"""Gives the frame just reached: uint8, or floats in [0, 1], [H, W, C]."""


class FrameReader(Protocol):
    """Reads the frames of one file.

    Attributes:
      num_frames: frames that the file should have, by its own account.
      size: (width, height), pixels.
      cut: why the file ends before all of them; "" for a whole file.
    """

    @property
    def num_frames(self) -> int:
        """Frames that the file should have."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), pixels."""
        ...

    @property
    def cut(self) -> str:
        """Why the file ends early, or ""."""
        ...

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, LoadFrame]]:
        """Walks through the file.

        Args:
          wanted: numbers of frames, ascending.

        Yields:
          A number and a function that gives that frame, to be called before the next
          is asked for. Frames passed on the way may come as well; frames that cannot
          be decoded do not come, or fail with a `UserError` once they are loaded.
        """
        ...


@dataclass(frozen=True)
class FolderReader:
    """The pictures of a folder, in natural order.

    Attributes:
      paths: the pictures.
      size: (width, height) of most of them, which is that of the video.
      channels: 1 or 3.
      cut: always "".
    """

    paths: tuple[Path, ...]
    size: tuple[int, int]
    channels: int
    cut: str = ""

    @classmethod
    def open(cls, folder: Path, channels: int, strict: bool) -> "FolderReader":
        """Reads the heads of all pictures.

        Args:
          folder: the folder.
          channels: 1 or 3.
          strict: whether to refuse damaged pictures and other sizes here.

        Raises:
          UserError: there is no picture that can be read, or (strict) one that cannot.
        """
        paths = picture_paths(folder)
        sizes: list[tuple[int, int]] = []
        first_error: UserError | None = None
        for path in paths:
            try:
                sizes.append(picture_size(path))
            except UserError as error:
                if strict:
                    raise
                first_error = first_error or error
        if first_error is not None and not sizes:
            raise first_error
        size = Counter(sizes).most_common(1)[0][0]
        if strict:
            for path, found in zip(paths, sizes, strict=True):
                _check_size(path, found, size)
        return cls(tuple(paths), size, channels)

    @property
    def num_frames(self) -> int:
        """Number of pictures."""
        return len(self.paths)

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, LoadFrame]]:
        """See `FrameReader`."""
        for number in wanted:
            yield number, lambda path=self.paths[number]: self._load(path)  # type: ignore[misc]

    def _load(self, path: Path) -> np.ndarray:
        frame = read_picture(path, self.channels)
        _check_size(path, (frame.shape[1], frame.shape[0]), self.size)
        return frame


def _check_size(path: Path, found: tuple[int, int], size: tuple[int, int]) -> None:
    if found != size:
        raise UserError(
            f"'{path}' is {found[0]}x{found[1]} pixels, but all frames of a clip must "
            f"have one size and most of this folder's are {size[0]}x{size[1]}."
        )


@dataclass(frozen=True)
class GifReader:
    """The frames of a GIF; each builds on those before it.

    Attributes:
      path: the file.
      num_frames: frames it has.
      size: (width, height), pixels.
      channels: 1 or 3.
      cut: why the file ends early, or "".
    """

    path: Path
    num_frames: int
    size: tuple[int, int]
    channels: int
    cut: str = ""

    @classmethod
    def open(cls, path: Path, channels: int, strict: bool) -> "GifReader":
        """Counts the frames.

        Args:
          path: the file.
          channels: 1 or 3.
          strict: whether to refuse a file that is cut short.

        Raises:
          UserError: the file cannot be read, or (strict) is cut short.
        """
        try:
            cut = "" if is_whole_gif(path.read_bytes()) else "the file is cut short"
            if cut and strict:
                raise EOFError(cut)
            with Image.open(path, formats=("GIF",)) as picture:
                size = picture.size
                if cut:
                    num_frames = _reachable_frames(picture)
                else:
                    num_frames = getattr(picture, "n_frames", 1)
        except PICTURE_ERRORS as error:
            raise UserError(
                f"'{path}' cannot be read as a GIF ({reason(error)})."
            ) from error
        return cls(path, num_frames, size, channels, cut)

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, LoadFrame]]:
        """See `FrameReader`."""
        try:
            with Image.open(self.path, formats=("GIF",)) as picture:
                for number in range(wanted[-1] + 1):
                    picture.seek(number)
                    picture.load()
                    yield number, lambda: picture_array(picture, self.channels)
        except PICTURE_ERRORS:
            return  # The frames from here on do not come.


def _reachable_frames(picture: Image.Image) -> int:
    """Counts the frames that begin before a cut GIF ends."""
    number = 0
    try:
        while True:
            picture.seek(number + 1)
            number += 1
    except PICTURE_ERRORS:
        return number + 1
