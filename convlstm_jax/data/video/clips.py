"""Films opened together, and clips cut from them."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from convlstm_jax.data.cache import CacheError, FrameCache, default_cache
from convlstm_jax.data.split import SPLITS, cut_in_time, deal, name_bits, shares
from convlstm_jax.data.video.film import (
    BadFiles,
    Film,
    Found,
    cached_film,
    refuse_bad,
)
from convlstm_jax.data.video.fit import FrameSettings, SetupError
from convlstm_jax.errors import UserError

_MAX_THREADS = 4


def open_films(
    found: Sequence[Found],
    settings: FrameSettings,
    bad_files: BadFiles,
    cache: FrameCache | None = None,
) -> list[Film]:
    """Opens films, decoding those that are not in the cache, several at a time.

    With `bad_files` "skip", a film that cannot be read whole has a `problem`, and no
    frames if none of them can be read.

    Raises:
        UserError: a film is to be refused, or the cache cannot be written to.
    """
    stopped = threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise UserError("stopped")

    def open_one(one: Found) -> Film:
        try:
            return cached_film(one, settings, cache or default_cache(), check)
        except (CacheError, SetupError):
            raise
        except UserError as error:
            if bad_files == "refuse":
                raise UserError(
                    f"{str(error).rstrip('.')}; config.data.bad_files=skip leaves it "
                    "out"
                ) from error
            return Film(one.name, one.path, problem=str(error))

    films: list[Film] = []
    pool = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1))
    # A bar that would be gone within a second is not shown.
    bar = tqdm(total=len(found), desc="decoding", unit="film", disable=None, delay=1)
    try:
        for film in pool.map(open_one, found):
            if bad_files == "refuse" and film.frames is not None:
                refuse_bad(film.path, film.frames.extra)
            films.append(film)
            bar.update()
    finally:
        bar.close()
        stopped.set()  # Nobody waits for films that are half decoded.
        pool.shutdown(cancel_futures=True)
    return films


@dataclass(frozen=True, eq=False)
class Part:
    """The frames first .. end - 1 of a film, which belong to one split."""

    film: Film
    condition: str
    first: int
    end: int


class FilmClips:
    """A random-access source of clips that lie in films.

    Args:
        films: the films.
        clips: film, first frame and label of each clip, `[N, 3]`.
        num_frames: frames per clip, T.
        frame_stride: distance of two frames of a clip, in frames of the film.
        conditions: the condition of each film as a number; None adds no "condition".
        labelled: whether clips have a "label".
        masked: whether clips have a "mask".
    """

    def __init__(
        self,
        films: Sequence[Film],
        clips: np.ndarray,
        num_frames: int,
        frame_stride: int,
        *,
        conditions: Sequence[int] | None = None,
        labelled: bool = False,
        masked: bool = False,
    ) -> None:
        self._films = tuple(films)
        self._clips = clips
        self._num_frames = num_frames
        self._frame_stride = frame_stride
        self._conditions = conditions
        self._labelled = labelled
        self._masked = masked

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._clips)

    @property
    def film_names(self) -> list[str]:
        """The name of the film that each clip is cut from."""
        return [self._films[film].name for film in self._clips[:, 0]]

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Reads one clip; see `ClipSource`."""
        if not 0 <= index < len(self):
            raise IndexError(
                f"Clip {index} is out of range: the source holds {len(self)} clips"
            )
        number, start, label = (int(value) for value in self._clips[index])
        film = self._films[number]
        clip = {"frames": film.read(start, self._num_frames, self._frame_stride)}
        if self._masked:
            assert film.frames is not None
            clip["mask"] = film.frames.read_mask(
                start, self._num_frames, self._frame_stride
            )
        if self._conditions is not None:
            clip["condition"] = np.asarray(self._conditions[number], np.int32)
        if self._labelled:
            clip["label"] = np.asarray(label, np.int32)
        return clip

    def blank_clips(self) -> list[str]:
        """The films of clips all of whose frames have one value in all pixels."""
        steps = np.arange(self._num_frames) * self._frame_stride
        return [
            self._films[film].name
            for film, start, _ in self._clips.tolist()
            if (blank := self._films[film].blank)
            and blank.issuperset((start + steps).tolist())
        ]


def clip_span(num_frames: int, frame_stride: int) -> int:
    """Frames of a film from the first to the last frame of a clip."""
    return (num_frames - 1) * frame_stride + 1


def clip_starts(part: Part, span: int, clip_stride: int) -> np.ndarray:
    """First frames of the clips of a stretch, which reach over no hole; int64."""
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
    """Cuts stretches into clips: index of the stretch, first frame, label -1; `[N, 3]`.

    The clips come in an order of their own, drawn from the films' names alone, so that
    the first few of them are a fair sample, and the same ones however many follow.
    """
    starts = [clip_starts(part, span, clip_stride) for part in parts]
    places = np.repeat(np.arange(len(parts)), [len(first) for first in starts])
    joined = np.concatenate([*starts, np.empty(0, np.int64)])
    names = np.array([name_bits(part.film.name) for part in parts], np.uint64)
    bits = _mix(names[places] + joined.astype(np.uint64))
    order = np.argsort(bits, kind="stable")[:max_clips]
    return np.stack([places[order], joined[order], np.full(len(order), -1)], axis=-1)


def _mix(bits: np.ndarray) -> np.ndarray:
    """Scrambles 64-bit integers, one to one (the output function of SplitMix64)."""
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
    """Deals films out to the splits, by their names alone; see `VideoConfig`.

    Args:
        whole: the films.
        span: frames from the first to the last of a clip.
        test_conditions: the films of these are the test split and in no other.
        fractions: shares for validation and, where nothing is held out, for test.
        split_by: "file", "condition" or "time".

    Returns:
        The parts of each split, and whether each film was cut in time: as asked for, or
        because there were so few.

    Raises:
        UserError: there are fewer conditions to deal out than splits.
    """
    held_out = [part for part in whole if part.condition in test_conditions]
    others = [part for part in whole if part.condition not in test_conditions]
    wanted = shares(*fractions, held_out=bool(test_conditions))
    groups = _groups(others, by_condition=split_by == "condition")
    dealt = deal(groups, wanted) if split_by != "time" else None
    parts: dict[str, list[Part]] = {split: [] for split in SPLITS}
    parts["test"] += held_out
    if dealt is not None:
        for split, members in dealt.items():
            parts[split] += [part for group in members for part in group]
        return parts, False
    if split_by == "condition":
        raise UserError(
            f"split_by is 'condition', but of the {len(groups)} conditions that are "
            f"not held out each of {len(wanted) + 1} splits needs one: it must be "
            "'file' or 'time', or data.condition another"
        )
    for (part,) in groups:
        for split, (first, end) in cut_in_time(part.end, span, wanted).items():
            parts[split].append(replace(part, first=first, end=end))
    return parts, bool(others)


def _groups(parts: Sequence[Part], *, by_condition: bool) -> list[list[Part]]:
    """Films that stay together, in an order of their own drawn from their names."""
    groups: dict[str, list[Part]] = {}
    named = {part.film.name: part for part in parts}
    for name in sorted(named, key=_name_order):
        key = named[name].condition if by_condition else name
        groups.setdefault(key, []).append(named[name])
    return [groups[key] for key in sorted(groups, key=_name_order)]


def _name_order(name: str) -> tuple[int, str]:
    return name_bits(name), name
