"""`--mode=inspect`: shows how data are read, before any training."""

from pathlib import Path

import numpy as np

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.cli.experiment import Experiment
from convlstm_jax.data.base import DataConfig
from convlstm_jax.data.files import reason
from convlstm_jax.data.inspect import contact_sheet, inspect
from convlstm_jax.data.video.config import FilmFields
from convlstm_jax.errors import UserError

SHEET_FILE = "contact_sheet.png"


def run(experiment: Experiment, *, input: Path | None, output: Path | None) -> None:
    """Prints a summary of a data set and draws some of its clips.

    Args:
        experiment: The experiment, for its data set.
        input: A file whose frames, as they are read, are written instead.
        output: The `.npy` file for these frames, uint8 `[N, H, W, C]`; without `input`
            the `.png` file of the contact sheet, by default `contact_sheet.png`.

    Raises:
        UserError: the data cannot be read, or the output cannot be written.
    """
    if input is not None:
        _write_frames(experiment.data, input, output)
        return
    sheet = output or Path(SHEET_FILE)
    if sheet.suffix.lower() != ".png":
        raise UserError(f"--output={sheet} is of another kind: it must be a .png file")
    found = inspect(
        experiment.data,
        num_frames=experiment.task.clip_length,
        seed=experiment.general.seed,
    )
    print("\n".join(found.lines))
    if found.sources is None:
        raise UserError(found.problem)
    try:
        contact_sheet(found.sources, sheet)
    except OSError as error:
        raise UserError(f"'{sheet}' cannot be written ({reason(error)})") from error
    print(f"{sheet}: the first clips of each split")


def _write_frames(
    data_config: DataConfig, input_path: Path, output_path: Path | None
) -> None:
    if output_path is None or output_path.suffix.lower() != ".npy":
        raise UserError(
            f"--output={output_path or ''} is of another kind: it must be a .npy file, "
            "for the frames of --input"
        )
    if not isinstance(data_config, FilmFields):
        raise UserError(
            f"--input={input_path} cannot be read with config.data.name="
            f"{data_config.name!r}: config.data.path must be set to a folder of films"
        )
    film = data_config.open_film(str(input_path))
    frames = (
        film.read(0, film.num_frames)
        if not film.holes
        else np.concatenate(
            [film.read(n, 1) for n in range(film.num_frames) if n not in film.holes]
        )
    )
    with atomic_file(output_path) as partial, partial.open("wb") as file:
        np.save(file, frames)
    left_out = f"; left out: {film.problem}" if film.problem else ""
    print(f"{output_path}: {len(frames)} frames of {input_path}{left_out}")
