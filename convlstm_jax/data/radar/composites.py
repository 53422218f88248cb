"""Radar composites: found by the time in their names, decoded once into a cache."""

import contextlib
import fnmatch
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from convlstm_jax.data.cache import FrameCache, Frames, FrameWriter
from convlstm_jax.data.files import LeftOut, content_hash, is_store, reason, walk
from convlstm_jax.data.radar.field import Grid, coarser, pixel_km
from convlstm_jax.data.radar.formats import (
    check_packages,
    format_named,
    format_of,
    read_rain,
)
from convlstm_jax.errors import UserError
from convlstm_jax.paths import local_path

if TYPE_CHECKING:
    from convlstm_jax.data.radar.config import RadarConfig

_DATE = re.compile(r"(?<!\d)((?:19|20)\d{6})[-_T]?(\d{4})(\d{2})?(?!\d)")
_SHORT_DATE = re.compile(r"(?<!\d)(\d{6})(\d{4})()(?!\d)")
_DAY_OF_YEAR = re.compile(r"(?<!\d)(\d{5})(\d{4})()(?!\d)")

_USUAL_STEPS = (1, 2, 2.5, 3, 4, 5, 6, 7.5, 10, 12, 15, 20, 30, 60)  # minutes
_TOLERANCE = 0.2  # Of a time step, by which composites may come early or late.


@dataclass(frozen=True)
class CompositeFile:
    """A file, its name below the folder that was searched, and the time in it.

    In a file with many it is composite `index`.
    """

    path: Path
    name: str
    time: datetime
    index: int = 0


@dataclass(frozen=True, eq=False)
class Composite:
    """A decoded composite: frame `index` of `frames`, of `size` (H, W).

    `beyond` is how many of its pixels lay above the scale, and were set to its top.
    A pixel has `pixel_size_km` along a side, and lies where `grid` says.
    """

    name: str
    time: datetime
    size: tuple[int, int]
    frames: Frames
    index: int
    beyond: int = 0
    pixel_size_km: float = 1.0
    grid: Grid = field(default_factory=dict)

    def read(self) -> np.ndarray:
        """Pixels and mask, uint8 `[2, H, W]`, see `read_composite`."""
        pixels = self.frames.read(self.index)[0, ..., 0]
        mask = self.frames.read_mask(self.index)[0, ..., 0]
        height, width = self.size
        return np.stack([pixels, mask])[:, :height, :width]


def time_of(name: str, *, short: bool = False) -> datetime | None:
    """The time a file's name holds, year to minute in 12 digits, if it holds one.

    A `-`, `_` or `T` may stand between date and time, and two digits of seconds may
    follow. With `short` 10 digits count too, without the century, and 9: the year's
    last two, the day in it, hour and minute.
    """
    patterns = [(_DATE, "%Y%m%d%H%M")]
    if short:
        patterns += [(_SHORT_DATE, "%y%m%d%H%M"), (_DAY_OF_YEAR, "%y%j%H%M")]
    for pattern, written in patterns:
        for match in pattern.finditer(name):
            date, minute, second = match.groups()
            with contextlib.suppress(ValueError):
                text = date + minute + (second or "00")
                return datetime.strptime(text, f"{written}%S")
    return None


def found_format(folder: str | Path, pattern: str) -> str:
    """The format of the first file of a pattern that has one; "" if none has.

    A file with a time in its name goes before others, such as a map.
    """
    others, root = "", local_path(folder)
    for prefix, entries in walk(root):
        for entry in () if isinstance(entries, OSError) else entries:
            if not fnmatch.fnmatchcase(entry.name, pattern):
                continue
            found = format_of(Path(root, prefix, entry.name))
            wanted = format_named(found) if found else None
            if wanted and (
                wanted.times or time_of(entry.name, short=wanted.short_times)
            ):
                return found
            others = others or found
    return others


def time_step_of(times: Sequence[datetime]) -> float:
    """The minutes from one composite to the next, of times in order; 0 if unknown.

    Of the usual steps, and the median, the one that is within a fifth of most of the
    steps between the times (names of every 2.5 minutes are 2 or 3 apart), or nearest.
    """
    steps = np.array([(b - a).total_seconds() / 60 for a, b in pairwise(times)])
    if not len(steps):
        return 0.0

    def misfit(step: float) -> tuple[float, float]:
        apart = np.abs(steps - step)
        near = apart <= step * _TOLERANCE + 1e-9
        return -near.sum(), apart[near].sum()

    return float(min((*_USUAL_STEPS, np.median(steps)), key=misfit))


