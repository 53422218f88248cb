"""Finds and opens the videos of a folder together with their annotations."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from convlstm_jax.data.clip_files import CLIP_SUFFIXES
from convlstm_jax.data.cvat import Annotations, check_frames
from convlstm_jax.data.cvat_reading import read_cvat
from convlstm_jax.data.pictures import PICTURE_SUFFIXES
from convlstm_jax.data.video_frames import BadFrames, Video, open_video
from convlstm_jax.errors import UserError

SHARED_NAME = "annotations.xml"
"""What CVAT calls an export; one in a folder names its video as the source."""


@dataclass(frozen=True)
class FoundAnnotated:
    """A video before it is opened.

    Attributes:
      name: the path from the folder searched, with "/" whatever the system.
      path: where it is.
      annotations: its annotations; None if it has no sound ones.
      problem: a sentence on why so, "" if it has.
    """

    name: str
    path: Path
    annotations: Annotations | None
    problem: str = ""


@dataclass(frozen=True, eq=False)
class AnnotatedVideo:
    """A video and what is to be seen in it.

    Attributes:
      name: the path from the folder searched, with "/" whatever the system.
      video: its frames.
      annotations: its annotations.
    """

    name: str
    video: Video
    annotations: Annotations


def open_annotated_videos(
    path: str | Path,
    *,
    height: int,
    width: int,
    channels: int,
    crop_box: tuple[int, ...] = (),
    bad_files: BadFrames = "refuse",
) -> tuple[list[AnnotatedVideo], list[str]]:
    """Opens every video below a folder that has "CVAT for video 1.1" XML beside it.

    Args:
      path: the folder, see `find_annotated_videos`.
      height: H of the frames, pixels; videos of another size are resized.
      width: W of the frames, pixels.
      channels: C of the frames.
      crop_box: part of the frames that is used, see `open_video`.
      bad_files: "refuse" raises an error at the first video that is damaged or without
        sound annotations; "skip" uses of damaged videos what can be read, and leaves
        out those without annotations or whose annotations do not fit.

    Returns:
      The videos by name, and a clause for each file that was left out, whole or in
      part, why so.

    Raises:
      UserError: the folder is missing or holds no video with annotations, or a file is
        to be refused.
    """
    videos: list[AnnotatedVideo] = []
    left_out: list[str] = []
    others: list[str] = []
    for problems, found in find_annotated_videos(path):
        if problems and bad_files == "refuse":
            raise UserError(problems[0])
        others += problems
        for one in found:
            try:
                if one.annotations is None:
                    raise UserError(one.problem)
                video = open_video(
                    one.path,
                    height=height,
                    width=width,
                    channels=channels,
                    crop_box=crop_box,
                    bad_frames=bad_files,
                )
                # Of a video that ends early, the annotations may well tell more.
                if not video.problem:
                    check_frames(one.annotations, video.num_frames)
            except UserError as error:
                if bad_files == "refuse":
                    raise
                left_out.append(str(error).rstrip("."))
            else:
                if video.problem:
                    left_out.append(told_part(one.name, video))
                videos.append(AnnotatedVideo(one.name, video, one.annotations))
    return in_order(videos, [*others, *left_out], path)


def find_annotated_videos(
    path: str | Path,
) -> Iterator[tuple[list[str], list[FoundAnnotated]]]:
    """Searches a folder for videos that have "CVAT for video 1.1" XML beside them.

    A video is a file of a kind that `open_video` reads, or a folder with pictures and
    no such file. Its annotations are in the XML file of the same name ("a.xml" for
    "a.mp4"), or in "annotations.xml" in the same folder if that names it as its source
    or it is the only video there. Hidden files and folders are passed over.

    Args:
      path: the folder.

    Yields:
      For each folder with videos in it what is wrong with its "annotations.xml", and
      the videos by name.

    Raises:
      UserError: the folder is missing.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(
            f"path is '{path}', but must be a folder of videos and CVAT's XML files."
        )
    for folder, files in _folders_of_videos(root):
        sources, problems = _annotation_files(folder, files)
        yield problems, [_with_annotations(root, file, sources) for file in files]


def _with_annotations(
    root: Path, file: Path, sources: dict[Path, Path]
) -> FoundAnnotated:
    name = file.relative_to(root).as_posix()
    if file not in sources:
        problem = (
            f"'{file}' has no annotations, but '{_own_xml(file).name}' must lie beside "
            f"it, or '{SHARED_NAME}' with '{file.name}' as its <source>."
        )
        return FoundAnnotated(name, file, None, problem)
    try:
        return FoundAnnotated(name, file, read_cvat(sources[file]))
    except UserError as error:
        return FoundAnnotated(name, file, None, str(error))


def told_part(name: str, video: Video) -> str:
    """A clause on a video that is left out in part."""
    return f"part of '{name}' ({video.problem})"


def in_order(
    videos: list[AnnotatedVideo], left_out: list[str], path: str | Path
) -> tuple[list[AnnotatedVideo], list[str]]:
    """The videos by name, and what was left out.

    Raises:
      UserError: there is no video.
    """
    if not videos:
        why = f" ({left_out[0]})" if left_out else ""
        raise UserError(
            f"path is '{path}', but there is no video with annotations in it{why}."
        )
    return sorted(videos, key=lambda video: video.name), left_out


def _folders_of_videos(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder at or below one that has videos in it, and these."""
    by_folder: dict[Path, list[Path]] = {}
    for name, folders, files in os.walk(root):
        folder = Path(name)
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        shown = sorted(entry for entry in files if not entry.startswith("."))
        clips = [entry for entry in shown if entry.lower().endswith(CLIP_SUFFIXES)]
        if clips:
            by_folder.setdefault(folder, []).extend(folder / clip for clip in clips)
        elif folder != root and any(
            entry.lower().endswith(PICTURE_SUFFIXES) for entry in shown
        ):
            by_folder.setdefault(folder.parent, []).append(folder)
    yield from sorted(by_folder.items())


def _own_xml(video: Path) -> Path:
    return video.with_name(f"{video.name if video.is_dir() else video.stem}.xml")


def _annotation_files(
    folder: Path, videos: list[Path]
) -> tuple[dict[Path, Path], list[str]]:
    """The XML file of each video of a folder, and what is wrong with a shared one."""
    found = {video: _own_xml(video) for video in videos if _own_xml(video).is_file()}
    shared = folder / SHARED_NAME
    others = [video for video in videos if video not in found]
    if not others or not shared.is_file():
        return found, []
    try:
        # Annotators on Windows may leave a whole path.
        source = PureWindowsPath(read_cvat(shared).source)
    except UserError as error:
        return found, [str(error).rstrip(".")]
    named = [video for video in others if video.name == source.name]
    named = named or [video for video in others if _own_xml(video).stem == source.stem]
    for video in named or (videos if len(videos) == 1 else []):
        found[video] = shared
    return found, []
