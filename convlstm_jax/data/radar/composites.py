"""Radar composites: found by the time in their names, decoded once into a cache."""

import contextlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convlstm_jax.data.cache import FrameCache, Frames, FrameWriter
from convlstm_jax.data.files import LeftOut, content_hash, reason, walk
from convlstm_jax.data.radar.formats import (
    RADAR_FORMATS,
    check_packages,
    read_rain,
)
from convlstm_jax.errors import UserError
from convlstm_jax.paths import local_path

if TYPE_CHECKING:
    from convlstm_jax.data.radar.config import RadarConfig

_DATE = re.compile(r"(?<!\d)((?:19|20)\d{6})[-_T]?(\d{4})(?:\d{2})?(?!\d)")
_DAY_OF_YEAR = re.compile(r"(?<!\d)(\d{5})(\d{4})(?!\d)")


@dataclass(frozen=True)
class CompositeFile:
    """A file, its name below the folder that was searched, and the time in it."""

    path: Path
    name: str
    time: datetime


@dataclass(frozen=True, eq=False)
class Composite:
    """A decoded composite: frame `index` of `frames`, of `size` (H, W).

    `beyond` is how many of its pixels lay above the scale, and were set to its top.
    """

    name: str
    time: datetime
    size: tuple[int, int]
    frames: Frames
    index: int
    beyond: int = 0

    def read(self) -> np.ndarray:
        """Pixels and mask, uint8 `[2, H, W]`, see `read_composite`."""
        pixels = self.frames.read(self.index)[0, ..., 0]
        mask = self.frames.read_mask(self.index)[0, ..., 0]
        height, width = self.size
        return np.stack([pixels, mask])[:, :height, :width]


def time_of(name: str, *, day_of_year: bool = False) -> datetime | None:
    """The time a file's name holds, year to minute in 12 digits, if it holds one.

    A `-`, `_` or `T` may stand between date and time, and seconds may follow. With
    `day_of_year` 9 digits count too: the year's last two, day, hour and minute.
    """
    patterns = [(_DATE, "%Y%m%d%H%M"), (_DAY_OF_YEAR, "%y%j%H%M")]
    for pattern, written in patterns[: 2 if day_of_year else 1]:
        for match in pattern.finditer(name):
            with contextlib.suppress(ValueError):
                return datetime.strptime("".join(match.groups()), written)
    return None


def find_composites(
    folder: str | Path, config: "RadarConfig"
) -> tuple[list[CompositeFile], LeftOut]:
    """Searches a folder and all folders in it for radar composites, oldest first.

    Hidden files and folders are passed over. Files of the format without a time in
    their name, or with one that another has, are left out, or refused.
    """
    check_packages(config.radar_format)
    wanted = RADAR_FORMATS[config.radar_format]
    root = local_path(folder)
    if not root.is_dir():
        raise UserError(f"path is '{root}': it must be a folder of radar composites")

    by_time: dict[datetime, CompositeFile] = {}
    left_out = LeftOut(noun="composite")
    for prefix, entries in walk(root):
        if isinstance(entries, OSError):
            why = f"'{entries.filename}' cannot be read ({reason(entries)})"
            raise UserError(why) from entries
        for file in (entry.name for entry in entries if not entry.is_dir()):
            if not file.lower().endswith(wanted.suffixes):
                continue
            path, name = Path(root, prefix, file), prefix + file
            time = time_of(file, day_of_year=wanted.day_of_year)
            if time is None:
                told = f"'{name}' has no time in its name, such as 201609281445"
                left_out.add("without a time", told)
            elif not path.is_file():
                left_out.add("unreadable", f"'{name}' is no regular file")
            elif time in by_time:
                told = f"'{name}' is of the same time as '{by_time[time].name}'"
                left_out.add("with the time of another", told)
            else:
                by_time[time] = CompositeFile(path, name, time)
    refuse_left_out(left_out, config)
    return [by_time[time] for time in sorted(by_time)], left_out


def refuse_left_out(left_out: LeftOut, config: "RadarConfig") -> None:
    """Raises a `UserError` on the first file left out, where they are refused."""
    if left_out.reasons and config.bad_files == "refuse":
        raise UserError(
            f"{next(iter(left_out.reasons.values()))[0]}; with data.bad_files='skip' "
            "such files are left out and counted"
        )


