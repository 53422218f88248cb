"""Small annotated films for tests of the command line."""

import numpy as np

from convlstm_jax.viz.clip_writer import write_clip


def write_annotated_films(folder, num_films=8, length=24, height=32, width=40):
    """Films in which a square grows, in half of them with a theft in the middle."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(num_films):
        rng = np.random.default_rng(number)
        film = np.tile(rng.uniform(0, 0.5, (1, height, width, 3)), (length, 1, 1, 1))
        for time in range(length):
            film[time, 4 : 6 + time, 4:20] = number / num_films
        write_clip(folder / f"film{number}.gif", film)
        box = '<box frame="{}" outside="{}"/>'
        track = f'<track label="theft">{box.format(6, 0)}{box.format(18, 1)}</track>'
        (folder / f"film{number}.xml").write_text(
            "<annotations><version>1.1</version><meta><task>"
            f"<size>{length}</size><start_frame>0</start_frame>"
            f"<stop_frame>{length - 1}</stop_frame><source></source></task></meta>"
            f"{track if number % 2 else ''}</annotations>"
        )
    return folder
