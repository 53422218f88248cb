"""A report on a data set: films and numbers of clips."""

from collections.abc import Sequence

from convlstm_jax.data.base import DataConfig
from convlstm_jax.data.files import plural
from convlstm_jax.data.sources import SPLITS, Sources
from convlstm_jax.data.video.config import FilmFields
from convlstm_jax.data.video.film import Film
from convlstm_jax.errors import UserError

MIN_CLIPS = 20
"""With fewer clips, the metrics of a split tell little."""

_COLUMNS = ("film", "frames", "size", "rate", "condition", "split", "left out")


def inspect(
    config: DataConfig, *, num_frames: int, seed: int
) -> tuple[list[str], Sources | None, str]:
    """Reads all data of a data set, with `num_frames` in each clip.

    Returns the lines of a report; and the clips, or the reason there are none.
    """
    films: list[Film] = []
    refused = False
    if isinstance(config, FilmFields):
        refused = config.bad_files == "refuse"
        config = config.model_copy(update={"bad_files": "skip"})  # To report them all.
        films = config.films()
    sources, problem = None, ""
    try:
        sources = config.sources(num_frames=num_frames, seed=seed)
    except UserError as error:
        problem = str(error)
    lines = _film_lines(films, sources) if films else []
    if sources is not None:
        lines.append(sources.description)
        for split in SPLITS:
            count = len(getattr(sources, split))
            few = f": warning: fewer than {MIN_CLIPS} tell little"
            told = f"{split}: {plural(count, 'clip')} of {num_frames} frames"
            lines.append(told + (few if count < MIN_CLIPS else ""))
    if problem:
        lines.append(f"No training: {problem}")
    elif refused and any(film.problem for film in films):
        lines.append(
            "Training stops at the first film of which something is left out, unless "
            "config.data.bad_files=skip"
        )
    return lines, sources, problem


def _film_lines(films: Sequence[Film], sources: Sources | None) -> list[str]:
    """A table of the films, their number and lengths."""
    names = {
        split: set(getattr(sources, split).film_names) if sources else set()
        for split in SPLITS
    }
    rows = [_COLUMNS] + [
        (
            film.name,
            str(film.num_frames - len(film.holes)),
            "x".join(map(str, film.size)),
            f"{film.rate:.4g}/s" if film.rate else "",
            film.condition,
            " ".join(split for split in SPLITS if film.name in names[split]),
            film.problem,
        )
        for film in films
    ]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(map(str.ljust, row, widths)).rstrip()
        for row in zip(*columns, strict=True)
    ]
    lengths = sorted((film.num_frames, film.name) for film in films)
    (short, shortest), (long, longest) = lengths[0], lengths[-1]
    total = sum(length for length, _ in lengths)
    return [
        *lines,
        f"{plural(len(films), 'film')}, {total} frames; shortest: {shortest} "
        f"({short}), longest: {longest} ({long})",
    ]