def find_composites(
    folder: str | Path, config: "RadarConfig"
) -> tuple[list[CompositeFile], LeftOut]:
    """Searches a folder and all folders in it for radar composites, oldest first.

    Hidden files and folders are passed over. Files of the format without a time in
    their name, or with one that another has, are left out, or refused.
    """
    check_packages(config.radar_format)
    wanted = format_named(config.radar_format)
    root = local_path(folder)
    by_time: dict[datetime, CompositeFile] = {}
    left_out = LeftOut(noun="composite")
    for prefix, entries in walk(root):
        if isinstance(entries, OSError):
            why = f"'{entries.filename}' cannot be read ({reason(entries)})"
            raise UserError(why) from entries
        for entry in entries:
            file = entry.name
            if (
                entry.is_dir() is not is_store(file)
                or not file.lower().endswith(wanted.suffixes)
                or not fnmatch.fnmatchcase(file, config.file_pattern)
            ):
                continue
            for one in _composites_in(Path(root, prefix, file), prefix + file, config):
                if isinstance(one, tuple):
                    left_out.add(*one)
                elif one.time in by_time:
                    told = (
                        f"'{one.name}' is of the same time as "
                        f"'{by_time[one.time].name}', of which data.file_pattern can "
                        "choose"
                    )
                    left_out.add("with the time of another", told)
                else:
                    by_time[one.time] = one
    refuse_left_out(left_out, config)
    return [by_time[time] for time in sorted(by_time)], left_out


def _composites_in(
    path: Path, name: str, config: "RadarConfig"
) -> Iterator[CompositeFile | tuple[str, str]]:
    """The composites of a file of the format, or why it is left out."""
    wanted = format_named(config.radar_format)
    time = time_of(path.name, short=wanted.short_times)
    if wanted.times and (path.is_file() or is_store(name)):
        try:
            times = wanted.times(path, config)
        except UserError as error:
            yield "unreadable", str(error).replace(str(path), name)
            return
        for index, time in enumerate(times):
            yield CompositeFile(path, f"{name}[{index}]", time, index)
    elif time is None and wanted.suffixes != ("",):  # Else it may be anything.
        told = f"'{name}' has no time in its name, such as 201609281445"
        yield "without a time", told
    elif not path.is_file():
        yield "unreadable", f"'{name}' is no regular file"
    elif time is not None:
        yield CompositeFile(path, name, time)


def refuse_left_out(left_out: LeftOut, config: "RadarConfig") -> None:
    """Raises a `UserError` on the first file left out, where they are refused."""
    if left_out.reasons and config.bad_files == "refuse":
        raise UserError(
            f"{next(iter(left_out.reasons.values()))[0]}; with data.bad_files='skip' "
            "such files are left out and counted"
        )


