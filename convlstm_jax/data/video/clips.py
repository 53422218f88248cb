"""Films opened together, and clips cut from them."""

import os
import threading
from collections.abc import Sequence
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
    name_bits,
    shares,
)
from convlstm_jax.data.video.film import (
    BadFiles,
    Film,
    cached_film,
    refuse_bad,
)
from convlstm_jax.data.video.fit import FrameSettings, SetupError
from convlstm_jax.errors import UserError

_MAX_THREADS = 4


def open_films(
    films: Sequence[Film],
    settings: FrameSettings,
    bad_files: BadFiles,
    cache: FrameCache | None = None,
) -> list[Film]:
    """Opens films, several at a time, and decodes those that are not in the cache.

    Films that have a `problem` are not opened. With `bad_files` "skip", a film that
    cannot be read completely gets one, and no frames if none of them can be read.
    """
    stopped = threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise UserError("stopped")

    def open_one(film: Film) -> Film:
        if film.problem:
            return film
        try:
            return cached_film(film, settings, cache or default_cache(), check)
        except (CacheError, SetupError):
            raise
        except UserError as error:
            if bad_files == "refuse":
                raise UserError(
                    f"{str(error).rstrip('.')}; config.data.bad_files=skip leaves it "
                    "out"
                ) from error
            return replace(film, problem=str(error))

    opened: list[Film] = []
    pool = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1))
    # The bar appears only if decoding takes longer than a second.
    bar = tqdm(total=len(films), desc="decoding", unit="film", disable=None, delay=1)
    try:
        for film in pool.map(open_one, films):
            if bad_files == "refuse" and film.frames is not None:
                refuse_bad(film.path, film.frames.extra)
            opened.append(film)
            bar.update()
    finally:
        bar.close()
        stopped.set()
        pool.shutdown(cancel_futures=True)
    return opened


class FilmClips:
    """A random-access source of clips that lie in films.

    Args:
        films: the films.
        clips: film, first frame, and label or condition of each clip, int64 `[N, 3]`.
        num_frames: frames per clip, T.
        frame_stride: distance of two frames of a clip, in frames of the film.
        key: "label" or "condition", the key of the third column; "": none.
        masked: whether clips have a "mask".
    """

    def __init__(
        self,
        films: Sequence[Film],
        clips: np.ndarray,
        num_frames: int,
        frame_stride: int,
        *,
        key: str = "",
        masked: bool = False,
    ) -> None:
        self._films = tuple(films)
        self._clips = clips
        self._num_frames = num_frames
        self._frame_stride = frame_stride
        self._key = key
        self._masked = masked

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

    def blank_clips(self) -> list[str]:
        """The films of clips whose frames each have one value in all pixels."""
        steps = np.arange(self._num_frames) * self._frame_stride
        return [
            self._films[film].name
            for film, start, _ in self._clips.tolist()
            if (blank := self._films[film].blank)
            and blank.issuperset((start + steps).tolist())
        ]


@dataclass(frozen=True, eq=False)
class Part:
    """The frames first .. end - 1 of a film, which belong to one split."""

    film: Film
    condition: str
    first: int
    end: int


def clip_starts(part: Part, span: int, clip_stride: int) -> np.ndarray:
    """First frames, int64, of the clips of a part; no clip contains a hole."""
    holes = [hole for hole in sorted(part.film.holes) if part.first <= hole < part.end]
    begins = [part.first, *(hole + 1 for hole in holes)]
    return np.concatenate(
        [
            np.arange(begin, end - span + 1, clip_stride, dtype=np.int64)
            for begin, end in zip(begins, [*holes, part.end], strict=True)
        ]
    )


def cut_clips(
    parts: Sequence[Part], span: int, clip_stride: int, max_clips: int
) -> np.ndarray:
    """Cuts parts into clips: index of the part and first frame, int64 `[N, 2]`.

    They are shuffled by a hash of the films' names and the first frames, so that the
    first few clips are a fair sample, and the same ones however many follow.
    """
    starts = [clip_starts(part, span, clip_stride) for part in parts]
    places = np.repeat(np.arange(len(parts)), [len(first) for first in starts])
    joined = np.concatenate([*starts, np.empty(0, np.int64)])
    names = np.array([name_bits(part.film.name) for part in parts], np.uint64)
    bits = _mix(names[places] + joined.astype(np.uint64))
    order = np.argsort(bits, kind="stable")[:max_clips]
    return np.stack([places[order], joined[order]], axis=-1)


def _mix(bits: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def split_films(
    whole: Sequence[Part],
    span: int,
    test_conditions: Sequence[str],
    fractions: tuple[float, float],
    split_by: str,
) -> tuple[dict[str, list[Part]], bool]:
    """Distributes films over the splits by their names; see `VideoConfig`.

    Args:
        whole: the films.
        span: frames from the first to the last of a clip.
        test_conditions: films of these conditions are in the test split only.
        fractions: shares for validation and, if nothing is held out, for test.
        split_by: "file", "condition" or "time".

    Returns:
        The parts of each split; and whether each film was cut in time, as asked for or
        because there are fewer films than splits.
    """
    parts: dict[str, list[Part]] = {split: [] for split in SPLITS}
    groups: dict[str, list[Part]] = {}
    for part in sorted(whole, key=lambda part: _name_order(part.film.name)):
        if part.condition in test_conditions:
            parts["test"].append(part)
        else:
            key = part.condition if split_by == "condition" else part.film.name
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
