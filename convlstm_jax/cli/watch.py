"""`--mode=predict --watch`: a folder to which composites are added."""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from convlstm_jax.cli.process import say
from convlstm_jax.data.base import InputClip
from convlstm_jax.data.radar.config import RadarConfig
from convlstm_jax.data.radar.folder import look_into
from convlstm_jax.errors import UserError

_POLL_SECONDS = 1.0


def new_clips(
    folder: Path, config: RadarConfig, num_frames: int
) -> Iterator[tuple[InputClip, datetime, float]]:
    """The last composites of a folder, again for each new one; it does not end.

    A newest file that still grows, or cannot be read, is waited for during a time step,
    and then passed over with `bad_files` of "skip". What prevents a forecast is said
    once. Also returns the time of the last composite, and when reading it began, by
    `time.monotonic`.
    """
    done = issued = datetime.min
    before, since, told = None, time.monotonic(), ""
    while True:
        try:
            of_folder, files, _ = look_into(str(folder), config)
            if not files:
                raise UserError(f"'{folder}' holds no composite")
            newest = files[-1]
            size = newest.path.stat().st_size
            if (newest, size) != before:
                before, since = (newest, size), time.monotonic()
            elif newest.time > done:
                started = time.monotonic()
                clip = config.read_input(str(folder), num_frames)
                last = clip.times[-1] if clip.times else issued
                minutes = (started - since) / 60
                if last < newest.time and minutes >= of_folder.time_step_minutes:
                    say(f"passed over, as it cannot be read: '{newest.name}'")
                    done = newest.time
                if last > issued and newest.time in (last, done):
                    done, issued, told = newest.time, last, ""
                    yield clip, last, started
        except (UserError, OSError) as error:
            # A file may also vanish; what comes next may mend it.
            if str(error) != told:
                say(f"waiting: {error}")
            told = str(error)
        time.sleep(_POLL_SECONDS)