def read_composite(
    path: Path, config: "RadarConfig"
) -> tuple[np.ndarray, dict[str, Any]]:
    """Reads one composite as uint8 `[2, H, W]`: pixels, and 1 where there is data.

    A block of `downsample` × `downsample` pixels becomes one pixel, by the mean rain
    rate over those of its pixels that hold data; incomplete blocks at the end are cut
    off. A block in which fewer than half of the pixels hold data holds none itself.

    Also returns facts (JSON): "beyond", how many pixels lie above the scale.
    """
    size = config.downsample
    rain = read_rain(path, config)
    height, width = (side // size for side in rain.shape)
    if not height or not width:
        raise UserError(
            f"'{path}' has {rain.shape[0]}×{rain.shape[1]} pixels (height × "
            f"width): it must have at least downsample={size} along either"
        )
    blocks = rain[: height * size, : width * size].reshape(height, size, width, size)
    there = ~np.isnan(blocks)
    count = there.sum(axis=(1, 3))
    total = np.where(there, blocks, 0.0).sum(axis=(1, 3))
    valid = 2 * count >= size * size
    with np.errstate(divide="ignore", invalid="ignore"):
        dbz = 10 * config.zr_b * np.log10(total / count)
    pixels = np.where(valid, config.rain_scale.pixels(dbz), 0.0)
    beyond = int((valid & (dbz > config.dbz_max + 1e-9)).sum())
    return np.stack([np.rint(255 * pixels), valid]).astype(np.uint8), {"beyond": beyond}


def decode(
    files: Sequence[CompositeFile], config: "RadarConfig", cache: FrameCache
) -> Iterator[Frames]:
    """The decoded composites of each third of a day, from a cache."""
    for _, group in groupby(files, lambda one: (one.time.date(), one.time.hour // 8)):
        batch = list(group)
        content = content_hash([one.path for one in batch], cache.folder / ".hashes")
        names = [one.name for one in batch]
        key = {"kind": "radar", "content": content, "names": names}
        yield cache.cached(key | config.shaping(), partial(_decode, batch, config))


def _decode(
    files: Sequence[CompositeFile], config: "RadarConfig", writer: FrameWriter
) -> dict[str, Any]:
    """Writes composites, padded to the largest; returns a fact or problem of each."""

    def attempt(file: CompositeFile) -> tuple[np.ndarray, dict[str, Any]] | str:
        try:
            return read_composite(file.path, config)
        except UserError as error:
            return str(error).replace(str(file.path), file.name)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        read = list(pool.map(attempt, files))
    shapes = [one[0].shape[1:] for one in read if not isinstance(one, str)]
    largest = np.max(shapes or [(1, 1)], axis=0)
    composites: list[dict[str, Any]] = []
    for file, one in zip(files, read, strict=True):
        fact = {"name": file.name, "time": file.time.isoformat()}
        if isinstance(one, str):
            composites.append({**fact, "problem": one})
            continue
        pixels, found = one
        padding = [(0, 0), *((0, side) for side in largest - pixels.shape[1:])]
        writer.add(*np.pad(pixels, padding)[..., np.newaxis])
        composites.append({**fact, **found, "size": list(pixels.shape[1:])})
    if not shapes:  # An entry has frames.
        writer.add(*np.zeros((2, 1, 1, 1), np.uint8))
    return {"composites": composites}


def usable_composites(
    entries: Iterable[Frames], left_out: LeftOut, config: "RadarConfig"
) -> list[Composite]:
    """Those that can be read and have the size of most; others are left out."""
    composites: list[Composite] = []
    for frames in entries:
        facts = frames.extra["composites"]
        for problem in (fact["problem"] for fact in facts if "problem" in fact):
            left_out.add("unreadable", problem)
        for index, fact in enumerate(fact for fact in facts if "size" in fact):
            time, (height, width) = datetime.fromisoformat(fact["time"]), fact["size"]
            size, beyond = (height, width), fact["beyond"]
            one = Composite(fact["name"], time, size, frames, index, beyond)
            composites.append(one)
    sizes = Counter(one.size for one in composites)
    usual = max(sizes, key=lambda size: sizes[size], default=(0, 0))
    for one in composites:
        if one.size != usual:
            here, most = (f"{height}×{width}" for height, width in (one.size, usual))
            what = f"of another size than {most} pixels, that of most"
            left_out.add(what, f"'{one.name}' has {here}")
    refuse_left_out(left_out, config)
    return [one for one in composites if one.size == usual]


def split_at_gaps(
    composites: Sequence[Composite], time_step_minutes: float
) -> tuple[list[list[Composite]], int]:
    """Cuts a series, oldest first, into runs one time step apart.

    Also returns how many are missing in gaps of up to a day; longer ones lie between
    two events.
    """
    step = timedelta(minutes=time_step_minutes)
    runs, missing = [list(composites[:1])] if composites else [], 0
    for before, one in pairwise(composites):
        apart = one.time - before.time
        if apart == step:
            runs[-1].append(one)
            continue
        runs.append([one])
        if apart < timedelta(days=1):
            missing += math.ceil(apart / step) - 1
    return runs, missing
