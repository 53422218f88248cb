"""Reads annotations of videos from CVAT's XML format "CVAT for video 1.1".

The format, as far as it matters here: `annotations/meta` holds one `task` (or `job`)
with the number of its frames (`size`) and the first and last of them (`start_frame`,
`stop_frame`); each `track` has a `label` and a shape (`box`, `points`, `polygon`, ...)
for every frame in which something changes. Frames are counted from 0 in the *video*,
also where a task starts later or leaves frames out. A shape with `outside="1"` says
that from this frame on the object is not to be seen. Outlines are not read.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from convlstm_jax.data.files import check_regular, reason
from convlstm_jax.errors import UserError

VERSION = "1.1"

SHAPES = ("box", "points", "polygon", "polyline", "cuboid", "ellipse", "mask",
          "skeleton")  # fmt: skip

# Frames by which decoders differ over the length of a video.
_COUNTED_OTHERWISE = 3


@dataclass(frozen=True)
class Shape:
    """What a track is in one frame, and in those after it until its next shape.

    Attributes:
        kind: the XML element, one of `SHAPES`.
        frame: number of the frame in the video, from 0.
        outside: whether the object is not to be seen from this frame on.
    """

    kind: str
    frame: int
    outside: bool


@dataclass(frozen=True)
class Track:
    """One object and its shapes, in the order of their frames, at most one each."""

    label: str
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Annotations:
    """The annotations of one video.

    Attributes:
        source: file name of the video; "" where the XML does not tell.
        start_frame: the first frame annotated, counted in the video.
        stop_frame: the last one.
        tracks: the objects.
        path: the file read, for messages; it makes no difference between two.
    """

    source: str
    start_frame: int
    stop_frame: int
    tracks: tuple[Track, ...]
    path: str = field(default="", compare=False)

    def as_json(self) -> dict[str, Any]:
        """Annotations as a manifest holds them.

        Of a track these are the shapes that tell when it is to be seen: the first and
        the last of each run in which it is, or is not.
        """
        tracks = []
        for track in self.tracks:
            runs = [
                list(run)
                for _, run in groupby(track.shapes, lambda shape: shape.outside)
            ]
            kept = [shape for run in runs for shape in (run[:1] + run[1:][-1:])]
            shapes = [[shape.kind, shape.frame, shape.outside] for shape in kept]
            tracks.append([track.label, shapes])
        return {
            "source": self.source,
            "start_frame": self.start_frame,
            "stop_frame": self.stop_frame,
            "tracks": tracks,
            "path": self.path,
        }

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> "Annotations":
        """The annotations that `as_json` tells of: the same intervals of events."""
        tracks = tuple(
            Track(label, tuple(Shape(*shape) for shape in shapes))
            for label, shapes in facts["tracks"]
        )
        return cls(**{**facts, "tracks": tracks})


def event_intervals(
    annotations: Annotations, labels: Iterable[str]
) -> tuple[tuple[int, int], ...]:
    """The frames in which a track of one of the labels is to be seen.

    A track is seen from a shape that is not outside to its next one that is, or to
    the last frame annotated.

    Returns:
        Half-open frame intervals (first, end) in order, apart from each other.
    """
    wanted = set(labels)
    seen = sorted(
        interval
        for track in annotations.tracks
        if track.label in wanted
        for interval in _visible(track, annotations.stop_frame + 1)
    )
    apart: list[tuple[int, int]] = []
    for first, end in seen:
        if apart and first <= apart[-1][1]:
            apart[-1] = (apart[-1][0], max(end, apart[-1][1]))
        else:
            apart.append((first, end))
    return tuple(apart)


def _visible(track: Track, end_of_video: int) -> list[tuple[int, int]]:
    intervals = []
    first: int | None = None
    for shape in track.shapes:
        if shape.outside and first is not None:
            intervals.append((first, shape.frame))
            first = None
        elif not shape.outside and first is None:
            first = shape.frame
    if first is not None:
        intervals.append((first, end_of_video))
    return intervals


def check_frames(annotations: Annotations, num_frames: int) -> None:
    """Raises a `UserError` if frames are annotated that the video lacks.

    An object must not be seen in one. At the end a few frames may be annotated that
    are not there, as decoders do not count alike.

    Args:
        annotations: the annotations of a video.
        num_frames: frames that the video has.
    """
    for number, track in enumerate(annotations.tracks):
        for shape in reversed(track.shapes):
            if not shape.outside and shape.frame >= num_frames:
                raise UserError(
                    f"'{annotations.path}': track {number} ({track.label!r}) has a "
                    f"{shape.kind} in frame {shape.frame}, but the video holds the "
                    f"frames 0 .. {num_frames - 1} only"
                )
    if annotations.stop_frame >= num_frames + _COUNTED_OTHERWISE:
        raise UserError(
            f"'{annotations.path}' annotates the frames {annotations.start_frame} .. "
            f"{annotations.stop_frame}, but the video holds the frames 0 .. "
            f"{num_frames - 1} only"
        )


def read_cvat(path: Path) -> Annotations:
    """Reads a file of "CVAT for video 1.1"; attributes, tags and the like are ignored.

    Raises:
        UserError: the file cannot be read, is no XML or cut short, has a document type
            (which may define entities without end), is of another format or version,
            or a number is missing, none, or out of its range.
    """
    root = _parse(path)
    if root.tag != "annotations" or root.find("version") is None:
        raise UserError(
            f"'{path}' has the root element <{root.tag}>, but must be CVAT's "
            f'"CVAT for video {VERSION}": <annotations> with a <version>'
        )
    version = (root.findtext("version") or "").strip()
    if version != VERSION:
        raise UserError(
            f"'{path}' has the version {version!r}, but must be \"CVAT for video "
            f'{VERSION}"'
        )
    if root.find("image") is not None:
        raise UserError(
            f"'{path}' holds <image> elements and so is \"CVAT for images\", but must "
            f'be "CVAT for video {VERSION}"'
        )
    task = root.find("meta/task")
    task = root.find("meta/job") if task is None else task
    if task is None:
        raise UserError(
            f"'{path}' has no <task> or <job> in its <meta>, but must be the export of "
            "one task or job (a project's does not tell which video a track is of)"
        )
    size = _meta_number(task, "size", path, minimum=1)
    start = _meta_number(task, "start_frame", path, minimum=0, default=0)
    step = _frame_step(task, path)
    stop = _meta_number(
        task, "stop_frame", path, minimum=start, default=start + (size - 1) * step
    )
    # Where a file says both, the smaller one holds.
    stop = min(stop, start + size * step - 1)
    source = root.findtext("meta/source") or task.findtext("source") or ""
    tracks = tuple(
        _track(element, f"'{path}': track {number}", start, stop, step)
        for number, element in enumerate(root.iterfind("track"))
    )
    return Annotations(source.strip(), start, stop, tracks, str(path))


class _NoDocumentType(ElementTree.TreeBuilder):
    """Builds the tree, but refuses the part of XML in which entities are defined."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called before anything that could refer to an entity."""
        raise ValueError("a document type (DOCTYPE) is not allowed")


