"""`--mode=inspect`: shows how data are read, before any training."""

from pathlib import Path

import numpy as np

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.cli.experiment import Experiment
from convlstm_jax.data.base import DataConfig
from convlstm_jax.data.inspect import contact_sheet, inspect
from convlstm_jax.data.video.config import FilmFields
from convlstm_jax.errors import UserError


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
    found = inspect(
        experiment.data,
        num_frames=experiment.task.clip_length,
        seed=experiment.general.seed,
    )
    print("\n".join(found.lines))
    if found.sources is None:
        raise UserError(found.problem)
    with atomic_file(output) as partial:
        contact_sheet(found.sources, partial)
    print(f"{output}: the first clips of each split")


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
