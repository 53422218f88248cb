"""The data set "annotated_video": clips with a class each, cut from annotated films.

A clip is of the event if at least half of its frames lie in the intervals in which a
track of one of the labels is to be seen, normal if none does; those in between tell
neither and are left out. Only frames that were annotated are used.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Literal

import numpy as np

from convlstm_jax.config import field
from convlstm_jax.data.annotated.cvat import (
    Annotations,
    check_frames,
    event_intervals,
    read_cvat,
)
from convlstm_jax.data.base import LabelledDataConfig
from convlstm_jax.data.files import plural
from convlstm_jax.data.prepared import Manifest, is_prepared
from convlstm_jax.data.sources import Sources
from convlstm_jax.data.split import SPLITS, deal, mixed, shares
from convlstm_jax.data.video.clips import FilmClips, clip_span, open_films
from convlstm_jax.data.video.config import FilmFields
from convlstm_jax.data.video.film import Film, Found
from convlstm_jax.data.video.find import find_films
from convlstm_jax.errors import UserError

NO_EVENT = "normal"
"""The class of clips without the event; its label is 0, that of the event 1."""

_SHOWN_PROBLEMS = 3
_TOLD = {"train": "training", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class CutClips:
    """The clips of one film.

    Attributes:
        labelled: (first frame, label) of each; label 1 for the event, 0 without it.
        num_unclear: clips left out because less than half of them is in an interval.
        num_unreadable: clips left out because a frame of them cannot be read.
    """

    labelled: tuple[tuple[int, int], ...]
    num_unclear: int
    num_unreadable: int


def cut_clips(
    film: Film,
    annotations: Annotations,
    event_labels: Sequence[str],
    *,
    num_frames: int,
    frame_stride: int,
    clip_stride: int,
) -> CutClips:
    """Cuts the annotated part of a film into clips.

    Their starts are `clip_stride` apart, counted in frames that `frame_stride` leaves.
    """
    in_event = np.zeros(annotations.stop_frame + 1, bool)
    for first, end in event_intervals(annotations, event_labels):
        in_event[first:end] = True
    labelled = []
    num_unclear = num_unreadable = 0
    span = clip_span(num_frames, frame_stride)
    last = annotations.stop_frame - span + 1
    step = clip_stride * frame_stride
    for start in range(annotations.start_frame, last + 1, step):
        inside = np.count_nonzero(in_event[start : start + span : frame_stride])
        if not film.can_read(start, num_frames, frame_stride):
            num_unreadable += 1
        elif 0 < 2 * inside < num_frames:
            num_unclear += 1
        else:
            labelled.append((start, int(inside > 0)))
    return CutClips(tuple(labelled), num_unclear, num_unreadable)


def _is_event(labels: tuple[str, ...]) -> bool:
    return all(labels) and "+".join(labels) not in ("", NO_EVENT)


SHARED_NAME = "annotations.xml"
"""What CVAT calls an export; one in a folder names its video as the source."""


@dataclass(frozen=True)
class FoundAnnotated(Found):
    """A film with its annotations, or a sentence on why it has none."""

    annotations: Annotations | None = None
    problem: str = ""


def find_annotated(path: str | Path) -> tuple[list[FoundAnnotated], list[str]]:
    """Searches a folder for films that have "CVAT for video 1.1" XML beside them.

    Films are those of `find_films`, pictures where no film file lies beside them. The
    annotations of one are in the XML file of the same name ("a.xml" for "a.mp4"), or in
    "annotations.xml" in the same folder if that names it as its source or it is the
    only film there.

    Returns:
        The films in the order of their folders and names; and sentences on what is
        wrong with each "annotations.xml".

    Raises:
        UserError: the folder is missing.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(
            f"path is '{path}', but must be a folder of videos and CVAT's XML files"
        )
    by_folder: dict[Path, dict[Path, str]] = {}
    for film in find_films(root, beside_files=False):
        if film.path != root:
            by_folder.setdefault(film.path.parent, {})[film.path] = film.name
    found: list[FoundAnnotated] = []
    problems: list[str] = []
    for folder, names in sorted(by_folder.items()):
        sources = {p: _own_xml(p) for p in sorted(names) if _own_xml(p).exists()}
        others = [file for file in sorted(names) if file not in sources]
        if others and (folder / SHARED_NAME).exists():
            try:
                sources |= _shared(folder / SHARED_NAME, others, len(names))
            except UserError as error:
                problems.append(str(error))
        found += [
            _with_annotations(file, names[file], sources) for file in sorted(names)
        ]
    return found, problems


def _with_annotations(
    file: Path, name: str, sources: dict[Path, Path]
) -> FoundAnnotated:
    problem = (
        f"'{file}' has no annotations, but '{_own_xml(file).name}' must lie beside it, "
        f"or '{SHARED_NAME}' with '{file.name}' as its <source>"
    )
    if file in sources:
        try:
            return FoundAnnotated(file, name, read_cvat(sources[file]))
        except UserError as error:
            problem = str(error)
    return FoundAnnotated(file, name, problem=problem)