def _parse(path: Path) -> Element:
    check_regular(path)
    try:
        parser = ElementTree.XMLParser(target=_NoDocumentType())
        return ElementTree.parse(path, parser).getroot()
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({reason(error)})") from error
    # Unknown encodings are LookupErrors, those of several bytes ValueErrors.
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(
            f"'{path}' is not XML, or cut short ({error}), but must be \"CVAT for "
            f'video {VERSION}"'
        ) from error


def _meta_number(
    parent: Element, name: str, path: Path, minimum: int, default: int | None = None
) -> int:
    text = parent.findtext(name)
    if text is None and default is not None:
        return default
    number = _whole_number(text)
    if number is None or number < minimum:
        found = "no value" if text is None else repr(text)
        raise UserError(
            f"'{path}' has {found} for <{name}>, but it must be a whole number of at "
            f"least {minimum}"
        )
    return number


def _frame_step(task: Element, path: Path) -> int:
    """Every which frame of the video is in the task: <frame_filter>step=5</...>."""
    text = (task.findtext("frame_filter") or "").strip()
    step = _whole_number(text.replace(" ", "").removeprefix("step=")) if text else 1
    if step is None or step < 1:
        raise UserError(
            f"'{path}' has {text!r} for <frame_filter>, but it must be empty or "
            "step=N with N at least 1"
        )
    return step


def _whole_number(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def _track(element: Element, where: str, start: int, stop: int, step: int) -> Track:
    label = element.get("label")
    if not label:
        raise UserError(f"{where} has no label, but every track must have one")
    where = f"{where} ({label!r})"
    by_frame: dict[int, Shape] = {}
    for child in element:
        if child.tag in SHAPES:
            shape = _shape(child, where, start, stop, step)
            by_frame[shape.frame] = shape
    return Track(label, tuple(by_frame[frame] for frame in sorted(by_frame)))


def _shape(element: Element, where: str, start: int, stop: int, step: int) -> Shape:
    kind = element.tag
    text = element.get("frame")
    frame = _whole_number(text)
    if frame is None:
        found = "without a frame" if text is None else f"with the frame {text!r}"
        raise UserError(f"{where} has a {kind} {found}: it must be a whole number")
    # A skeleton's points are elements of their own.
    parts = element.findall("*[@outside]") if kind == "skeleton" else []
    flags = [part.get("outside") for part in parts or [element]]
    for flag in flags:
        if flag not in ("0", "1", None):
            raise UserError(
                f"{where} has outside={flag!r} in frame {frame}, but it must be '0' or "
                "'1'"
            )
    outside = all(flag == "1" for flag in flags)
    # What closes a track may lie one step behind the last frame.
    last = stop + step if outside else stop
    if not start <= frame <= last:
        raise UserError(
            f"{where} has a {kind} in frame {frame}, but the file's frames are "
            f"{start} .. {stop} (start_frame, stop_frame, size)"
        )
    return Shape(kind, frame, outside)
