"""`--mode=inspect`: shows how data are read, before any training."""

from pathlib import Path

import numpy as np

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.cli.experiment import Experiment
from convlstm_jax.data.base import DataConfig
from convlstm_jax.data.inspect import inspect
from convlstm_jax.data.sources import SPLITS, Sources
from convlstm_jax.data.video.config import FilmFields
from convlstm_jax.errors import UserError
from convlstm_jax.viz import pixels as px
from convlstm_jax.viz.film_strip import Row, draw_strip, selection

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
    lines, sources, problem = inspect(
        experiment.data,
        num_frames=experiment.task.clip_length,
        seed=experiment.general.seed,
    )
    print("\n".join(lines))
    if sources is None:
        raise UserError(problem)
    _draw_clips(sources, output)
    print(f"{output}: the first clips of each split")


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
            lines = [
                f"{split} {index}",
                px.shortened(films[index], 32) if films else "",
            ]
            pictures = list(px.fit(px.to_pixels(frames), _FRAME_SIZE))
            rows.append(Row([(line, {}) for line in lines], px.INPUT_COLOUR, pictures))
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
