"""Films: found below a folder, decoded once, read from the cache."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from convlstm_jax.data.cache import FrameCache, Frames, FrameWriter
from convlstm_jax.data.files import (
    MAX_FRAMES,
    content_hash,
    is_store,
    natural_order,
    plural,
    reason,
    walk,
)
from convlstm_jax.data.video import arrays, containers, pictures
from convlstm_jax.data.video.fit import Bad, FrameSettings, Opened, SetupError, fit
from convlstm_jax.errors import UserError
from convlstm_jax.paths import check_regular, local_path

BadFiles = Literal["refuse", "skip"]

FILM_SUFFIXES = (*containers.SUFFIXES, ".gif", *arrays.SUFFIXES)
"""Files that are always films; those of `STACK_SUFFIXES` may be."""

# If 16-bit values never use the highest bit, they most likely have fewer bits.
_DARK = 2**15 - 1


@dataclass(frozen=True, eq=False)
class Film:
    """A film; without frames before it is opened. Can be pickled.

    Attributes:
        name: its path below the folder searched, with "/" between the levels.
        num_frames: frames up to the last one that can be decoded.
        problem: a clause on what is left out, "" if nothing.
        holes: frames before `num_frames` that cannot be decoded.
        rate: frames per second; None if unknown.
        size: (height, width) of the frames in the file, pixels.
        condition: what it was taken under, "" if unknown.
        facts: what a manifest keeps of it, as JSON.
    """

    name: str
    path: Path
    num_frames: int = 0
    problem: str = ""
    holes: frozenset[int] = frozenset()
    rate: float | None = None
    size: tuple[int, ...] = ()
    frames: Frames | None = None
    condition: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def masked(self) -> bool:
        """Whether some pixels have no data."""
        return self.frames is not None and self.frames.masked

    def can_read(self, start: int, count: int, stride: int = 1) -> bool:
        """Whether all of the frames start, start + stride, ... can be read."""
        numbers = range(start, start + count * stride, stride)
        return numbers[-1] < self.num_frames and self.holes.isdisjoint(numbers)

    def read(self, start: int, count: int, stride: int = 1) -> np.ndarray:
        """Reads frames start, start + stride, ...: uint8 `[count, H, W, C]`."""
        assert self.frames is not None
        return self.frames.read(start, count, stride)


def find_films(folder: str | Path, *, beside_files: bool = True) -> list[Film]:
    """Searches a folder and its subfolders, following links; in natural order.

    Each video file, GIF and array is a film, and so are TIFF, APNG and WebP files with
    several frames, and each folder that directly holds single pictures (not beside film
    files unless `beside_files`). Hidden files and folders are ignored. A subfolder that
    cannot be read counts as a film that cannot be read.
    """
    root = local_path(folder)
    if root.is_file() or _is_zarr(root):
        return [Film(root.name, root)]
    if not root.is_dir():
        raise UserError(f"path is '{root}', but must be a folder of videos or a video")
    films = _search(root, beside_files)
    return sorted(films, key=lambda film: (natural_order(film.name), film.name))


def _search(root: Path, beside_files: bool) -> Iterator[Film]:
    for prefix, entries in walk(root):
        folder, name = Path(root, prefix), prefix[:-1] or root.name
        if isinstance(entries, OSError):
            if not prefix:
                why = f"The folder '{folder}' cannot be read ({reason(entries)})"
                raise UserError(why) from entries
            yield Film(name, folder)
            continue
        files: list[str] = []
        single: list[str] = []
        for entry in entries:
            lower = entry.name.lower()
            if entry.is_dir() and not is_store(lower):
                continue
            if lower.endswith(FILM_SUFFIXES):
                files.append(entry.name)
            elif lower.endswith(pictures.PICTURE_SUFFIXES):
                single.append(entry.name)
        # In a folder, the files of one suffix are all stacks or all single pictures.
        for suffix in pictures.STACK_SUFFIXES:
            alike = [one for one in single if one.lower().endswith(suffix)]
            if alike and pictures.num_pages(folder / alike[0]) > 1:
                files += alike
                single = [one for one in single if one not in alike]
        yield from (Film(prefix + one, folder / one) for one in files)
        if single and (beside_files or not files):
            yield Film(name, folder)


def _is_zarr(path: Path) -> bool:
    return is_store(path.name) and path.is_dir()


def open_film(path: Path, settings: FrameSettings) -> Opened:
    """Opens a film of any kind; its frames are decoded when they are taken."""
    _check_exists(path)
    suffix = path.suffix.lower()
    if suffix in arrays.SUFFIXES:
        return arrays.open_array(path, settings)
    if settings.channels not in (1, 3):
        raise SetupError(
            f"config.data.channels is {settings.channels}: it must be 1 (grey) or 3 "
            f"(RGB) for '{path}', as pictures and videos have no others"
        )
    if path.is_dir():
        return pictures.open_folder(path, settings.channels)
    if path.name.lower().endswith((".gif", *pictures.PICTURE_SUFFIXES)):
        return pictures.open_stack(path, settings.channels)
    if suffix in containers.SUFFIXES:
        return containers.open_container(path, settings.channels)
    kinds = ", ".join((*FILM_SUFFIXES, *pictures.PICTURE_SUFFIXES))
    raise UserError(f"'{path}' is of the kind '{suffix}': it must be one of {kinds}")


def _check_exists(path: Path) -> None:
    suffix = path.suffix.lower()
    if not path.exists():
        raise UserError(f"There is no film at '{path}': it must be a file or a folder")
    if not path.is_dir():
        check_regular(path)
    elif suffix in FILM_SUFFIXES and suffix != ".zarr":
        raise UserError(f"'{path}' is a folder: it must be a {suffix} file")


Keep = Callable[[np.ndarray, np.ndarray | None], None]


def decode(path: Path, settings: FrameSettings, keep: Keep) -> dict[str, Any]:
    """Decodes a film from the first to the last frame.

    `keep` takes each frame and its mask, see `fit`. A frame that cannot be decoded is
    zeros, unless none follows. Returns attributes of `Film` as JSON.
    """
    opened = open_film(path, settings)
    holes: list[int] = []
    first_bad, lost, number, brightest = "", 0, -1, 0
    mask = None
    size: tuple[int, ...] = ()
    for number, step in enumerate(opened.frames):
        if number >= MAX_FRAMES:
            raise UserError(f"'{path}' must have at most {MAX_FRAMES:,} frames")
        try:
            if isinstance(step, Bad):
                raise ValueError(step.why)
            if not size:
                size = step.values.shape[:2]
                _check_crop_box(path, settings.crop_box, *size)
            if step.values.shape[:2] != size:
                raise ValueError("the frame size changes within the film")
            frame, mask = fit(step, settings)
        except UserError:
            raise
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
        keep(frame, mask)
    if 0 < brightest <= _DARK and not settings.value_range:
        white = 2 ** brightest.bit_length() - 1
        raise UserError(
            f"'{path}' uses the values 0 .. {brightest} of 16 bits: config.data."
            f"value_range must say which become 0 and 1, such as 0,{white}"
        )
    last = number + 1 - lost
    readable = last - len(holes)
    if not readable:
        why = first_bad or opened.cut or "it holds none"
        raise UserError(f"'{path}' cannot be read: none of its frames can ({why})")
    total = max(opened.total or 0, last) if opened.cut else number + 1
    problem = opened.cut or first_bad
    if problem:
        problem = f"{readable} of {total} frames can be read ({problem})"
    return {
        "num_frames": last,
        "holes": holes,
        "rate": opened.rate,
        "size": list(size),
        "problem": problem,
    }


def _check_crop_box(
    path: Path, crop_box: tuple[int, ...], height: int, width: int
) -> None:
    top, left, box_height, box_width = crop_box or (0, 0, 0, 0)
    if top + box_height > height or left + box_width > width:
        raise UserError(
            f"'{path}' has frames of {height}x{width} pixels (height x width), but "
            f"crop_box {crop_box} (top, left, height, width) exceeds them"
        )


def cached_film(
    film: Film, settings: FrameSettings, cache: FrameCache, stopped: threading.Event
) -> Film:
    """Opens a film through the cache; gives up when `stopped`."""
    path = film.path
    _check_exists(path)
    files = [path]
    if _is_zarr(path):
        files = sorted(file for file in path.rglob("*") if file.is_file())
    elif path.is_dir():
        files = pictures.picture_paths(path)
    key = {
        "kind": "film",
        # The same bytes are read differently with another suffix.
        "suffix": "/" if path.is_dir() else path.suffix.lower(),
        "content": content_hash(files, cache.folder / ".hashes"),
        "settings": settings.as_json(),
    }

    def produce(writer: FrameWriter) -> dict[str, Any]:
        def keep(frame: np.ndarray, mask: np.ndarray | None) -> None:
            if stopped.is_set():
                raise UserError("stopped")
            writer.add(frame, mask)

        facts = decode(path, settings, keep)
        # The same content may lie at another path; "\0" stands for the path.
        return facts | {"problem": facts["problem"].replace(str(path), "\0")}

    return film_of(film, cache.cached(key, produce))


def film_of(film: Film, frames: Frames) -> Film:
    """The film with the frames of an entry of the cache."""
    facts = frames.extra
    return replace(
        film,
        num_frames=facts["num_frames"],
        problem=facts["problem"].replace("\0", str(film.path)),
        holes=frozenset(facts["holes"]),
        rate=facts["rate"],
        size=tuple(facts["size"]),
        frames=frames,
    )


def refuse_bad(path: Path, problem: str) -> None:
    """Refuses a film that is not read completely."""
    if problem:
        raise UserError(
            f"'{path}' cannot be read whole: {problem}; mend it, or set "
            "config.data.bad_files=skip to use what can be read"
        )


def read_last(
    path: Path,
    settings: FrameSettings,
    num_frames: int,
    frame_stride: int = 1,
    bad_files: BadFiles = "refuse",
    *,
    resize: bool = True,
) -> tuple[np.ndarray, np.ndarray | None, float | None]:
    """The last frames of a film, their masks (see `fit`) and rate, without the cache.

    The rate is in frames per second after `frame_stride`; `None` if unknown. With
    `bad_files` "skip", the frames follow the last one that cannot be read. `resize` is
    whether frames of another size are resized or refused.
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
        refuse_bad(path, facts["problem"])
    run = facts["num_frames"] - max(facts["holes"], default=-1) - 1
    if run < span:
        every = f" with frame_stride {frame_stride}" if frame_stride > 1 else ""
        raise UserError(
            f"'{path}' ends with {plural(run, 'frame')} that can be read: at least "
            f"{span} are needed{every}"
        )
    frames, masks = zip(*list(last)[::frame_stride], strict=True)
    rate = facts["rate"] and facts["rate"] / frame_stride
    return np.stack(frames), None if masks[0] is None else np.stack(masks), rate
