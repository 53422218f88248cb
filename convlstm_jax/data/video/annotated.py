"""The data set "annotated_video": clips with a class each, cut from annotated films.

A clip is of the event if a track of one of the labels is visible in at least half of
its frames, normal if in none; other clips are left out. Only annotated frames are used.
"""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Literal

import numpy as np

from convlstm_jax.config import field
from convlstm_jax.data.base import LabelledDataConfig
from convlstm_jax.data.files import LeftOut, plural
from convlstm_jax.data.sources import SPLITS, Sources, deal, mixed, shares
from convlstm_jax.data.video.clips import FilmClips
from convlstm_jax.data.video.config import FilmFields
from convlstm_jax.data.video.cvat import (
    Annotations,
    check_frames,
    event_frames,
    read_cvat,
)
from convlstm_jax.data.video.film import Film, find_films
from convlstm_jax.errors import UserError
from convlstm_jax.paths import local_path

NO_EVENT = "normal"
"""The class of clips without the event; its label is 0, that of the event 1."""

_SHARED_NAME = "annotations.xml"  # CVAT's name for an export.
_SPLIT_NAMES = {"train": "training", "validation": "validation", "test": "test"}


def find_annotated(path: str | Path) -> list[Film]:
    """Searches a folder for films with "CVAT for video 1.1" XML beside them.

    The annotations of a film are in the XML file of the same name ("a.xml" for
    "a.mp4"), or in "annotations.xml" in the same folder if that names it as its source
    or it is the only film there. Films get "annotations" among their facts, or a
    problem.
    """
    root = local_path(path)
    if not root.is_dir():
        raise UserError(
            f"path is '{path}', but must be a folder of videos and CVAT's XML files"
        )
    by_folder: dict[Path, dict[Path, Film]] = {}
    for film in find_films(root, beside_files=False):
        if film.path != root:
            by_folder.setdefault(film.path.parent, {})[film.path] = film
    read = functools.cache(read_cvat)
    found: list[Film] = []
    for _, films in sorted(by_folder.items()):
        for file, film in sorted(films.items()):
            try:
                annotations = _read_annotations(file, list(films), read)
                facts = {"annotations": annotations.as_json()}
                found.append(replace(film, facts=facts))
            except UserError as error:
                none = {"annotations": None}
                found.append(replace(film, problem=str(error), facts=none))
    return found


def _read_annotations(
    film: Path, films: Sequence[Path], read: Callable[[Path], Annotations]
) -> Annotations:
    """The annotations of one of the films in a folder."""
    if _own_xml(film).exists():
        return read(_own_xml(film))
    shared = film.with_name(_SHARED_NAME)
    if shared.exists():
        annotations = read(shared)
        # CVAT on Windows may write a whole path.
        source = PureWindowsPath(annotations.source)
        others = [one for one in films if not _own_xml(one).exists()]
        if source.name in [one.name for one in others]:
            is_source = film.name == source.name
        elif source.stem in [_own_xml(one).stem for one in others]:
            is_source = _own_xml(film).stem == source.stem
        else:
            is_source = len(films) == 1
        if is_source:
            return annotations
    raise UserError(
        f"'{film}' has no annotations, but '{_own_xml(film).name}' must lie beside it, "
        f"or '{_SHARED_NAME}' with '{film.name}' as its <source>"
    )


def _own_xml(film: Path) -> Path:
    is_store = film.suffix.lower() == ".zarr"
    name = film.name if film.is_dir() and not is_store else film.stem
    return film.with_name(f"{name}.xml")


def _is_event(labels: tuple[str, ...]) -> bool:
    return all(labels) and "+".join(labels) not in ("", NO_EVENT)


