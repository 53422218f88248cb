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

    Of those that are there at first, the newest counts as new. Of several that come at
    once each gets a clip, in the order of time. A file that still grows, or cannot be
    read, is waited for during a time step, and then passed over with `bad_files` of
    "skip". What prevents a forecast is said once. Also returns the time of the last
    composite, and when reading it began, by `time.monotonic`.
    """
    done, issued = None, datetime.min
    before, since, told = None, time.monotonic(), ""
    while True:
        try:
            of_folder, files, _ = look_into(str(folder), config)
            if not files:
                raise UserError(f"'{folder}' holds no composite")
            done = done or max((one.time for one in files[:-1]), default=datetime.min)
            new = [one for one in files if one.time > done]
            if new and (seen := (new[0], new[0].path.stat().st_size)) != before:
                before, since = seen, time.monotonic()
            elif new:
                now, started = new[0].time, time.monotonic()
                try:
                    clip = config.read_input(str(folder), num_frames, now)
                except UserError:
                    done = now if new[1:] else done  # A later one may be possible.
                    raise
                last = clip.times[-1] if clip.times else issued
                minutes = (started - since) / 60
                if last < now and minutes >= of_folder.time_step_minutes:
                    say(f"passed over, as it cannot be read: '{new[0].name}'")
                    done = now
                if last > issued and now in (last, done):
                    done, issued, told = now, last, ""
                    yield clip, last, started
        except (UserError, OSError) as error:
            # A file may also vanish; what comes next may mend it.
            if str(error) != told:
                say(f"waiting: {error}")
            told = str(error)
        time.sleep(_POLL_SECONDS)
