"""Annotated videos of a prepared folder, and what its manifest says of annotations.

Of a track the manifest holds its label and those shapes, as [kind, frame, outside],
that tell when it is to be seen: the first and the last of each run in which it is, or
is not. Outlines are left out, as no clip is cut by them.
"""

from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from convlstm_jax.data.annotated_videos import AnnotatedVideo, in_order, told_part
from convlstm_jax.data.cvat import Annotations, Shape, Track
from convlstm_jax.data.prepared import ANNOTATED_VIDEOS
from convlstm_jax.data.prepared_videos import PreparedVideos
from convlstm_jax.data.video_frames import BadFrames

_NUMBERS = ("size", "start_frame", "stop_frame", "width", "height")


def annotation_facts(annotations: Annotations, root: Path) -> dict[str, Any]:
    """Annotations as the manifest holds them.

    Args:
      annotations: the annotations of a video.
      root: the folder that was searched, which their file lies in.
    """
    tracks = []
    for track in annotations.tracks:
        runs = (list(run) for _, run in groupby(track.shapes, attrgetter("outside")))
        kept = [shape for run in runs for shape in (run[:1] + run[1:][-1:])]
        told = [[shape.kind, shape.frame, int(shape.outside)] for shape in kept]
        tracks.append([track.label, told])
    return {
        "file": Path(annotations.path).relative_to(root).as_posix(),
        "source": annotations.source,
        **{name: getattr(annotations, name) for name in _NUMBERS},
        "tracks": tracks,
    }


def annotations_of(facts: dict[str, Any], root: Path) -> Annotations:
    """The annotations that `annotation_facts` tells of: the same intervals of events.

    Args:
      facts: what it gave.
      root: the folder that their file is said to lie in, for messages.
    """
    tracks = tuple(
        Track(
            label, tuple(Shape(kind, frame, bool(out)) for kind, frame, out in shapes)
        )
        for label, shapes in facts["tracks"]
    )
    numbers = {name: facts[name] for name in _NUMBERS}
    path = str(root / facts["file"])
    return Annotations(facts["source"], **numbers, tracks=tracks, path=path)


def open_prepared_annotated_videos(
    path: str | Path,
    *,
    height: int,
    width: int,
    channels: int,
    crop_box: tuple[int, ...] = (),
    bad_files: BadFrames = "refuse",
) -> tuple[list[AnnotatedVideo], list[str]]:
    """Opens a prepared folder as `open_annotated_videos` the one it was made from.

    Args:
      path: the folder.
      height: as those below a setting, which the folder must have been prepared with.
      width: see height.
      channels: see height.
      crop_box: see height.
      bad_files: see height.

    Returns:
      See `open_annotated_videos`.

    Raises:
      UserError: see `PreparedFolder`; or it holds no video with annotations.
    """
    settings = {
        "height": height,
        "width": width,
        "channels": channels,
        "crop_box": crop_box,
        "bad_files": bad_files,
    }
    folder = PreparedVideos(path, settings, ANNOTATED_VIDEOS)
    videos: list[AnnotatedVideo] = []
    left_out = [text for texts in folder.left_out.values() for text in texts]
    for one, entry in zip(folder.found, folder.entries, strict=True):
        if entry["annotations"] is None or "left_out" in entry:
            left_out.append(entry["problem"].rstrip("."))
            continue
        video = folder.open_video(one.path)
        if video.problem:
            left_out.append(told_part(one.name, video))
        annotations = annotations_of(entry["annotations"], folder.folder)
        videos.append(AnnotatedVideo(one.name, video, annotations))
    return in_order(videos, left_out, path)
