"""Finds the films below a folder, and what each was taken under."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from convlstm_jax.data.files import natural_order, plural, reason
from convlstm_jax.data.video.film import FILM_SUFFIXES, Found
from convlstm_jax.data.video.pictures import (
    PICTURE_SUFFIXES,
    STACK_SUFFIXES,
    has_suffix,
    num_pages,
)
from convlstm_jax.errors import UserError


@dataclass
class LeftOut:
    """What is left out of the data and why: the one list of it.

    Attributes:
        reasons: by the reason, a name or sentence for each.
        noun: what they are, in the singular.
    """

    reasons: dict[str, list[str]] = field(default_factory=dict)
    noun: str = "video"

    def add(self, why: str, what: str) -> None:
        """Adds one thing."""
        self.reasons.setdefault(why, []).append(what.rstrip("."))

    def __str__(self) -> str:
        """By the reason: how many, and the first."""
        return "; ".join(
            f"{plural(len(names), self.noun)} {why} (first: {names[0]})"
            for why, names in self.reasons.items()
        )


def find_films(folder: str | Path, *, beside_files: bool = True) -> list[Found]:
    """Searches a folder and the folders in it, however deep, following links.

    Each video file, GIF and array is a film, and so are TIFF, APNG and WebP files with
    several frames, and each folder that directly holds single pictures. Hidden files
    and folders are passed over, as is all else. A folder that cannot be read counts as
    a film that cannot: opening it says why.

    Args:
        folder: the folder, which may be one of pictures itself; or one film.
        beside_files: whether pictures are a film where film files lie beside them.

    Returns:
        The films in the natural order of their names; may be empty.

    Raises:
        UserError: there is no such folder, or it cannot be read.
    """
    root = Path(folder).expanduser()
    if root.is_file() or _is_store(root):
        return [Found(root, root.name)]
    if not root.is_dir():
        raise UserError(
            f"path is '{root}', but must be a folder of videos, or one video"
        )
    films = list(_search(root, beside_files))
    return sorted(films, key=lambda film: (natural_order(film.name), film.name))


def _search(root: Path, beside_files: bool) -> Iterator[Found]:
    seen: set[tuple[int, int]] = set()
    folders = [(str(root), "")]
    while folders:  # No recursion: folders may be nested deeper than calls can be.
        folder, prefix = folders.pop()
        name = prefix[:-1] or root.name
        files: list[str] = []
        pictures: list[str] = []
        try:
            found = os.stat(folder)
            if (found.st_dev, found.st_ino) in seen:  # Links may lead in circles.
                continue
            seen.add((found.st_dev, found.st_ino))
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.startswith("."):
                        continue
                    is_folder = entry.is_dir()
                    if is_folder and not entry.name.lower().endswith(".zarr"):
                        folders.append((entry.path, f"{prefix}{entry.name}/"))
                    elif is_folder or has_suffix(entry.name, FILM_SUFFIXES):
                        files.append(entry.name)
                    elif has_suffix(entry.name, PICTURE_SUFFIXES):
                        pictures.append(entry.name)
        except OSError as error:
            if not prefix:
                raise UserError(
                    f"The folder '{folder}' cannot be read ({reason(error)})"
                ) from error
            yield Found(Path(folder), name)  # For all that one can tell.
            continue
        # In a folder, the files of one suffix are all stacks or all single pictures.
        for suffix in STACK_SUFFIXES:
            alike = [one for one in pictures if one.lower().endswith(suffix)]
            if alike and num_pages(Path(folder, alike[0])) > 1:
                files += alike
                pictures = [one for one in pictures if one not in alike]
        yield from (Found(Path(folder, one), prefix + one) for one in files)
        if pictures and (beside_files or not files):
            yield Found(Path(folder), name)


def _is_store(path: Path) -> bool:
    """Whether this is a Zarr store: a folder that holds an array in pieces."""
    return path.suffix.lower() == ".zarr" and path.is_dir()


def condition_pattern(condition: str) -> re.Pattern[str] | None:
    """A pattern whose one group, searched for in a film's name, is its condition.

    Raises:
        UserError: the expression is none, or has another number of groups.
    """
    if not condition:
        return None
    try:
        pattern = re.compile(r"^([^/]+)/" if condition == "folder" else condition)
    except re.error as error:
        raise UserError(
            f"condition is {condition!r}, which is no regular expression ({error}): it "
            "must be one with one group, or 'folder', or ''"
        ) from error
    if pattern.groups != 1:
        raise UserError(
            f"condition is {condition!r} with {pattern.groups} groups: it must be a "
            "regular expression with one group, such as 'flow_([0-9.]+)', or 'folder', "
            "or ''"
        )
    return pattern


def condition_of(pattern: re.Pattern[str], name: str) -> str:
    """The condition that a film's name holds, "" if it holds none."""
    match = pattern.search(name)
    return (match.group(1) or "") if match else ""
