"""Radar composites of a prepared folder, which read like those it was made from."""

import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.data.frame_cache import FrameCache
from convlstm_jax.data.prepared import COMPOSITES, PreparedFolder, read_records
from convlstm_jax.data.radar_events import Composite
from convlstm_jax.data.radar_opening import UNREADABLE
from convlstm_jax.rain import RainScale

TIME_FORMAT = "%Y-%m-%dT%H:%M"
"""How a manifest writes the time of a composite."""

# The pixels of pictures are reflectivities whatever rain is made of them.
_NOT_OF_PICTURES = ("zr_a", "zr_b", "time_step_minutes")

_CACHE = FrameCache()  # One for all splits of the process.


def composite_settings(
    scale: RainScale, how_read: Mapping[str, Any], bad_files: str
) -> dict[str, Any]:
    """What shapes the pixels of composites, by the names of the config's fields.

    Args:
      scale: see `CompositeReader`.
      how_read: the other attributes of `CompositeReader` by name.
      bad_files: "refuse" or "skip", see `radar_sources`.
    """
    settings = {**how_read, **asdict(scale), "bad_files": bad_files}
    if settings["radar_format"] == "picture":
        for name in _NOT_OF_PICTURES:
            del settings[name]
    return settings


@dataclass(frozen=True, eq=False)
class PreparedComposites:
    """Reads composites out of shards as `CompositeReader` reads files.

    Attributes:
      scale: what the pixels mean.
      shape: `[2, H, W]` of a frame.
      places: shard and record of each composite by its path.
    """

    scale: RainScale
    shape: tuple[int, ...]
    places: Mapping[Path, tuple[Path, int]]
    _token: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)

    def read(self, path: Path) -> np.ndarray:
        """Reads one composite; those read last are kept in memory.

        Args:
          path: that of one of the composites opened.

        Returns:
          See `CompositeReader.read`.

        Raises:
          UserError: the shard is damaged.
        """
        key = f"{self._token}:{path}"
        frame = _CACHE.get(key, 0)
        if frame is None:
            shard, record = self.places[path]
            (content,) = read_records(shard, [record])
            frame = np.frombuffer(content, np.uint8).reshape(self.shape)
            _CACHE.put(key, 0, frame)
        return frame


def open_prepared_composites(
    path: str | Path, scale: RainScale, how_read: Mapping[str, Any], bad_files: str
) -> tuple[list[Composite], dict[str, list[str]], PreparedComposites]:
    """Opens a folder of composites that `prepare_composites` wrote.

    Args:
      path: the folder.
      scale: see `composite_settings`; so are the others.
      how_read: see scale.
      bad_files: see scale.

    Returns:
      The composites that can be used, oldest first; by the reason, a sentence for each
      file that cannot; and what reads them.

    Raises:
      UserError: see `PreparedFolder`.
    """
    settings = composite_settings(scale, how_read, bad_files)
    folder = PreparedFolder(path, COMPOSITES, settings)
    composites: list[Composite] = []
    left_out = {reason: list(told) for reason, told in folder.left_out.items()}
    places: dict[Path, tuple[Path, int]] = {}
    shape: tuple[int, ...] = ()
    for entry in folder.entries:
        if entry["problem"]:
            reason = entry.get("left_out", UNREADABLE)
            left_out.setdefault(reason, []).append(entry["problem"])
            continue
        one = folder.folder / entry["name"]
        composites.append(Composite(one, datetime.strptime(entry["time"], TIME_FORMAT)))
        ((shard, record, _, _),) = entry["pieces"]
        places[one] = folder.shards[shard], record
        shape = tuple(entry["shape"])
    return composites, left_out, PreparedComposites(scale, shape, places)