class AnnotatedVideoConfig(FilmFields, LabelledDataConfig):
    """Your own videos with CVAT annotations."""

    name: Literal["annotated_video"] = "annotated_video"
    event_labels: tuple[str, ...] = field(
        ("theft",),
        "Labels of the tracks that show the event.",
        must=(f"hold at least one label, other than {NO_EVENT!r} alone", _is_event),
    )
    # Events are rare and short: clips overlap, and each split needs some.
    clip_stride: int = field(
        3,
        "Frames from the start of one clip to the start of the next; 0: clips do not "
        "overlap.",
        ge=0,
    )
    validation_fraction: float = field(
        0.2, "Share of the films for validation.", gt=0, lt=1
    )
    test_fraction: float = field(0.2, "Share of the films for test.", gt=0, lt=1)

    @property
    def classes(self) -> tuple[str, str]:
        """The classes of clips: without the event, and with it."""
        return NO_EVENT, "+".join(self.event_labels)

    def films(self) -> list[Film]:
        """The films; see `FilmFields.films`."""
        return [film for film, _ in self._annotated_films()]

    def _annotated_films(self) -> list[tuple[Film, Annotations | None]]:
        """The films by name; those whose annotations are None have a problem."""
        films: list[tuple[Film, Annotations | None]] = []
        for film in self._open():
            annotations = None
            if film.num_frames:
                annotations = Annotations.from_json(film.facts["annotations"])
                if not film.problem:  # A truncated film may lack annotated frames.
                    try:
                        check_frames(annotations, film.num_frames)
                    except UserError as error:
                        if self.bad_files == "refuse":
                            raise
                        film, annotations = replace(film, problem=str(error)), None
            films.append((film, annotations))
        return sorted(films, key=lambda pair: pair[0].name)

    def _find(self) -> list[Film]:
        found = find_annotated(self.path)
        if not found:
            raise UserError(f"The folder '{self.path}' holds no video")
        for film in found:
            if film.problem and self.bad_files == "refuse":
                raise UserError(film.problem)
        return found

    def sources(self, *, num_frames: int, seed: int) -> Sources:
        """Opens the clips; see `DataConfig.sources`.

        Every film belongs to one split, by its name. Films with and without the event
        are distributed separately, so that each split gets its share of both.
        """
        found = self._annotated_films()
        pairs = [(film, one) for film, one in found if one is not None]
        left_out = LeftOut()
        for film, annotations in found:
            if film.problem and annotations is None:
                left_out.add("that cannot be used", film.problem)
            elif film.problem:
                left_out.add("in part", f"{film.name}: {film.problem}")
        if not pairs:
            raise UserError(
                f"path is '{self.path}', but no video in it can be used: {left_out}"
            )
        labels = {track.label for _, one in pairs for track in one.tracks}
        for label in self.event_labels:
            if label not in labels:
                raise UserError(
                    f"event_labels holds {label!r}, but no track in '{self.path}' has "
                    f"that label; there are {sorted(labels)}"
                )
        films = [film for film, _ in pairs]
        cut: list[list[tuple[int, int]]] = []
        unused: Counter[str] = Counter()
        for film, annotations in pairs:
            labelled, others = self.cut(film, annotations, num_frames)
            cut.append(labelled)
            unused += others
            if not labelled:
                left_out.add("without a clip of either class", film.name)
        numbers = self._split(films, cut)
        clips = {
            split: FilmClips(
                films,
                [(n, *clip) for n in numbers[split] for clip in cut[n]],
                num_frames,
                self.frame_stride,
                max_clips=getattr(self, f"num_{split}_sequences"),
                key="label",
                masked=any(film.masked for film in films),
            )
            for split in SPLITS
        }
        counts = {
            split: np.bincount(clips[split].values, minlength=2).tolist()
            for split in SPLITS
        }
        self._check_classes(counts, cut)
        splits = "; ".join(
            f"{_SPLIT_NAMES[split]} {plural(len(numbers[split]), 'video')} with "
            f"{count[0]} {self.classes[0]}, {count[1]} {self.classes[1]}"
            for split, count in counts.items()
        )
        description = (
            f"{plural(len(cut), 'video')} with CVAT annotations in {self.path}, as "
            f"clips: {splits}."
        )
        parts = [f"{plural(count, 'clip')} {why}" for why, count in unused.items()]
        parts += [str(left_out)] if left_out.reasons else []
        if parts:
            description += f" Left out: {'; '.join(parts)}."
        return self.make_sources(
            clips,
            description,
            classes=self.classes,
            class_counts=tuple(counts["train"]),
        )

    def cut(
        self, film: Film, annotations: Annotations, num_frames: int
    ) -> tuple[list[tuple[int, int]], Counter[str]]:
        """Cuts the annotated part of a film into clips.

        Returns (first frame, label) of each, label 1 for the event; and the number of
        clips left out, by the reason.
        """
        in_event = event_frames(annotations, self.event_labels)
        labelled = []
        unused: Counter[str] = Counter()
        span = self.span(num_frames)
        last = annotations.stop_frame - span + 1
        step = (self.clip_stride or num_frames) * self.frame_stride
        for start in range(annotations.start_frame, last + 1, step):
            shown = in_event[start : start + span : self.frame_stride]
            inside = np.count_nonzero(shown)
            if not film.can_read(start, num_frames, self.frame_stride):
                unused["that cannot be read"] += 1
            elif 0 < 2 * inside < num_frames:
                unused["that only touch an event"] += 1
            else:
                labelled.append((start, int(inside > 0)))
        return labelled, unused

    def _split(
        self, films: Sequence[Film], cut: Sequence[Sequence[tuple[int, int]]]
    ) -> dict[str, list[int]]:
        """The numbers of the films of each split; few films are all for training."""
        wanted = shares(self.validation_fraction, self.test_fraction)
        numbers: dict[str, list[int]] = {split: [] for split in SPLITS}
        used = [number for number, clips in enumerate(cut) if clips]
        with_event = {n for n in used if any(label for _, label in cut[n])}
        for kind in (True, False):
            members = [number for number in used if (number in with_event) == kind]
            members = mixed(members, lambda number: films[number].name)[::-1]
            for split, dealt in (deal(members, wanted) or {"train": members}).items():
                numbers[split] += dealt
        return {split: sorted(members) for split, members in numbers.items()}

    def _check_classes(
        self,
        counts: Mapping[str, Sequence[int]],
        cut: Sequence[Sequence[tuple[int, int]]],
    ) -> None:
        """Refuses splits without clips of a class."""
        for split, numbers in counts.items():
            for label, name in enumerate(self.classes):
                if not numbers[label]:
                    having = sum(any(one == label for _, one in clips) for clips in cut)
                    raise UserError(
                        f"The {_SPLIT_NAMES[split]} split of '{self.path}' would hold "
                        f"no clip of the class {name!r}, which {having} of {len(cut)} "
                        "videos have: each split needs such a video (see "
                        "validation_fraction, test_fraction, clip_stride)"
                    )
