"""The data set "video": clips from a folder of your own films."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from convlstm_jax.config import field
from convlstm_jax.data.base import FolderDataConfig, InputClip
from convlstm_jax.data.cache import FrameCache
from convlstm_jax.data.files import LeftOut, natural_order, plural
from convlstm_jax.data.prepared import (
    KINDS,
    Decoded,
    Manifest,
    is_prepared,
    prepare,
    read_prepared,
)
from convlstm_jax.data.sources import SPLITS, Sources
from convlstm_jax.data.video.clips import (
    FilmClips,
    Part,
    clip_starts,
    open_films,
    split_films,
)
from convlstm_jax.data.video.film import (
    Film,
    film_of,
    find_films,
    read_last,
    refuse_bad,
)
from convlstm_jax.data.video.fit import FrameSettings
from convlstm_jax.errors import UserError
from convlstm_jax.paths import local_path


def _is_box(value: tuple[int, ...]) -> bool:
    return not value or (len(value) == 4 and min(value[:2]) >= 0 < min(value[2:]))


def _is_range(value: tuple[float, ...]) -> bool:
    return not value or (len(value) == 2 and value[0] < value[1])


class FilmFields(FolderDataConfig):
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
    clip_stride: int = field(
        0,
        "Frames from the start of one clip to the start of the next; 0: clips do not "
        "overlap.",
        ge=0,
    )

    def check_machine(self) -> Iterator[str]:
        """See `DataConfig.check_machine`."""
        yield from super().check_machine()
        if not local_path(self.path).exists():
            yield (
                f"path is {self.path!r}: it must be an existing folder of "
                f"{KINDS[self.name]}, or one film"
            )

    @property
    def frame_settings(self) -> FrameSettings:
        """The fields that determine the frames."""
        names = ("height", "width", "channels", "crop_box", "value_range", "variable")
        fields = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return FrameSettings(**fields)

    def read_input(self, path: str, num_frames: int) -> InputClip:
        """Reads the last frames of a film; see `DataConfig.read_input`."""
        film, settings = local_path(path), self.frame_settings
        frames, masks, rate = read_last(
            film, settings, num_frames, self.frame_stride, self.bad_files
        )
        mask = None if masks is None else masks.astype(np.uint8)
        return InputClip(frames, mask, label=path, rate=rate)

    def open_film(self, path: str) -> Film:
        """Opens one film as training does, through the cache."""
        film = Film(Path(path).name, local_path(path))
        (film,) = open_films([film], self.frame_settings, self.bad_files)
        if not film.num_frames:
            raise UserError(film.problem)
        return film

    def films(self) -> list[Film]:
        """The films of the folder, opened."""
        raise NotImplementedError

    def prepare(self, output: Path) -> Manifest:
        """Decodes all films into a folder; see `prepared`."""
        found, settings = self._find(), self.frame_settings

        def decode(cache: FrameCache) -> Decoded:
            films = open_films(found, settings, self.bad_files, cache)
            return [
                (film.name, film.frames, film.facts | {"problem": film.problem})
                for film in films
            ], {}

        return prepare(output, self.name, self.path, settings.as_json(), decode)

    def _find(self) -> list[Film]:
        """The films before they are decoded."""
        raise NotImplementedError

    def _open(self) -> list[Film]:
        """The films of a folder, prepared or not."""
        settings = self.frame_settings
        if not is_prepared(self.path):
            return open_films(self._find(), settings, self.bad_files)
        manifest, found = read_prepared(self.path, self.name, settings.as_json())
        folder, films = local_path(self.path), []
        for item, frames in zip(manifest.items, found, strict=True):
            path = folder / item.name
            problem = str(item.facts.get("problem", ""))
            film = Film(item.name, path, problem=problem, facts=item.facts)
            if frames is not None:
                film = film_of(film, frames)
            if self.bad_files == "refuse":
                if frames is None:
                    raise UserError(film.problem)
                refuse_bad(path, film.problem)
            films.append(film)
        return films


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
        "Condition a film was taken under, for separate metrics: its top-level folder "
        "('folder'), or a regular expression with one group that is searched for in "
        "its path; empty: no conditions.",
    )
    split_by: Literal["file", "condition", "time"] = field(
        "file",
        "What is distributed over training, validation and test: each file, all files "
        "of a condition together, or parts of each file in time, the first for "
        "training, the last for test. No frame is in two splits.",
    )
    test_conditions: tuple[str, ...] = field(
        (), "Conditions that are only in the test set; empty: test films are of all."
    )

    def check(self) -> Iterator[str]:
        """Yields what is wrong between the fields."""
        yield from super().check()
        must = (
            "it must be a regular expression with one group, such as 'flow_([0-9.]+)', "
            "or 'folder', or ''"
        )
        told = f"condition is {self.condition!r}"
        try:
            groups = re.compile(self._pattern).groups
            if self.condition and groups != 1:
                yield f"{told} with {groups} groups: {must}"
        except re.error as error:
            yield f"{told}, which is no regular expression ({error}): {must}"
        if not self.condition:
            needing = ["test_conditions"] if self.test_conditions else []
            needing += ["split_by"] if self.split_by == "condition" else []
            for name in needing:
                yield (
                    f"{name} is {getattr(self, name)!r}, but condition is '', so films "
                    "have none: it must be 'folder' or a regular expression"
                )

    def sources(self, *, num_frames: int, seed: int) -> Sources:
        """Opens the clips; see `DataConfig.sources`.

        The split of a film depends on the names of the films, not on the seed. If there
        are fewer films than splits, each is cut in time.
        """
        span = self.span(num_frames)
        whole, left_out = self._usable_films(span)
        names = {part.film.condition for part in whole} - {""}
        conditions = tuple(sorted(names, key=lambda name: (natural_order(name), name)))
        for name in self.test_conditions:
            if name not in conditions:
                raise UserError(
                    f"test_conditions names {name!r}, but the films of '{self.path}' "
                    f"have the conditions {', '.join(map(repr, conditions)) or 'none'}"
                )
        fractions = self.validation_fraction, self.test_fraction
        parts, cut_in_time = split_films(
            whole, span, self.test_conditions, fractions, self.split_by
        )
        clips = {}
        for split, members in parts.items():
            clips[split] = FilmClips(
                [part.film for part in members],
                [
                    (
                        number,
                        start,
                        conditions.index(part.film.condition) if names else 0,
                    )
                    for number, part in enumerate(members)
                    for start in clip_starts(part, span, self.clip_stride or span)
                ],
                num_frames,
                self.frame_stride,
                max_clips=getattr(self, f"num_{split}_sequences"),
                key="condition" if names else "",
                masked=any(part.film.masked for part in whole),
            )
        counts = ", ".join(f"{len(clips[split])} {split}" for split in SPLITS)
        videos = plural(len(whole), "video")
        omitted = f": {left_out}" if left_out.reasons else ""
        for split in SPLITS:
            if not len(clips[split]):
                raise UserError(
                    f"The {split} split of '{self.path}' is empty (clips of {span} "
                    f"frames from {videos}: {counts}{omitted}); add films, ask for "
                    "fewer frames or change the fractions or test_conditions"
                )
        how = f"split by {'condition' if self.split_by == 'condition' else 'video'}"
        how = "each cut in time" if cut_in_time else how
        dealt = ", ".join(f"{len(parts[split])} {split}" for split in SPLITS)
        description = (
            f"Videos of '{self.path}': {videos}, {how} ({dealt}); clips of "
            f"{num_frames} frames at {self.height}x{self.width}: {counts}."
        )
        if conditions:
            held = ", ".join(self.test_conditions)
            description += f" Conditions: {', '.join(conditions)}"
            description += f"; held out for the test: {held}." if held else "."
        masked = [part.film.name for part in whole if part.film.masked]
        if masked:
            description += (
                f" Some pixels of {plural(len(masked), 'video')} have no data in any "
                f"frame (first: {masked[0]}): they are 0 and masked."
            )
        if omitted:
            description += f" Left out{omitted}."
        return self.make_sources(clips, description, conditions=conditions)

    def _usable_films(self, span: int) -> tuple[list[Part], LeftOut]:
        """The films that hold a clip, and what is left out."""
        whole, left_out = [], LeftOut()
        for film in self.films():
            part = Part(film, 0, film.num_frames)
            if not film.num_frames:
                left_out.add("that cannot be read", film.problem)
            elif self.condition and not film.condition:
                left_out.add("without a condition", film.name)
            elif not clip_starts(part, span, span):
                left_out.add(f"without {span} frames", film.name)
            else:
                whole.append(part)
                if film.problem:
                    left_out.add("in part", f"{film.name}: {film.problem}")
        if not whole:
            raise UserError(f"No video of '{self.path}' can be used: {left_out}")
        return whole, left_out

    def films(self) -> list[Film]:
        """The films, each with its condition."""
        return [replace(film, condition=self._condition(film)) for film in self._open()]

    def _find(self) -> list[Film]:
        found = find_films(self.path)
        if not found:
            raise UserError(f"The folder '{self.path}' holds no video and no pictures")
        return [replace(f, facts={"condition": self._condition(f)}) for f in found]

    @property
    def _pattern(self) -> str:
        return r"^([^/]+)/" if self.condition == "folder" else self.condition

    def _condition(self, film: Film) -> str:
        """The condition of a film or ""; refuses a film without one."""
        match = re.search(self._pattern, film.name) if self.condition else None
        condition = match.group(1) if match else ""
        if self.condition and not condition and self.bad_files == "refuse":
            raise UserError(
                f"'{film.path}' has no condition: condition is {self.condition!r}, "
                f"which its name '{film.name}' does not match"
            )
        return condition or ""
