"""Reads annotations of videos from CVAT's XML format "CVAT for video 1.1".

Each `track` has a shape for every frame in which something changes; with `outside="1"`
the object is invisible from this frame on. Frames are counted from 0 in the *video*,
also if a task starts later or leaves frames out.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from convlstm_jax.data.files import reason
from convlstm_jax.errors import UserError
from convlstm_jax.paths import check_regular

SHAPES = ("box", "points", "polygon", "polyline", "cuboid", "ellipse", "mask",
          "skeleton")  # fmt: skip

_FORMAT = '"CVAT for video 1.1"'

# Decoders differ by fewer frames than this in the length of a video.
_TOLERANCE = 3


@dataclass(frozen=True)
class Shape:
    """The state of a track from a frame of the video until its next shape."""

    kind: str
    frame: int
    outside: bool


@dataclass(frozen=True)
class Track:
    """One object and its shapes, at most one a frame, in order."""

    label: str
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Annotations:
    """The annotations of the frames start_frame .. stop_frame of a video.

    `source` is its file name, "" if unknown, and `path` the file read, for messages.
    """

    source: str
    start_frame: int
    stop_frame: int
    tracks: tuple[Track, ...]
    path: str = field(default="", compare=False)

    def as_json(self) -> dict[str, Any]:
        """The annotations as JSON, of a run of like shapes only the first and last."""
        tracks = []
        for track in self.tracks:
            runs = [list(run) for _, run in groupby(track.shapes, lambda s: s.outside)]
            kept = [shape for run in runs for shape in (run[:1] + run[1:][-1:])]
            tracks.append([track.label, [[s.kind, s.frame, s.outside] for s in kept]])
        return {**vars(self), "tracks": tracks}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> "Annotations":
        """Annotations with the same event intervals as those of `as_json`."""
        tracks = tuple(
            Track(label, tuple(Shape(*shape) for shape in shapes))
            for label, shapes in facts["tracks"]
        )
        return cls(**{**facts, "tracks": tracks})


def event_frames(annotations: Annotations, labels: Iterable[str]) -> np.ndarray:
    """Whether a track of one of the labels is visible, bool `[stop_frame + 1]`."""
    wanted = set(labels)
    visible = np.zeros(annotations.stop_frame + 1, bool)
    for track in annotations.tracks:
        if track.label in wanted:
            for shape, following in zip_longest(track.shapes, track.shapes[1:]):
                if not shape.outside:
                    visible[shape.frame : following and following.frame] = True
    return visible


def check_frames(annotations: Annotations, num_frames: int) -> None:
    """Raises a `UserError` if frames are annotated that the video lacks."""
    held = f"but the video holds the frames 0 .. {num_frames - 1} only"
    for number, track in enumerate(annotations.tracks):
        for shape in reversed(track.shapes):
            if not shape.outside and shape.frame >= num_frames:
                raise UserError(
                    f"'{annotations.path}': track {number} ({track.label!r}) has a "
                    f"{shape.kind} in frame {shape.frame}, {held}"
                )
    if annotations.stop_frame >= num_frames + _TOLERANCE:
        raise UserError(
            f"'{annotations.path}' annotates the frames {annotations.start_frame} .. "
            f"{annotations.stop_frame}, {held}"
        )


def read_cvat(path: Path) -> Annotations:
    """Reads a file of "CVAT for video 1.1"; attributes, tags and the like are ignored.

    A `UserError` says what is wrong with it.
    """
    check_regular(path)
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({reason(error)})") from error
    # Unknown encodings are LookupErrors, those of several bytes ValueErrors.
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(
            f"'{path}' is not XML, or cut short ({error}), but must be {_FORMAT}"
        ) from error
    try:
        return _annotations(root, str(path))
    except ValueError as error:
        raise UserError(f"'{path}'{error}") from error


def _annotations(root: Element, path: str) -> Annotations:
    version = (root.findtext("version") or "").strip()
    if root.tag != "annotations" or version != "1.1":
        raise ValueError(
            f" has the root element <{root.tag}> and the version {version!r}, but must "
            f"be CVAT's {_FORMAT}"
        )
    if root.find("image") is not None:
        raise ValueError(
            f' holds <image> elements: it is "CVAT for images", but must be {_FORMAT}'
        )
    task = root.find("meta/task")
    task = root.find("meta/job") if task is None else task
    if task is None:
        raise ValueError(
            " has no <task> or <job> in its <meta>, but must be the export of one task "
            "or job (a project's tracks do not name their video)"
        )
    size = _number(task.findtext("size"), " has", "<size>", 1)
    start = _number(task.findtext("start_frame", "0"), " has", "<start_frame>")
    text = (task.findtext("frame_filter") or "").replace(" ", "") or "step=1"
    step = _number(text.removeprefix("step="), " has", "the step of <frame_filter>", 1)
    end = str(start + (size - 1) * step)
    stop = _number(task.findtext("stop_frame", end), " has", "<stop_frame>", start)
    # If they contradict each other, the smaller one holds.
    stop = min(stop, start + size * step - 1)
    source = root.findtext("meta/source") or task.findtext("source") or ""
    tracks = tuple(
        _track(element, f": track {number}", start, stop, step)
        for number, element in enumerate(root.iterfind("track"))
    )
    return Annotations(source.strip(), start, stop, tracks, path)


def _number(text: str | None, where: str, what: str, minimum: int = 0) -> int:
    try:
        number = int(text or "")
    except ValueError:
        number = minimum - 1
    if number < minimum:
        found = "no value" if text is None else repr(text)
        raise ValueError(
            f"{where} {found} for {what}, but it must be a whole number of at least "
            f"{minimum}"
        )
    return number


def _track(element: Element, where: str, start: int, stop: int, step: int) -> Track:
    label = element.get("label")
    if not label:
        raise ValueError(f"{where} has no label, but every track must have one")
    where = f"{where} ({label!r}) has"
    by_frame: dict[int, Shape] = {}
    for child in element:
        if child.tag not in SHAPES:
            continue
        frame = _number(child.get("frame"), where, f"the frame of a {child.tag}")
        # The points of a skeleton are elements.
        points = child.findall("*[@outside]") if child.tag == "skeleton" else []
        flags = [one.get("outside", "0") for one in points or [child]]
        if not {*flags} <= {"0", "1"}:
            raise ValueError(
                f"{where} outside={max(flags)!r} in frame {frame}, but it must be '0' "
                "or '1'"
            )
        outside = "0" not in flags
        # The end of a track may lie one step behind the last frame.
        if not start <= frame <= (stop + step if outside else stop):
            raise ValueError(
                f"{where} a {child.tag} in frame {frame}, but the file's frames are "
                f"{start} .. {stop} (start_frame, stop_frame, size)"
            )
        by_frame[frame] = Shape(child.tag, frame, outside)
    return Track(label, tuple(by_frame[frame] for frame in sorted(by_frame)))
