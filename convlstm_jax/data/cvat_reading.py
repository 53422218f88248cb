"""Reads annotations of videos from CVAT's XML; `cvat.py` describes the format."""

import math
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from convlstm_jax.data.cvat import (
    OTHER_SHAPES,
    POINT_LISTS,
    VERSION,
    Annotations,
    Shape,
    Track,
)
from convlstm_jax.errors import UserError


def read_cvat(path: str | Path) -> Annotations:
    """Reads a file of "CVAT for video 1.1".

    Attributes, tags, groups and the like are passed over.

    Args:
      path: the XML file.

    Returns:
      The annotations; without tracks where nothing was annotated.

    Raises:
      UserError: the file cannot be read, is no XML or cut short, has a document type
        (which may define entities without end), is of another format or version, or a
        number is missing, none, or out of its range.
    """
    root = _parse(path)
    if root.tag != "annotations" or root.find("version") is None:
        raise UserError(
            f"'{path}' has the root element <{root.tag}>, but must be CVAT's "
            f'"CVAT for video {VERSION}": <annotations> with a <version>.'
        )
    version = (root.findtext("version") or "").strip()
    if version != VERSION:
        raise UserError(
            f"'{path}' has the version {version!r}, but must be \"CVAT for video "
            f'{VERSION}".'
        )
    if root.find("image") is not None:
        raise UserError(
            f"'{path}' holds <image> elements and so is \"CVAT for images\", but must "
            f'be "CVAT for video {VERSION}".'
        )
    task = root.find("meta/task")
    task = root.find("meta/job") if task is None else task
    if task is None:
        raise UserError(
            f"'{path}' has no <task> or <job> in its <meta>, but must be the export of "
            "one task or job (a project's does not tell which video a track is of)."
        )
    size = _meta_number(task, "size", path, least=1)
    start = _meta_number(task, "start_frame", path, least=0, default=0)
    step = _frame_step(task, path)
    stop = _meta_number(
        task, "stop_frame", path, least=start, default=start + (size - 1) * step
    )
    # Where a file says both, the smaller one holds.
    stop = min(stop, start + size * step - 1)
    source = root.findtext("meta/source") or task.findtext("source") or ""
    picture = root.find("meta/original_size")
    picture = task.find("original_size") if picture is None else picture
    width, height = (
        0 if picture is None else _meta_number(picture, name, path, least=1)
        for name in ("width", "height")
    )
    tracks = tuple(
        _track(element, f"'{path}': track {number}", start, stop, step)
        for number, element in enumerate(root.iterfind("track"))
    )
    return Annotations(
        source.strip(), size, start, stop, width, height, tracks, str(path)
    )


class _NoDocumentType(ElementTree.TreeBuilder):
    """Builds the tree, but refuses the part of XML in which entities are defined."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called before anything that could refer to an entity."""
        raise ValueError("a document type (DOCTYPE) is not allowed")


def _parse(path: str | Path) -> Element:
    try:
        parser = ElementTree.XMLParser(target=_NoDocumentType())
        return ElementTree.parse(path, parser).getroot()
    except OSError as error:
        raise UserError(
            f"'{path}' cannot be read ({error.strerror or error})."
        ) from error
    # Unknown encodings are LookupErrors, those of several bytes ValueErrors.
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(
            f"'{path}' is not XML, or cut short ({error}), but must be \"CVAT for "
            f'video {VERSION}".'
        ) from error


def _meta_number(
    parent: Element,
    name: str,
    path: str | Path,
    least: int,
    default: int | None = None,
) -> int:
    text = parent.findtext(name)
    if text is None and default is not None:
        return default
    number = _whole_number(text)
    if number is None or number < least:
        found = "no value" if text is None else repr(text)
        raise UserError(
            f"'{path}' has {found} for <{name}>, but it must be a whole number of at "
            f"least {least}."
        )
    return number


def _frame_step(task: Element, path: str | Path) -> int:
    """Every which frame of the video is in the task: <frame_filter>step=5</...>."""
    text = (task.findtext("frame_filter") or "").strip()
    step = _whole_number(text.replace(" ", "").removeprefix("step=")) if text else 1
    if step is None or step < 1:
        raise UserError(
            f"'{path}' has {text!r} for <frame_filter>, but it must be empty or "
            "step=N with N at least 1."
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
        raise UserError(f"{where} has no label, but every track needs one.")
    where = f"{where} ({label!r})"
    by_frame: dict[int, Shape] = {}
    for child in element:
        if child.tag in ("box", *POINT_LISTS, *OTHER_SHAPES):
            shape = _shape(child, where, start, stop, step)
            by_frame[shape.frame] = shape
    return Track(label, tuple(by_frame[frame] for frame in sorted(by_frame)))


def _shape(element: Element, where: str, start: int, stop: int, step: int) -> Shape:
    kind = element.tag
    text = element.get("frame")
    frame = _whole_number(text)
    if frame is None:
        found = "without a frame" if text is None else f"with the frame {text!r}"
        raise UserError(
            f"{where} has a {kind} {found}, but each shape needs a whole number."
        )
    parts = element.findall("*[@outside]") if kind == "skeleton" else []
    flags = [part.get("outside") for part in parts or [element]]
    for flag in flags:
        if flag not in ("0", "1", None):
            raise UserError(
                f"{where} has outside={flag!r} in frame {frame}, but it must be '0' or "
                "'1'."
            )
    outside = all(flag == "1" for flag in flags)
    # What closes a track may lie one step behind the last frame.
    last = stop + step if outside else stop
    if not start <= frame <= last:
        raise UserError(
            f"{where} has a {kind} in frame {frame}, but the file's frames are "
            f"{start} .. {stop} (start_frame, stop_frame, size)."
        )
    return Shape(kind, frame, outside, _points(element, f"{where}, frame {frame},"))


def _points(element: Element, where: str) -> tuple[tuple[float, float], ...]:
    if element.tag in OTHER_SHAPES:
        return ()
    names = ("xtl", "ytl", "xbr", "ybr") if element.tag == "box" else ("points",)
    values = [element.get(name, "") for name in names]
    if element.tag == "box":
        pairs = [values[:2], values[2:]]
    else:
        pairs = [pair.split(",") for pair in values[0].split(";")]
    try:
        points = tuple((float(x), float(y)) for x, y in pairs)
    except ValueError:
        points = ((math.nan, math.nan),)
    if not all(math.isfinite(x) and math.isfinite(y) for x, y in points):
        found = ", ".join(f"{name}={element.get(name)!r}" for name in names)
        raise UserError(
            f"{where} has a {element.tag} with {found}, but coordinates must be "
            "numbers, x and y for each point."
        )
    return points
