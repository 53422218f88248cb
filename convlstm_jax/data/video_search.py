"""Finds the videos below a folder, and what each was taken under."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from convlstm_jax.data.clip_files import OPENED_SUFFIXES
from convlstm_jax.data.pictures import is_picture_name, natural_order, reason
from convlstm_jax.errors import UserError


@dataclass(frozen=True)
class FoundVideo:
    """A video file, an array, or a folder with pictures in it.

    Attributes:
      path: where it is.
      name: its path below the folder searched, with "/" between the levels.
    """

    path: Path
    name: str


def find_videos(folder: str | Path) -> list[FoundVideo]:
    """Searches a folder and the folders in it, however deep, following links.

    Each video file, GIF and array (`.npy`, `.npz`, `.nc`, a `.zarr` folder) is a video,
    and so is each folder that directly holds pictures. Hidden files and folders are
    passed over, as is all else. A folder that cannot be read counts as a video that
    cannot: opening it says why.

    Args:
      folder: the folder, which may be one of pictures itself; or one video file.

    Returns:
      The videos in the natural order of their names; may be empty.

    Raises:
      UserError: there is no such folder, or it cannot be read.
    """
    root = Path(folder).expanduser()
    if root.is_file() or _is_store(root):
        return [FoundVideo(root, root.name)]
    if not root.is_dir():
        raise UserError(
            f"path is '{root}', but must be a folder of videos, or one video."
        )
    videos: list[FoundVideo] = []
    _search(root, root, set(), videos)
    videos.sort(key=lambda video: (natural_order(video.name), video.name))
    return videos


def _search(root: Path, folder: Path, seen: set[str], videos: list[FoundVideo]) -> None:
    """Adds the videos of a folder and those below it; `seen` ends circles of links."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    holds_pictures = False
    try:
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith("."):
                continue
            if _is_store(entry):
                videos.append(FoundVideo(entry, entry.relative_to(root).as_posix()))
            elif entry.is_dir():
                _search(root, entry, seen, videos)
            elif entry.suffix.lower() in OPENED_SUFFIXES:
                videos.append(FoundVideo(entry, entry.relative_to(root).as_posix()))
            elif is_picture_name(entry.name):
                holds_pictures = True
    except OSError as error:
        if folder == root:
            raise UserError(
                f"The folder '{folder}' cannot be read ({reason(error)})."
            ) from error
        holds_pictures = True  # For all that one can tell.
    if holds_pictures:
        name = folder.relative_to(root).as_posix() if folder != root else root.name
        videos.append(FoundVideo(folder, name))


def _is_store(path: Path) -> bool:
    """Tells whether this is a Zarr store: a folder that holds an array in pieces."""
    return path.suffix.lower() == ".zarr" and path.is_dir()


def condition_pattern(condition: str) -> re.Pattern[str] | None:
    """Reads the rule that gives each video its condition.

    Args:
      condition: "" for no conditions; "folder" for the first level of the video's name;
        else a regular expression with one group, searched for in the name.

    Returns:
      A pattern whose one group is the condition, None for no conditions.

    Raises:
      UserError: the expression is none, or has another number of groups.
    """
    if not condition:
        return None
    try:
        pattern = re.compile(r"^([^/]+)/" if condition == "folder" else condition)
    except re.error as error:
        raise UserError(
            f"condition is {condition!r}, which is no regular expression ({error})."
        ) from error
    if pattern.groups != 1:
        raise UserError(
            f"condition is {condition!r} with {pattern.groups} groups, but a regular "
            "expression must have one, such as 'flow_([0-9.]+)'."
        )
    return pattern


def condition_of(pattern: re.Pattern[str], name: str) -> str:
    """The condition that a video's name holds, "" if it holds none."""
    match = pattern.search(name)
    return (match.group(1) or "") if match else ""
