"""The data set "video": clips from a folder of your own films."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from convlstm_jax.config import field
from convlstm_jax.data.base import DataConfig, InputClip
from convlstm_jax.data.files import natural_order, plural
from convlstm_jax.data.prepared import (
    KINDS,
    Manifest,
    Prepared,
    is_prepared,
    kind_of,
    preparing,
)
from convlstm_jax.data.sources import Sources
from convlstm_jax.data.split import SPLITS
from convlstm_jax.data.video.clips import (
    FilmClips,
    Part,
    clip_span,
    clip_starts,
    cut_clips,
    open_films,
    split_films,
)
from convlstm_jax.data.video.film import Film, Found, film_of, read_last, refuse_bad
from convlstm_jax.data.video.find import (
    LeftOut,
    condition_of,
    condition_pattern,
    find_films,
)
from convlstm_jax.data.video.fit import FrameSettings
from convlstm_jax.errors import UserError


def _is_box(value: tuple[int, ...]) -> bool:
    return not value or (len(value) == 4 and min(value[:2]) >= 0 < min(value[2:]))


def _is_range(value: tuple[float, ...]) -> bool:
    return not value or (len(value) == 2 and value[0] < value[1])


class FilmFields(DataConfig):
    """Fields of data sets that are read from a folder of films."""

    path: str = field("", "Folder of your films, or one film.", min_length=1)
    channels: int = field(
        1,
        "Channels of a frame: 1 (grey) or 3 (RGB) for videos and pictures, any number "
        "for arrays.",
        ge=1,
    )
    crop_box: tuple[int, ...] = field(
        (),
        "Part of each frame that is used and resized to height and width: top, left, "
        "height, width in pixels of the file; (): the whole frame.",
        unit="pixels",
        must=("be (top, left, height, width), the last two at least 1, or ()", _is_box),
    )
    frame_stride: int = field(1, "Use every n-th frame of a film.", ge=1)
    clip_stride: int = field(
        0,
        "Frames from the start of one clip to the start of the next; 0: one starts "
        "where the other ends.",
        ge=0,
    )
    validation_fraction: float = field(
        0.1, "Share of the films for validation.", gt=0, lt=1
    )
    test_fraction: float = field(0.1, "Share of the films for test.", gt=0, lt=1)
    bad_files: Literal["refuse", "skip"] = field(
        "refuse",
        "What to do about a film that cannot be read whole: refuse it, or skip what "
        "cannot be read and count it.",
    )

    def check(self) -> Iterator[str]:
        """Yields what is wrong between the fields."""
        if self.validation_fraction + self.test_fraction >= 1:
            yield (
                f"validation_fraction is {self.validation_fraction:g} and "
                f"test_fraction {self.test_fraction:g}: their sum must be below 1"
            )

    def check_disk(self) -> Iterator[str]:
        """Yields problems with the folder of films."""
        path = Path(self.path).expanduser()
        if not path.exists():
            yield (
                f"path is {self.path!r}: it must be an existing folder of "
                f"{KINDS[self.name]}, or one film"
            )
        elif kind_of(path) not in ("", self.name):
            yield (
                f"path is {self.path!r}, which --mode=prepare wrote from "
                f"{KINDS[kind_of(path)]}: it must be from {KINDS[self.name]}"
            )

    @property
    def frame_settings(self) -> FrameSettings:
        """What shapes the frames."""
        names = ("height", "width", "channels", "crop_box", "value_range", "variable")
        fields = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return FrameSettings(**fields)

    @property
    def max_clips(self) -> tuple[int, int, int]:
        """Most clips of training, validation and test."""
        return (
            self.num_train_sequences,
            self.num_validation_sequences,
            self.num_test_sequences,
        )

    def read_input(self, path: str, num_frames: int) -> InputClip:
        """Reads the last frames of a film; see `DataConfig.read_input`."""
        film, settings = Path(path).expanduser(), self.frame_settings
        frames, masks = read_last(
            film, settings, num_frames, self.frame_stride, self.bad_files
        )
        mask = None if masks is None else masks.astype(np.uint8)
        return InputClip(frames, mask, label=path)

    def open_film(self, path: str) -> Film:
        """Opens one film as training does, through the cache.

        Raises:
            UserError: it cannot be read.
        """
        one = Found(Path(path).expanduser(), Path(path).name)
        (film,) = open_films([one], self.frame_settings, self.bad_files)
        if not film.num_frames:
            raise UserError(film.problem)
        return film

    def films(self) -> list[tuple[Film, str]]:
        """The films, each with its condition, "" for one without.

        Raises:
            UserError: there are none, or one is to be refused.
        """
        raise NotImplementedError

    def prepare(self, output: Path) -> Manifest:
        """Decodes all films once into a folder; see `prepared`.

        Raises:
            UserError: a film is to be refused, or the folder cannot be written.
        """
        raise NotImplementedError

    def sources_of(
        self, clips: Mapping[str, FilmClips], description: str, **names: Any
    ) -> Sources:
        """The splits, with the names of conditions or classes."""
        return Sources(
            train=clips["train"],
            validation=clips["validation"],
            test=clips["test"],
            description=description,
            height=self.height,
            width=self.width,
            channels=self.channels,
            test_films=clips["test"].film_names,
            **names,
        )

    def _prepare(
        self,
        output: Path,
        found: Sequence[Found],
        facts: Sequence[dict[str, Any]],
        left_out: dict[str, list[str]],
    ) -> Manifest:
        """Writes a prepared folder of films; one with a problem has no frames.

        Args:
            output: the folder.
            found: the films.
            facts: what the manifest is to tell of each.
            left_out: by the reason, sentences on other files.
        """
        settings = self.frame_settings
        with preparing(output, self.name, self.path, settings.as_json()) as folder:
            sound = [not fact.get("problem") for fact in facts]
            wanted = list(compress(found, sound))
            films = iter(open_films(wanted, settings, self.bad_files, folder.cache))
            for one, fact in zip(found, facts, strict=True):
                if fact.get("problem"):
                    folder.add(one.name, None, fact)
                else:
                    film = next(films)
                    folder.add(film.name, film.frames, fact | {"problem": film.problem})
            folder.left_out = left_out
        assert folder.manifest is not None
        return folder.manifest

    def _prepared(self) -> tuple[list[tuple[Film, dict[str, Any]]], list[str]]:
        """The films of a prepared folder with the facts of each; what is left out.

        Raises:
            UserError: see `Prepared`; or a film is to be refused.
        """
        prepared = Prepared(self.path, self.name, self.frame_settings.as_json())
        films = []
        for item in prepared.manifest.items:
            path, frames = prepared.folder / item.name, prepared.frames(item)
            film = Film(item.name, path, problem=str(item.facts.get("problem", "")))
            if frames is not None:
                film = film_of(Found(path, item.name), frames)
            if self.bad_files == "refuse":
                if frames is None:
                    raise UserError(film.problem)
                refuse_bad(path, frames.extra)
            films.append((film, item.facts))
        sentences = prepared.manifest.left_out.values()
        return films, [text for texts in sentences for text in texts]


class VideoConfig(FilmFields):
    """Your own videos, pictures and arrays."""

    name: Literal["video"] = "video"
    value_range: tuple[float, ...] = field(
        (),
        "Values of arrays, and of pictures and videos of more than 8 bits, that become "
        "0 and 1; those beyond are clipped. (): 8 bits, 16 bits, or floats in [0, 1].",
        must=("be two numbers, the lower first, or ()", _is_range),
    )
    variable: str = field(
        "", "Name of the array in npz, NetCDF and Zarr; empty: the only one there is."
    )
    condition: str = field(
        "",
        "What tells the condition a film was taken under, for metrics of each apart: "
        "the folder it lies in ('folder'), or a regular expression with one group, "
        "searched for in its path; empty: there are none.",
    )
    split_by: Literal["file", "condition", "time"] = field(
        "file",
        "What is dealt out to training, validation and test: each file, all files of a "
        "condition together, or parts of each file in time: the first for training, "
        "the last for test. Clips of two sets never share a frame.",
    )
    test_conditions: tuple[str, ...] = field(
        (), "Conditions that are kept for the test set; empty: films of all are."
    )

    def check(self) -> Iterator[str]:
        """Yields what is wrong between the fields."""
        yield from super().check()
        try:
            condition_pattern(self.condition)
        except UserError as error:
            yield str(error)
        if self.test_conditions and not self.condition:
            yield (
                f"test_conditions is {self.test_conditions}, but condition is '', "
                "which gives the films none: it must be 'folder' or an expression"
            )
        if self.split_by == "condition" and not self.condition:
            yield (
                "split_by is 'condition', but condition is '', which gives the films "
                "none: it must be 'folder' or a regular expression"
            )

    def sources(self, *, num_frames: int, seed: int) -> Sources:
        """Opens the clips; see `DataConfig.sources`.

        Splits are by film: which one a film is in depends on the names of the films,
        not on the seed. Where there are fewer films than splits, each is cut in time.
        """
        whole, left_out = self._whole_films(num_frames)
        told = f": {left_out}" if left_out.reasons else ""
        names = {part.condition for part in whole if part.condition}
        conditions = tuple(sorted(names, key=lambda name: (natural_order(name), name)))
        for name in self.test_conditions:
            if name not in conditions:
                raise UserError(
                    f"test_conditions names {name!r}, but the films of '{self.path}' "
                    f"have the conditions {', '.join(map(repr, conditions)) or 'none'}"
                )
        span = clip_span(num_frames, self.frame_stride)
        fractions = self.validation_fraction, self.test_fraction
        parts, cut_in_time = split_films(
            whole, span, self.test_conditions, fractions, self.split_by
        )
        masked = any(part.film.masked for part in whole)
        clips = {}
        for split, limit in zip(SPLITS, self.max_clips, strict=True):
            of = parts[split]
            table = cut_clips(of, span, self.clip_stride or span, limit)
            numbers = [conditions.index(part.condition) for part in of if conditions]
            clips[split] = FilmClips(
                [part.film for part in of],
                table,
                num_frames,
                self.frame_stride,
                conditions=numbers if conditions else None,
                masked=masked,
            )
        counts = ", ".join(f"{len(clips[split])} {split}" for split in SPLITS)
        for split in SPLITS:
            if not len(clips[split]):
                raise UserError(
                    f"The {split} split of '{self.path}' is empty (clips of {span} "
                    f"frames from {plural(len(whole), 'video')}: {counts}{told}); "
                    "add films, ask for fewer frames or change the fractions or "
                    "test_conditions"
                )
        how = "split by condition" if self.split_by == "condition" else "split by video"
        how = "each cut in time" if cut_in_time else how
        dealt = ", ".join(f"{len(parts[split])} {split}" for split in SPLITS)
        description = (
            f"Videos of '{self.path}': {plural(len(whole), 'video')}, {how} ({dealt}); "
            f"clips of {num_frames} frames at {self.height}x{self.width}: {counts}."
            f"{self._format_conditions(conditions)}{_format_gaps(whole)}"
            f"{_format_blank(clips.values())}"
        )
        return self.sources_of(
            clips,
            f"{description} Left out{told}." if told else description,
            conditions=conditions,
        )

    def _whole_films(self, num_frames: int) -> tuple[list[Part], LeftOut]:
        """The films with a clip in them, and what is left out.

        Raises:
            UserError: there are none, or one is to be refused.
        """
        span = clip_span(num_frames, self.frame_stride)
        whole, left_out = [], LeftOut()
        for film, condition in self.films():
            part = Part(film, condition, 0, film.num_frames)
            if not film.num_frames:
                left_out.add("that cannot be read", film.problem)
            elif self.condition and not condition:
                left_out.add("without a condition", film.name)
            elif not len(clip_starts(part, span, span)):
                left_out.add(f"without {span} frames", film.name)
            else:
                whole.append(part)
                if film.problem:
                    left_out.add("in part", f"{film.name}: {film.problem}")
        if not whole:
            raise UserError(f"No video of '{self.path}' can be used: {left_out}")
        return whole, left_out

    def _format_conditions(self, conditions: Sequence[str]) -> str:
        if not conditions:
            return ""
        held = ", ".join(self.test_conditions)
        end = f"; held out for the test: {held}." if held else "."
        return f" Conditions: {', '.join(conditions)}{end}"

    def films(self) -> list[tuple[Film, str]]:
        """The films, each with its condition; see `FilmFields.films`."""
        if is_prepared(self.path):
            films = [film for film, _ in self._prepared()[0]]
        else:
            found = self._find()
            self._conditions(found)  # To be refused before anything is decoded.
            films = open_films(found, self.frame_settings, self.bad_files)
        names = self._conditions([Found(film.path, film.name) for film in films])
        return list(zip(films, names, strict=True))

    def _find(self) -> list[Found]:
        found = find_films(self.path)
        if not found:
            raise UserError(f"The folder '{self.path}' holds no video and no pictures")
        return found

    def _conditions(self, found: Sequence[Found]) -> list[str]:
        """The condition of each film, "" for one without.

        Raises:
            UserError: a film has no condition and is to be refused.
        """
        pattern = condition_pattern(self.condition)
        if pattern is None:
            return [""] * len(found)
        names = [condition_of(pattern, one.name) for one in found]
        for one, name in zip(found, names, strict=True):
            if not name and self.bad_files == "refuse":
                raise UserError(
                    f"'{one.path}' has no condition: condition is {self.condition!r}, "
                    f"to which its name '{one.name}' does not answer"
                )
        return names

    def prepare(self, output: Path) -> Manifest:
        """Decodes all films once into a folder; see `FilmFields.prepare`."""
        found = self._find()
        facts = [{"condition": name} for name in self._conditions(found)]
        return self._prepare(output, found, facts, {})


def _format_gaps(parts: Sequence[Part]) -> str:
    masked = [part.film.name for part in parts if part.film.masked]
    if not masked:
        return ""
    return (
        f" Some pixels of {plural(len(masked), 'video')} have no data in any frame "
        f"(first: {masked[0]}): they are 0 and masked."
    )


def _format_blank(sources: Iterable[FilmClips]) -> str:
    blank = [name for source in sources for name in source.blank_clips()]
    if not blank:
        return ""
    return (
        f" Nothing is to be seen in {plural(len(blank), 'clip')} (first: {blank[0]})."
    )