def read_composite(
    path: Path, config: "RadarConfig", index: int = 0
) -> tuple[np.ndarray, dict[str, Any]]:
    """Reads one composite as uint8 `[2, H, W]`: pixels, and 1 where there is data.

    A block of `downsample` × `downsample` pixels, or of `pixel_size_km`, in which also
    parts of pixels count, becomes one pixel, by the mean rain rate over those of its
    pixels that hold data; incomplete blocks at the end are cut off. A block in which
    fewer than half of the pixels hold data holds none itself.

    Also returns facts (JSON): "beyond", how many pixels lie above the scale, and
    "pixel_size_km" and "grid" after averaging.
    """
    rain, grid = read_rain(path, config, index)
    sides = pixel_km(grid) if grid else (config.source_pixel_size_km,) * 2
    factors = _factors(path, sides, config)
    rows, columns = map(_blocks, rain.shape, factors)
    if not rows.shape[0] or not columns.shape[0]:
        field = "pixel_size_km" if config.pixel_size_km else "downsample"
        raise UserError(
            f"'{path}' has {rain.shape[0]}×{rain.shape[1]} pixels (height × width): "
            f"it must have at least {field}={getattr(config, field):g} along either"
        )
    there = ~np.isnan(rain)
    count = rows @ there.astype(float) @ columns.T
    total = rows @ np.where(there, rain, 0.0) @ columns.T
    valid = 2 * count >= (1 - 1e-9) * factors[0] * factors[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        dbz = 10 * config.zr_b * np.log10(total / count)
    pixels = np.where(valid, config.rain_scale.pixels(dbz), 0.0)
    beyond = int((valid & (dbz > config.dbz_max + 1e-9)).sum())
    km = math.sqrt(math.prod(sides) * math.prod(factors))
    size = (rows.shape[0], columns.shape[0])
    coarse = coarser(grid, size, factors)
    facts = {"beyond": beyond, "pixel_size_km": km, "grid": coarse}
    return np.stack([np.rint(255 * pixels), valid]).astype(np.uint8), facts


def _factors(
    path: Path, sides: tuple[float, float], config: "RadarConfig"
) -> tuple[float, float]:
    """Height and width of a block, in pixels, whose sides are given in km."""
    wanted = config.pixel_size_km
    if not wanted:
        return float(config.downsample), float(config.downsample)
    height, width = (wanted / side for side in sides)
    if min(height, width) < 0.999:
        raise UserError(
            f"'{path}' has pixels of {max(sides):g} km and data.pixel_size_km is "
            f"{wanted:g}: it must be at least as large, or 0 for the size they have"
        )
    return _whole(height), _whole(width)


def _whole(factor: float) -> float:
    """Sides of 999.7 m are meant to be 1 km."""
    near = max(round(factor), 1)
    return float(near) if abs(factor / near - 1) < 1e-3 else factor


def _blocks(length: int, factor: float) -> scipy.sparse.csr_array:
    """The share of each of `length` pixels in each block of `factor` ≥ 1 of them."""
    pixel = np.arange(length)
    block = np.floor(pixel / factor).astype(np.int64)
    inside = np.minimum((block + 1) * factor - pixel, 1.0)
    shares = np.concatenate([inside, 1 - inside])
    places = np.concatenate([block, block + 1]), np.concatenate([pixel, pixel])
    found = scipy.sparse.csr_array((shares, places), (length + 2, length))
    return found[: int(length / factor + 1e-9)]


def decode(
    files: Sequence[CompositeFile], config: "RadarConfig", cache: FrameCache
) -> Iterator[Frames]:
    """The decoded composites of each third of a day, from a cache."""
    for _, group in groupby(files, lambda one: (one.time.date(), one.time.hour // 8)):
        batch = list(group)
        paths = [
            path
            for one in dict.fromkeys(one.path for one in batch)
            for path in (sorted(one.rglob("*")) if one.is_dir() else [one])
        ]
        content = content_hash(paths, cache.folder / ".hashes")
        names = [one.name for one in batch]
        key = {"kind": "radar", "content": content, "names": names}
        yield cache.cached(key | config.shaping(), partial(_decode, batch, config))


def _decode(
    files: Sequence[CompositeFile], config: "RadarConfig", writer: FrameWriter
) -> dict[str, Any]:
    """Writes composites, padded to the largest; returns a fact or problem of each."""

    def attempt(file: CompositeFile) -> tuple[np.ndarray, dict[str, Any]] | str:
        try:
            return read_composite(file.path, config, file.index)
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
            found = {key: fact[key] for key in ("beyond", "pixel_size_km", "grid")}
            one = Composite(fact["name"], time, (height, width), frames, index, **found)
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


def missing_between(
    before: CompositeFile | Composite,
    after: CompositeFile | Composite,
    time_step_minutes: float,
) -> int | None:
    """How many time steps lie between two composites, to a fifth of one.

    None if they are apart by no number of time steps.
    """
    steps = (after.time - before.time).total_seconds() / 60 / time_step_minutes
    whole = max(round(steps), 1)
    return whole - 1 if abs(steps - whole) <= _TOLERANCE + 1e-9 else None


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
        if missing_between(before, one, time_step_minutes) == 0:
            runs[-1].append(one)
            continue
        runs.append([one])
        if apart < timedelta(days=1):
            missing += max(round(apart / step) - 1, 0)
    return runs, missing
