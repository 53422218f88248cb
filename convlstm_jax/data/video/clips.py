"""Films opened together, and clips cut from them."""

import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from convlstm_jax.data.cache import CacheError, FrameCache, default_cache
from convlstm_jax.data.sources import (
    SPLITS,
    checked_index,
    cut_in_time,
    deal,
    mixed,
    name_bits,
    shares,
)
from convlstm_jax.data.video.film import BadFiles, Film, cached_film, refuse_bad
from convlstm_jax.data.video.fit import FrameSettings, SetupError
from convlstm_jax.errors import UserError

_MAX_THREADS = 4


def open_films(
    films: Sequence[Film],
    settings: FrameSettings,
    bad_files: BadFiles,
    cache: FrameCache | None = None,
) -> list[Film]:
    """Opens films through the cache, several at a time, but those with a `problem`.

    With `bad_files` "skip", a film that cannot be read completely gets a `problem`.
    """
    stopped = threading.Event()

    def open_one(film: Film) -> Film:
        if film.problem:
            return film
        try:
            return cached_film(film, settings, cache or default_cache(), stopped)
        except (CacheError, SetupError):
            raise
        except UserError as error:
            if bad_files == "refuse":
                skip = "config.data.bad_files=skip leaves it out"
                raise UserError(f"{str(error).rstrip('.')}; {skip}") from error
            return replace(film, problem=str(error))

    opened: list[Film] = []
    pool = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1))
    # The bar appears only if decoding takes longer than a second.
    bar = tqdm(total=len(films), desc="decoding", unit="film", disable=None, delay=1)
    try:
        for film in pool.map(open_one, films):
            if bad_files == "refuse" and film.frames is not None:
                refuse_bad(film.path, film.problem)
            opened.append(film)
            bar.update()
    finally:
        bar.close()
        stopped.set()
        pool.shutdown(cancel_futures=True)
    return opened


class FilmClips:
    """A random-access source of clips of `num_frames` frames that lie in films.

    `clips` holds (index of the film, first frame, label or condition) of each clip.
    They are shuffled, always in the same way, and the first `max_clips` kept. `key` is
    that of the third number, "" for none; `masked` is whether clips have a "mask".
    """

    def __init__(
        self,
        films: Sequence[Film],
        clips: Iterable[tuple[int, int, int]],
        num_frames: int,
        frame_stride: int,
        *,
        max_clips: int,
        key: str = "",
        masked: bool = False,
    ) -> None:
        self._films = tuple(films)
        order = mixed(clips, lambda clip: f"{films[clip[0]].name}\0{clip[1]}")
        self._clips = np.array(order[:max_clips], np.int64).reshape(-1, 3)
        self._num_frames = num_frames
        self._frame_stride = frame_stride
        self._key = key
        self._masked = masked

    @property
    def values(self) -> np.ndarray:
        """The label or condition of each clip, int64 `[N]`."""
        return self._clips[:, 2]

    def __len__(self) -> int:
        """The number of clips."""
        return len(self._clips)

    @property
    def film_names(self) -> list[str]:
        """The name of the film of each clip."""
        return [self._films[film].name for film in self._clips[:, 0]]

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Reads one clip; see `ClipSource`."""
        index = checked_index(index, len(self))
        number, start, value = self._clips[index].tolist()
        film, frames = self._films[number], (self._num_frames, self._frame_stride)
        clip = {"frames": film.read(start, *frames)}
        if self._masked:
            assert film.frames is not None
            clip["mask"] = film.frames.read_mask(start, *frames)
        if self._key:
            clip[self._key] = np.asarray(value, np.int32)
        return clip


@dataclass(frozen=True, eq=False)
class Part:
    """The frames first .. end - 1 of a film, which belong to one split."""

    film: Film
    first: int
    end: int


def clip_starts(part: Part, span: int, clip_stride: int) -> list[int]:
    """First frames of the clips of a part; no clip contains a hole."""
    holes = [hole for hole in sorted(part.film.holes) if part.first <= hole < part.end]
    begins = [part.first, *(hole + 1 for hole in holes)]
    return [
        start
        for begin, end in zip(begins, [*holes, part.end], strict=True)
        for start in range(begin, end - span + 1, clip_stride)
    ]


def split_films(
    whole: Sequence[Part],
    span: int,
    test_conditions: Sequence[str],
    fractions: tuple[float, float],
    split_by: str,
) -> tuple[dict[str, list[Part]], bool]:
    """Distributes films over the splits by their names; see `VideoConfig`.

    `fractions` are for validation and, if no conditions are held out, for test. Returns
    the parts of each split, and whether each film was cut in time, as asked for or
    because there are fewer films than splits.
    """
    parts: dict[str, list[Part]] = {split: [] for split in SPLITS}
    groups: dict[str, list[Part]] = {}
    for part in sorted(whole, key=lambda part: _name_order(part.film.name)):
        if part.film.condition in test_conditions:
            parts["test"].append(part)
        else:
            film = part.film
            key = film.condition if split_by == "condition" else film.name
            groups.setdefault(key, []).append(part)
    wanted = shares(*fractions, held_out=bool(test_conditions))
    order = sorted(groups, key=_name_order)
    dealt = deal(order, wanted) if split_by != "time" else None
    if dealt is not None:
        for split, keys in dealt.items():
            parts[split] += [part for key in keys for part in groups[key]]
        return parts, False
    if split_by == "condition":
        raise UserError(
            f"split_by is 'condition', but of the {len(groups)} conditions that are "
            f"not held out each of {len(wanted) + 1} splits needs one: it must be "
            "'file' or 'time', or data.condition another"
        )
    for key in order:
        (part,) = groups[key]
        for split, (first, end) in cut_in_time(part.end, span, wanted).items():
            parts[split].append(replace(part, first=first, end=end))
    return parts, bool(groups)


def _name_order(name: str) -> tuple[int, str]:
    return name_bits(name), name
