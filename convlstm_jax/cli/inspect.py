"""`--mode=inspect`: shows how data are read, before any training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.cli.experiment import Experiment
from convlstm_jax.data.base import DataConfig
from convlstm_jax.data.files import plural
from convlstm_jax.data.sources import SPLITS, Sources
from convlstm_jax.data.video.config import FilmFields
from convlstm_jax.data.video.film import Film
from convlstm_jax.errors import UserError
from convlstm_jax.viz import pixels as px
from convlstm_jax.viz.film_strip import Row, draw_strip, selection

_MIN_CLIPS = 20  # With fewer clips, the metrics of a split are unreliable.
_COLUMNS = ("film", "frames", "size", "rate", "condition", "split", "left out")
_SHEET_CLIPS, _SHEET_FRAMES, _FRAME_SIZE = 4, 6, 96


def run(experiment: Experiment, *, input: Path | None, output: Path | None) -> None:
    """Prints a summary of a data set and draws some of its clips.

    `output` is the `.png` file of the contact sheet. With `input`, a file, its frames
    as they are read are written into the `.npy` file `output` instead, uint8
    `[N, H, W, C]`.
    """
    if input is not None:
        _write_frames(experiment.data, input, output)
        return
    output = output or Path("contact_sheet.png")
    if output.suffix.lower() != ".png":
        raise UserError(f"--output={output} is of another kind: it must be a .png file")
    lines, sources, problem = _report(
        experiment.data,
        num_frames=experiment.task.clip_length,
        seed=experiment.general.seed,
    )
    print("\n".join(lines))
    if sources is None:
        raise UserError(problem)
    _draw_clips(sources, output)
    print(f"{output}: the first clips of each split")


def _report(
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
            few = f": warning: fewer than {_MIN_CLIPS} give unreliable metrics"
            told = f"{split}: {plural(count, 'clip')} of {num_frames} frames"
            lines.append(told + (few if count < _MIN_CLIPS else ""))
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


def _draw_clips(sources: Sources, path: Path) -> None:
    """Draws the first clips of each split, a row each, as a PNG."""
    rows = []
    for split in SPLITS:
        source = getattr(sources, split)
        films = getattr(source, "film_names", [])
        for index in range(min(_SHEET_CLIPS, len(source))):
            frames = source[index]["frames"]
            frames = frames[selection(len(frames), _SHEET_FRAMES)]
            if frames.dtype == np.uint8:
                frames = frames / np.float32(255)
            film = px.shortened(films[index], 32) if films else ""
            pictures = list(px.fit(px.to_pixels(frames), _FRAME_SIZE))
            rows.append(
                Row([(f"{split} {index}", {}), (film, {})], px.INPUT_COLOUR, pictures)
            )
    draw_strip(rows).save(path)


def _write_frames(data: DataConfig, input_path: Path, output: Path | None) -> None:
    if output is None or output.suffix.lower() != ".npy":
        raise UserError(
            f"--output={output or ''} is of another kind: it must be a .npy file"
        )
    if not isinstance(data, FilmFields):
        raise UserError(
            f"--input={input_path} cannot be read with config.data.name={data.name!r}: "
            "config.data.path must be set to a folder of films"
        )
    film = data.open_film(str(input_path))
    readable = [n for n in range(film.num_frames) if n not in film.holes]
    frames = np.concatenate([film.read(n, 1) for n in readable or [0]])
    with atomic_file(output) as partial, partial.open("wb") as file:
        np.save(file, frames)
    left_out = f"; left out: {film.problem}" if film.problem else ""
    print(f"{output}: {len(frames)} frames of {input_path}{left_out}")
