"""Annotations of videos as CVAT writes them: its XML format "CVAT for video 1.1".

The format, as far as it matters here: `annotations/meta` holds one `task` (or `job`)
with the number of its frames (`size`) and the first and last of them (`start_frame`,
`stop_frame`); each `track` has a `label` and a shape (`box`, `points`, `polygon`, ...)
for every frame in which something changes. Frames are counted from 0 in the *video*,
also where a task starts later or leaves frames out. A shape with `outside="1"` says
that from this frame on the object is not to be seen.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from convlstm_jax.errors import UserError

VERSION = "1.1"

POINT_LISTS = ("points", "polygon", "polyline")
OTHER_SHAPES = ("cuboid", "ellipse", "mask", "skeleton")
"""Shapes whose outline is not read; a skeleton's points are elements of their own."""


@dataclass(frozen=True)
class Shape:
    """What a track is in one frame, and in those after it until its next shape.

    Attributes:
      kind: the XML element: "box", "points", "polygon", "polyline", or one whose
        outline is not read: "cuboid", "ellipse", "mask", "skeleton".
      frame: number of the frame in the video, from 0.
      outside: whether the object is not to be seen from this frame on.
      points: (x, y) in pixels; of a box the upper left and the lower right corner;
        empty for the kinds whose outline is not read.
    """

    kind: str
    frame: int
    outside: bool
    points: tuple[tuple[float, float], ...] = ()


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
      size: frames that were annotated.
      start_frame: the first of them, counted in the video.
      stop_frame: the last of them.
      width: frame width in pixels; 0 where the XML does not tell.
      height: frame height in pixels; 0 where the XML does not tell.
      tracks: the objects.
      path: the file read, for messages; two annotations may differ in it and be equal.
    """

    source: str
    size: int
    start_frame: int
    stop_frame: int
    width: int
    height: int
    tracks: tuple[Track, ...]
    path: str = field(default="", compare=False)


# Frames by which decoders differ over the length of a video.
_COUNTED_OTHERWISE = 3


def event_intervals(
    annotations: Annotations, labels: Iterable[str]
) -> tuple[tuple[int, int], ...]:
    """The frames in which a track of one of the labels is to be seen.

    A track is seen from a shape that is not outside to its next one that is, or to
    the last frame annotated.

    Args:
      annotations: the annotations of a video.
      labels: the labels that make an event.

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
                    f"frames 0 .. {num_frames - 1} only."
                )
    if annotations.stop_frame >= num_frames + _COUNTED_OTHERWISE:
        raise UserError(
            f"'{annotations.path}' annotates the frames {annotations.start_frame} .. "
            f"{annotations.stop_frame}, but the video holds the frames 0 .. "
            f"{num_frames - 1} only."
        )


def write_cvat(path: str | Path, annotations: Annotations) -> None:
    """Writes a file of "CVAT for video 1.1" as CVAT and `read_cvat` read it.

    Args:
      path: the file to write.
      annotations: what to write: boxes, points, polygons and polylines only;
        coordinates are rounded to hundredths of a pixel, as CVAT does.

    Raises:
      ValueError: a shape is of a kind whose outline cannot be written.
      OSError: the file system refuses.
    """
    root = Element("annotations")
    _add(root, "version", VERSION)
    meta = _add(root, "meta")
    task = _add(meta, "task")
    for name in ("size", "start_frame", "stop_frame"):
        _add(task, name, str(getattr(annotations, name)))
    _add(task, "mode", "interpolation")
    labels = _add(task, "labels")
    for label in sorted({track.label for track in annotations.tracks}):
        _add(_add(labels, "label"), "name", label)
    if annotations.width and annotations.height:
        original = _add(task, "original_size")
        _add(original, "width", str(annotations.width))
        _add(original, "height", str(annotations.height))
    _add(task, "source", annotations.source)
    for number, track in enumerate(annotations.tracks):
        attributes = {"id": str(number), "label": track.label, "source": "manual"}
        parent = ElementTree.SubElement(root, "track", attributes)
        for shape in track.shapes:
            ElementTree.SubElement(parent, shape.kind, _shape_attributes(shape))
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _add(parent: Element, name: str, text: str | None = None) -> Element:
    element = ElementTree.SubElement(parent, name)
    element.text = text
    return element


def _shape_attributes(shape: Shape) -> dict[str, str]:
    attributes = {
        "frame": str(shape.frame),
        "keyframe": "1",
        "outside": str(int(shape.outside)),
        "occluded": "0",
        "z_order": "0",
    }
    if shape.kind == "box":
        (left, top), (right, bottom) = shape.points
        corners = {"xtl": left, "ytl": top, "xbr": right, "ybr": bottom}
        return attributes | {name: f"{value:.2f}" for name, value in corners.items()}
    if shape.kind in POINT_LISTS:
        pairs = ";".join(f"{x:.2f},{y:.2f}" for x, y in shape.points)
        return attributes | {"points": pairs}
    raise ValueError(
        f"A shape is a {shape.kind!r}, but only {('box', *POINT_LISTS)} can be written."
    )
