"""Prepares the videos below a folder."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from convlstm_jax.data.frame_fitting import fit_frame
from convlstm_jax.data.prepared import VIDEOS
from convlstm_jax.data.preparing import Item, Opened, Report, Work, prepare
from convlstm_jax.data.video_opening import conditions_of
from convlstm_jax.data.video_readers import open_reader
from convlstm_jax.data.video_search import find_videos
from convlstm_jax.errors import UserError


def prepare_videos(
    path: str,
    output: Path,
    *,
    settings: Mapping[str, Any],
    condition: str = "",
    report: Report,
) -> dict[str, Any]:
    """Decodes the videos below a folder once and writes their frames.

    Args:
      path: the folder, see `find_videos`.
      output: see `prepare`.
      settings: the arguments of `open_video` by name, with "bad_files" for
        `bad_frames`.
      condition: see `condition_pattern`; of each video its condition is written down.
      report: see `prepare`.

    Returns:
      The manifest, see `prepare`.

    Raises:
      UserError: there are no videos, or `prepare` raises it.
    """
    found = find_videos(path)
    if not found:
        raise UserError(f"The folder '{path}' holds no video and no pictures.")
    conditions = conditions_of(found, condition, settings["bad_files"])
    items = [
        Item(
            one.name,
            one.path,
            {"condition": "" if conditions is None else conditions[index]},
            partial(open_fitted, one.path, settings),
        )
        for index, one in enumerate(found)
    ]
    plain = json.loads(json.dumps(settings))
    return prepare(Work(VIDEOS, path, plain, items), output, report)


def open_fitted(path: Path, settings: Mapping[str, Any]) -> Opened:
    """Opens a video whose frames are fitted to one size, as `open_video` does.

    Args:
      path: the video.
      settings: see `prepare_videos`; value range and variable may be missing.

    Raises:
      UnreadableVideo: it is damaged, or does not hold what is asked for.
      UserError: see `open_reader`.
    """
    crop_box = tuple(settings["crop_box"])
    height, width, channels = (
        settings[name] for name in ("height", "width", "channels")
    )
    reader = open_reader(
        path,
        channels,
        strict=settings["bad_files"] == "refuse",
        crop_box=crop_box,
        value_range=tuple(settings.get("value_range", ())),
        variable=settings.get("variable", ""),
    )
    fit = partial(fit_frame, height=height, width=width, crop_box=crop_box)
    return Opened(reader, (height, width, channels), fit)
