"""`--mode=inspect`: what the program reads, before anyone trains on it."""

from pathlib import Path

import numpy as np

from convlstm_jax.data.base import DataConfig
from convlstm_jax.data.files import reason
from convlstm_jax.data.inspect import contact_sheet, inspect
from convlstm_jax.data.video.config import FilmFields
from convlstm_jax.errors import UserError

SHEET_FILE = "contact_sheet.png"


def run(
    data_config: DataConfig,
    num_frames: int,
    seed: int,
    input_path: Path | None = None,
    output_path: Path | None = None,
) -> None:
    """Prints what a data set holds, and draws some of its clips.

    Args:
        data_config: the data set.
        num_frames: frames per clip.
        seed: the training seed.
        input_path: a file; its frames are written instead, as they are read.
        output_path: the `.npy` to write them to, uint8 `[N, H, W, C]`; without
            `input_path` the `.png` of the contact sheet.

    Raises:
        UserError: the data cannot be read, or the output cannot be written.
    """
    if input_path is not None:
        _write_frames(data_config, input_path, output_path)
        return
    sheet = output_path or Path(SHEET_FILE)
    if sheet.suffix.lower() != ".png":
        raise UserError(f"--output={sheet} is of another kind: it must be a .png file")
    found = inspect(data_config, num_frames=num_frames, seed=seed)
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
    partial = output_path.with_name(f".{output_path.name}.partial")
    try:
        output_path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.save(file, frames)
        partial.replace(output_path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"'{output_path}' cannot be written ({reason(error)})"
        ) from error
    left_out = f"; left out: {film.problem}" if film.problem else ""
    print(f"{output_path}: {len(frames)} frames of {input_path}{left_out}")
