"""A film whose frames lie in the cache, decoded the first time it is asked for."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from convlstm_jax.data.cache import FrameCache, Frames, FrameWriter
from convlstm_jax.data.files import (
    MAX_FRAMES,
    check_regular,
    content_hash,
    plural,
    reason,
)
from convlstm_jax.data.video.arrays import ARRAY_SUFFIXES, open_array
from convlstm_jax.data.video.containers import VIDEO_SUFFIXES, open_container
from convlstm_jax.data.video.fit import (
    Bad,
    FrameSettings,
    Opened,
    SetupError,
    check_crop_box,
    fit,
)
from convlstm_jax.data.video.pictures import (
    PICTURE_SUFFIXES,
    STACK_SUFFIXES,
    has_suffix,
    open_folder,
    open_stack,
    picture_paths,
)
from convlstm_jax.errors import UserError

BadFiles = Literal["refuse", "skip"]

FILM_SUFFIXES = (*VIDEO_SUFFIXES, ".gif", *ARRAY_SUFFIXES)
"""Files that are films whatever is in them; `STACK_SUFFIXES` may be films too."""

# 16 bits of which the upper half is never used are most likely fewer bits.
_DARK = 2**15 - 1


@dataclass(frozen=True)
class Found:
    """A film before it is opened, named by its path below the folder searched."""

    path: Path
    name: str


@dataclass(frozen=True, eq=False)
class Film:
    """The frames of a film in one size. Can be pickled.

    Attributes:
        name: its path below the folder searched, with "/" between the levels.
        path: where it is.
        num_frames: frames up to the last one that can be decoded; 0 if none can.
        problem: a clause on what is left out, "" if nothing.
        holes: frames before `num_frames` that cannot be decoded.
        blank: frames that have one value in all pixels.
        rate: frames per second; None: it does not tell.
        size: (height, width) of the frames in the file, pixels.
        frames: the decoded frames; None if there are none.
    """

    name: str
    path: Path
    num_frames: int = 0
    problem: str = ""
    holes: frozenset[int] = frozenset()
    blank: frozenset[int] = frozenset()
    rate: float | None = None
    size: tuple[int, ...] = ()
    frames: Frames | None = None

    @property
    def masked(self) -> bool:
        """Whether some pixels have no data."""
        return self.frames is not None and self.frames.masked

    def can_read(self, start: int, count: int, stride: int = 1) -> bool:
        """Whether all of the frames start, start + stride, ... are there."""
        numbers = range(start, start + count * stride, stride)
        return (
            start >= 0
            and numbers[-1] < self.num_frames
            and self.holes.isdisjoint(numbers)
        )

    def read(self, start: int, count: int, stride: int = 1) -> np.ndarray:
        """Reads frames start, start + stride, ... as uint8 `[count, H, W, C]`.

        Raises:
            UserError: the range reaches out of the film, or a frame is not there.
        """
        if (
            count < 1
            or stride < 1
            or self.frames is None
            or not self.can_read(start, count, stride)
        ):
            raise UserError(
                f"{count} frames from frame {start} on with a stride of {stride} are "
                f"asked of '{self.path}', of which {self.num_frames} frames can be read"
                + (f" but for {len(self.holes)} in between" if self.holes else "")
            )
        return self.frames.read(start, count, stride)


def open_film(path: Path, settings: FrameSettings) -> Opened:
    """Opens a film of any kind; its frames are decoded as they are taken.

    Raises:
        UserError: it is missing, of an unknown kind, damaged, or no such film.
    """
    _check_there(path)
    suffix = path.suffix.lower()
    if suffix in ARRAY_SUFFIXES:
        opened = open_array(path, settings)
    elif settings.channels not in (1, 3):
        raise SetupError(
            f"config.data.channels is {settings.channels}: it must be 1 (grey) or 3 "
            f"(RGB) for '{path}', as pictures and videos have no others"
        )
    elif path.is_dir():
        opened = open_folder(path, settings.channels)
    elif suffix in (".gif", *STACK_SUFFIXES) or has_suffix(path.name, PICTURE_SUFFIXES):
        opened = open_stack(path, settings.channels)
    elif suffix in VIDEO_SUFFIXES:
        opened = open_container(path, settings.channels)
    else:
        raise UserError(
            f"'{path}' is of the kind '{suffix}': a film must be one of "
            f"{', '.join((*FILM_SUFFIXES, *STACK_SUFFIXES))} or a folder of pictures "
            f"({', '.join(PICTURE_SUFFIXES)})"
        )
    check_crop_box(path, settings.crop_box, *opened.size)
    return opened


def _check_there(path: Path) -> None:
    suffix = path.suffix.lower()
    if not path.exists():
        raise UserError(
            f"There is no film at '{path}': it must be a file "
            f"({', '.join(FILM_SUFFIXES)}) or a folder of pictures"
        )
    if suffix != ".zarr" and not path.is_dir():
        check_regular(path)
    elif suffix in FILM_SUFFIXES and suffix != ".zarr":
        raise UserError(f"'{path}' is a folder: it must be a {suffix} file")


Keep = Callable[[np.ndarray, np.ndarray | None], None]


def decode(path: Path, settings: FrameSettings, keep: Keep) -> dict[str, Any]:
    """Decodes a film from its beginning to its end.

    Args:
        path: the film.
        settings: what is asked for.
        keep: takes each frame and mask, see `fit`; of a frame that cannot be decoded,
            one of zeros, unless no other follows.

    Returns:
        Other attributes of `Film`, as JSON has them, with "first_bad", a clause.

    Raises:
        UserError: nothing of it can be read, or its values ask for a `value_range`.
    """
    opened = open_film(path, settings)
    holes: list[int] = []
    blank: list[int] = []
    first_bad, lost, number, brightest = "", 0, 0, 0
    mask = None
    for number, step in enumerate(opened.frames):
        if number >= MAX_FRAMES:
            raise UserError(f"'{path}' must have at most {MAX_FRAMES:,} frames")
        try:
            if isinstance(step, Bad):
                raise ValueError(step.why)
            frame, mask = fit(step, settings)
        except ValueError as error:
            first_bad = first_bad or f"frame {number}: {reason(error)}"
            lost += 1
            continue
        for missing in range(number - lost, number):
            holes.append(missing)
            keep(np.zeros_like(frame), mask)
        lost = 0
        if step.white == 65535 and step.values.dtype.kind in "iu":
            brightest = max(brightest, int(step.values.max()))
        if frame.min() == frame.max():
            blank.append(number)
        keep(frame, mask)
    if 0 < brightest <= _DARK and not settings.value_range:
        raise UserError(
            f"'{path}' uses the values 0 .. {brightest} of 16 bits: config.data."
            f"value_range must say which become 0 and 1, such as 0,"
            f"{2 ** brightest.bit_length() - 1}"
        )
    last = number + 1 - lost
    readable = last - len(holes)
    if not readable:
        raise UserError(
            f"'{path}' cannot be read: none of its frames can ("
            f"{first_bad or opened.cut or 'it holds none'})"
        )
    total = max(opened.total or 0, last) if opened.cut else number + 1
    return {
        "num_frames": last,
        "holes": holes,
        "blank": blank,
        "rate": opened.rate,
        "size": list(opened.size),
        "first_bad": opened.cut or first_bad,
        "problem": _format_problem(opened.cut, total, last, readable, first_bad),
    }


def _format_problem(cut: str, total: int, last: int, readable: int, why: str) -> str:
    """A clause on what is left out of a film, "" if nothing is."""
    if not cut and readable == total:
        return ""
    if cut and readable == last:
        of_total = f" of {total}" if total > readable else ""
        return f"the file ends early: {readable}{of_total} frames can be read"
    return f"{readable} of {total} frames can be read{f' ({why})' if why else ''}"


def cached_film(
    one: Found, settings: FrameSettings, cache: FrameCache, check: Callable[[], None]
) -> Film:
    """Opens a film whose frames are in the cache, or puts them there.

    `check` is called for every frame that is decoded; what it raises ends the work.
    """
    path = one.path
    _check_there(path)
    key = {
        "kind": "film",
        # The same bytes are read otherwise under another suffix.
        "suffix": path.suffix.lower() if not path.is_dir() else "/",
        "content": content_hash(_files(path), cache.folder / ".hashes"),
        "settings": settings.as_json(),
    }

    def produce(writer: FrameWriter) -> dict[str, Any]:
        def keep(frame: np.ndarray, mask: np.ndarray | None) -> None:
            check()
            writer.add(frame, mask)

        facts = decode(path, settings, keep)
        # The same film may lie elsewhere, and is then told of by its place there.
        for fact in ("problem", "first_bad"):
            facts[fact] = facts[fact].replace(str(path), "\0")
        return facts

    return film_of(one, cache.cached(key, produce))


def film_of(one: Found, frames: Frames) -> Film:
    """The film whose frames an entry holds."""
    facts = frames.extra
    return Film(
        one.name,
        one.path,
        facts["num_frames"],
        facts["problem"].replace("\0", str(one.path)),
        frozenset(facts["holes"]),
        frozenset(facts["blank"]),
        facts["rate"],
        tuple(facts["size"]),
        frames,
    )


def refuse_bad(path: Path, facts: Mapping[str, Any]) -> None:
    """Refuses a film of which something cannot be read, by what `decode` returns."""
    if facts["problem"]:
        why = facts["first_bad"].replace("\0", str(path))
        raise UserError(
            f"'{path}' cannot be read whole ({why}): mend it, or set "
            "config.data.bad_files=skip to use what can be read"
        )


def _files(path: Path) -> list[Path]:
    """The files that decide what a film shows, in order."""
    if path.suffix.lower() == ".zarr" and path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return picture_paths(path) if path.is_dir() else [path]


def read_last(
    path: Path,
    settings: FrameSettings,
    num_frames: int,
    frame_stride: int = 1,
    bad_files: BadFiles = "refuse",
    *,
    resize: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The last frames of a film, decoded in sequence without the cache.

    Args:
        path: the film.
        settings: what is asked for.
        num_frames: frames wanted.
        frame_stride: every n-th frame is taken, the last one among them.
        bad_files: "refuse" a film that cannot be read whole, or "skip": take the last
            run of frames that can.
        resize: whether frames of another size are resized, or refused.

    Returns:
        uint8 `[num_frames, H, W, C]`; and the masks, see `fit`.

    Raises:
        UserError: it cannot be read, or is too short.
    """
    span = (num_frames - 1) * frame_stride + 1
    last: deque[tuple[np.ndarray, np.ndarray | None]] = deque(maxlen=span)
    facts = decode(path, settings, lambda *frame: last.append(frame))
    height, width = facts["size"]
    if not resize and (height, width) != (settings.height, settings.width):
        raise UserError(
            f"'{path}' has frames of {height}×{width} pixels (height × width): they "
            f"must be {settings.height}×{settings.width}"
        )
    if bad_files == "refuse":
        refuse_bad(path, facts)
    run = facts["num_frames"] - max(facts["holes"], default=-1) - 1
    if run < span:
        every = f" with frame_stride {frame_stride}" if frame_stride > 1 else ""
        raise UserError(
            f"'{path}' ends with {plural(run, 'frame')} that can be read: at least "
            f"{span} are needed{every}"
        )
    frames, masks = zip(*list(last)[::frame_stride], strict=True)
    return np.stack(frames), None if masks[0] is None else np.stack(masks)
