"""What a data set reads: a table of films, numbers of clips, and a contact sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from convlstm_jax.data.base import DataConfig
from convlstm_jax.data.files import plural
from convlstm_jax.data.sources import Sources
from convlstm_jax.data.split import SPLITS
from convlstm_jax.data.video.config import FilmFields
from convlstm_jax.errors import UserError

MIN_CLIPS = 20
"""Clips of a split below which its metrics are little more than chance."""

_SHEET_CLIPS, _SHEET_FRAMES, _SHEET_HEIGHT = 4, 6, 96
_COLUMNS = ("film", "frames", "size", "rate", "condition", "split", "left out")


@dataclass(frozen=True)
class Inspection:
    """What was found.

    Attributes:
        lines: the report, a line each.
        sources: the clips; None if there are none to train on.
        problem: why there are none.
    """

    lines: tuple[str, ...]
    sources: Sources | None
    problem: str = ""


def inspect(config: DataConfig, *, num_frames: int, seed: int) -> Inspection:
    """Reads all data of a data set and tells what is in them.

    Args:
        config: the data set.
        num_frames: frames per clip.
        seed: the training seed.

    Raises:
        UserError: the data are not there at all.
    """
    lines: list[str] = []
    refused = sources = None
    problem = ""
    if isinstance(config, FilmFields):
        # Everything that is wrong is to be seen at once.
        skipping = config.model_copy(update={"bad_files": "skip"})
        films = skipping.films()
        refused = config.bad_files == "refuse" and next(
            (film.problem for film, _ in films if film.problem), None
        )
    else:
        skipping, films = config, []
    try:
        sources = skipping.sources(num_frames=num_frames, seed=seed)
    except UserError as error:
        problem = str(error)
    if films:
        of_split = _films_of_splits(sources)
        rows = [
            (
                film.name,
                str(film.num_frames - len(film.holes)),
                "x".join(map(str, film.size)),
                f"{film.rate:.4g}/s" if film.rate else "",
                condition,
                " ".join(s for s in SPLITS if film.name in of_split.get(s, ())),
                film.problem,
            )
            for film, condition in films
        ]
        lines += _table(_COLUMNS, rows)
        lengths = sorted((film.num_frames, film.name) for film, _ in films)
        lines.append(
            f"{plural(len(films), 'film')}, {sum(n for n, _ in lengths)} frames; "
            f"shortest: {lengths[0][1]} ({lengths[0][0]}), longest: {lengths[-1][1]} "
            f"({lengths[-1][0]})"
        )
    if sources is not None:
        lines.append(sources.description)
        lines += _counts(sources, num_frames)
    if problem:
        lines.append(f"No training: {problem}")
    elif refused:
        lines.append(
            "Training stops at the first film of which something is left out, unless "
            "config.data.bad_files=skip"
        )
    return Inspection(tuple(lines), sources, problem)


def _films_of_splits(sources: Sources | None) -> dict[str, set[str]]:
    if sources is None:
        return {}
    return {split: set(getattr(sources, split).film_names) for split in SPLITS}


def _counts(sources: Sources, num_frames: int) -> list[str]:
    lines = []
    for split in SPLITS:
        count = len(getattr(sources, split))
        warning = ""
        if count < MIN_CLIPS:
            warning = f": warning: fewer than {MIN_CLIPS} tell little"
        lines.append(
            f"{split}: {plural(count, 'clip')} of {num_frames} frames{warning}"
        )
    return lines


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns one below the other; columns without values are left out."""
    used = [i for i in range(len(head)) if any(row[i] for row in rows)]
    widths = {i: max(len(row[i]) for row in [head, *rows]) for i in used}
    return [
        "  ".join(row[i].ljust(widths[i]) for i in used).rstrip()
        for row in [head, *rows]
    ]


def contact_sheet(sources: Sources, path: Path) -> None:
    """Draws the first clips of each split, a row each, as a PNG.

    Raises:
        OSError: the file cannot be written.
    """
    rows = []
    for split in SPLITS:
        source = getattr(sources, split)
        for index in range(min(_SHEET_CLIPS, len(source))):
            frames = np.asarray(source[index]["frames"])
            if frames.dtype != np.uint8:
                frames = np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)
            chosen = np.linspace(0, len(frames) - 1, min(_SHEET_FRAMES, len(frames)))
            rows.append((f"{split} {index}", frames[np.rint(chosen).astype(int)]))
    height, width = sources.height, sources.width
    scale = max(1, _SHEET_HEIGHT // height)
    tile, label, gap = (width * scale, height * scale), 14, 4
    columns = max(len(frames) for _, frames in rows)
    sheet = Image.new(
        "RGB",
        (columns * (tile[0] + gap) + gap, len(rows) * (tile[1] + label + gap) + gap),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    for row, (name, frames) in enumerate(rows):
        top = gap + row * (tile[1] + label + gap)
        draw.text((gap, top), name, fill="black")
        for column, frame in enumerate(frames):
            shown = frame if frame.shape[-1] == 3 else np.repeat(frame[..., :1], 3, -1)
            picture = Image.fromarray(shown).resize(tile, Image.Resampling.NEAREST)
            sheet.paste(picture, (gap + column * (tile[0] + gap), top + label))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "PNG")
