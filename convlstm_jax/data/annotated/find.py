"""Finds the films below a folder together with their annotations."""

from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from convlstm_jax.data.annotated.cvat import Annotations, read_cvat
from convlstm_jax.data.video.find import find_films
from convlstm_jax.errors import UserError

SHARED_NAME = "annotations.xml"
"""What CVAT calls an export; one in a folder names its video as the source."""


@dataclass(frozen=True)
class FoundAnnotated:
    """A film before it is opened.

    Attributes:
        path: where it is.
        name: its path below the folder searched, with "/" between the levels.
        annotations: its annotations; None if it has no sound ones.
        problem: a sentence on why so, "" if it has.
    """

    path: Path
    name: str
    annotations: Annotations | None
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
    if file not in sources:
        problem = (
            f"'{file}' has no annotations, but '{_own_xml(file).name}' must lie beside "
            f"it, or '{SHARED_NAME}' with '{file.name}' as its <source>"
        )
        return FoundAnnotated(file, name, None, problem)
    try:
        return FoundAnnotated(file, name, read_cvat(sources[file]))
    except UserError as error:
        return FoundAnnotated(file, name, None, str(error))


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