def _own_xml(film: Path) -> Path:
    is_store = film.suffix.lower() == ".zarr"
    name = film.name if film.is_dir() and not is_store else film.stem
    return film.with_name(f"{name}.xml")


def _shared(xml: Path, others: list[Path], num_films: int) -> dict[Path, Path]:
    """The films, of those without an XML file of their own, that one file is for."""
    # Annotators on Windows may leave a whole path.
    source = PureWindowsPath(read_cvat(xml).source)
    named = [film for film in others if film.name == source.name]
    named = named or [film for film in others if _own_xml(film).stem == source.stem]
    return dict.fromkeys(named or (others if num_films == 1 else []), xml)


class AnnotatedVideoConfig(FilmFields, LabelledDataConfig):
    """Your own videos with CVAT annotations."""

    name: Literal["annotated_video"] = "annotated_video"
    event_labels: tuple[str, ...] = field(
        ("theft",),
        "Labels of the annotations in whose intervals clips are of the class of the "
        "event.",
        must=(
            f"hold at least one label, other than {NO_EVENT!r} alone",
            _is_event,
        ),
    )
    # Events are rare and short: clips overlap, and each split needs some.
    clip_stride: int = field(
        3,
        "Frames from the start of one clip to the start of the next; 0: one starts "
        "where the other ends.",
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

    def check_disk(self) -> Iterator[str]:
        """Yields problems with the folder of films."""
        if Path(self.path).expanduser().is_file():
            yield (
                f"path is {self.path!r}: it must be an existing folder of videos and "
                "their annotations"
            )
        yield from super().check_disk()

    def films(self) -> list[tuple[Film, str]]:
        """The films, without conditions; see `FilmFields.films`."""
        return [(film, "") for film, _ in self._annotated_films()[0]]

    def _annotated_films(
        self,
    ) -> tuple[list[tuple[Film, Annotations | None]], list[str]]:
        """The films with their annotations, by name; and what is left out besides.

        Of a film with no sound annotations, or with those of frames that it lacks, they
        are None, and it has a problem.
        """
        films: list[tuple[Film, Annotations | None]]
        if is_prepared(self.path):
            prepared, others = self._prepared()
            films = [
                (film, one and Annotations.from_json(one))
                for film, one in (
                    (film, facts["annotations"]) for film, facts in prepared
                )
            ]
        else:
            found, others = self._find()
            sound = [one for one in found if one.annotations is not None]
            opened = open_films(sound, self.frame_settings, self.bad_files)
            films = [
                (film, one.annotations) for film, one in zip(opened, sound, strict=True)
            ] + [
                (Film(one.name, one.path, problem=one.problem), None)
                for one in found
                if one.annotations is None
            ]
        checked = [self._checked(*pair) for pair in films]
        return sorted(checked, key=lambda pair: pair[0].name), others

    def _checked(
        self, film: Film, annotations: Annotations | None
    ) -> tuple[Film, Annotations | None]:
        # Of a film that ends early, the annotations may well tell more.
        if annotations is None or film.problem:
            return film, annotations if film.num_frames else None
        try:
            check_frames(annotations, film.num_frames)
        except UserError as error:
            if self.bad_files == "refuse":
                raise
            return replace(film, problem=str(error)), None
        return film, annotations

    def _find(self) -> tuple[list[FoundAnnotated], list[str]]:
        found, problems = find_annotated(self.path)
        told = [*problems, *(one.problem for one in found if one.problem)]
        if told and self.bad_files == "refuse":
            raise UserError(told[0])
        return found, problems

    def prepare(self, output: Path) -> Manifest:
        """Decodes all films once into a folder; see `FilmFields.prepare`."""
        found, problems = self._find()
        if not found:
            raise UserError(f"The folder '{self.path}' holds no video")
        facts = [
            {"annotations": one and one.as_json(), "problem": problem}
            for one, problem in ((one.annotations, one.problem) for one in found)
        ]
        left_out = {"annotations that cannot be read": problems} if problems else {}
        return self._prepare(output, found, facts, left_out)

    def sources(self, *, num_frames: int, seed: int) -> Sources:
        """Opens the clips; see `DataConfig.sources`.

        Every film belongs to one split, by its name alone. Films with and without clips
        of the event are dealt out apart, so that each split gets its share of both. The
        clips of a split are in a mixed order, the same every time, so that its first
        ones are a fair sample; a split of fewer clips holds the first of these.
        """
        found, left_out = self._annotated_films()
        pairs = [(film, one) for film, one in found if one is not None]
        left_out += [
            f"part of '{film.name}' ({film.problem})" if one else film.problem
            for film, one in found
            if film.problem
        ]
        if not pairs:
            why = f" ({left_out[0]})" if left_out else ""
            raise UserError(
                f"path is '{self.path}', but there is no video with annotations in "
                f"it{why}"
            )
        films = [film for film, _ in pairs]
        self._check_labels([annotations for _, annotations in pairs])
        cut = [
            cut_clips(
                film,
                annotations,
                self.event_labels,
                num_frames=num_frames,
                frame_stride=self.frame_stride,
                clip_stride=self.clip_stride or num_frames,
            )
            for film, annotations in pairs
        ]
        numbers = self._split(films, cut)
        clips: dict[str, FilmClips] = {}
        counts: dict[str, tuple[int, ...]] = {}
        for split, limit in zip(SPLITS, self.max_clips, strict=True):
            rows = [(n, *clip) for n in numbers[split] for clip in cut[n].labelled]
            rows = mixed(rows, lambda row: f"{films[row[0]].name}\0{row[1]}")[:limit]
            table = np.asarray(rows, np.int64).reshape(-1, 3)
            counts[split] = tuple(int((table[:, 2] == label).sum()) for label in (0, 1))
            clips[split] = FilmClips(
                films,
                table,
                num_frames,
                self.frame_stride,
                labelled=True,
                masked=any(film.masked for film in films),
            )
        self._check_classes(counts, cut)
        return self.sources_of(
            clips,
            self._describe(numbers, counts, cut, left_out),
            classes=self.classes,
            class_counts=counts["train"],
        )

    def _split(
        self, films: Sequence[Film], cut: Sequence[CutClips]
    ) -> dict[str, list[int]]:
        """The numbers of the films of each split, ascending.

        Of three or more films of one kind each split gets at least one; fewer are for
        training.
        """
        wanted = shares(self.validation_fraction, self.test_fraction)
        numbers: dict[str, list[int]] = {split: [] for split in SPLITS}
        used = [number for number, clips in enumerate(cut) if clips.labelled]
        with_event = {n for n in used if any(label for _, label in cut[n].labelled)}
        for kind in (True, False):
            members = [number for number in used if (number in with_event) == kind]
            members = mixed(members, lambda number: films[number].name)[::-1]
            for split, dealt in (deal(members, wanted) or {"train": members}).items():
                numbers[split] += dealt
        return {split: sorted(members) for split, members in numbers.items()}

    def _check_labels(self, annotations: Sequence[Annotations]) -> None:
        """Refuses labels that no track has: slips of the pen."""
        found = {track.label for one in annotations for track in one.tracks}
        for label in self.event_labels:
            if label not in found:
                raise UserError(
                    f"event_labels holds {label!r}, but no track in '{self.path}' has "
                    f"that label; there are {sorted(found)}"
                )

    def _check_classes(
        self, counts: Mapping[str, Sequence[int]], cut: Sequence[CutClips]
    ) -> None:
        for split, numbers in counts.items():
            for label, number in enumerate(numbers):
                if number == 0:
                    having = sum(
                        any(one == label for _, one in clips.labelled) for clips in cut
                    )
                    raise UserError(
                        f"The {_TOLD[split]} split of '{self.path}' would hold no clip "
                        f"of the class {self.classes[label]!r}, which {having} of "
                        f"{len(cut)} videos have: each split needs such a video (see "
                        "validation_fraction, test_fraction, clip_stride)"
                    )

    def _describe(
        self,
        numbers: Mapping[str, Sequence[int]],
        counts: Mapping[str, Sequence[int]],
        cut: Sequence[CutClips],
        left_out: Sequence[str],
    ) -> str:
        """What is used, split by split, and what is not."""
        splits = "; ".join(
            f"{_TOLD[split]} {plural(len(numbers[split]), 'video')} with "
            + ", ".join(
                f"{n} {name}" for n, name in zip(count, self.classes, strict=True)
            )
            for split, count in counts.items()
        )
        text = (
            f"{plural(len(cut), 'video')} with CVAT annotations in {self.path}, as "
            f"clips: {splits}."
        )
        numbers_of_clips = {
            "that only touch an event": sum(clips.num_unclear for clips in cut),
            "that cannot be read": sum(clips.num_unreadable for clips in cut),
        }
        missing = [
            f"{plural(number, 'clip')} {why}"
            for why, number in numbers_of_clips.items()
            if number
        ]
        num_short = sum(not clips.labelled for clips in cut)
        if num_short:
            missing.append(
                f"{plural(num_short, 'video')} without a clip of either class"
            )
        missing += left_out[:_SHOWN_PROBLEMS]
        if len(left_out) > _SHOWN_PROBLEMS:
            missing.append(f"{plural(len(left_out) - _SHOWN_PROBLEMS, 'more file')}")
        return f"{text} Left out: {'; '.join(missing)}." if missing else text
