"""Radar composites: found by the time in their names, decoded once into a cache."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convlstm_jax.data.cache import Frames, FrameWriter
from convlstm_jax.data.files import LeftOut, reason
from convlstm_jax.data.radar.formats import (
    RADAR_FORMATS,
    check_packages,
    import_reflectivity,
    read_picture,
)
from convlstm_jax.errors import UserError

if TYPE_CHECKING:
    from convlstm_jax.data.radar.config import RadarConfig

_DATE = re.compile(r"(?<!\d)((?:19|20)\d{6})[-_T]?(\d{4})(?:\d{2})?(?!\d)")
_DAY_OF_YEAR = re.compile(r"(?<!\d)(\d{5})(\d{4})(?!\d)")

_MAX_BATCH = 100  # Composites of a day that are decoded, and kept, together.


def time_of(name: str, *, day_of_year: bool = False) -> datetime | None:
    """The time a file's name holds: year to minute, 12 digits; None if it holds none.

    A `-`, `_` or `T` may stand between date and time, and seconds may follow. With
    `day_of_year` 9 digits are a time too: the year's last two, day, hour and minute.
    """
    writings = [(_DATE, "%Y%m%d%H%M")]
    if day_of_year:
        writings.append((_DAY_OF_YEAR, "%y%j%H%M"))
    for pattern, written in writings:
        for match in pattern.finditer(name):
            try:
                return datetime.strptime("".join(match.groups()), written)
            except ValueError:
                continue
    return None


@dataclass(frozen=True)
class CompositeFile:
    """A file, its name below the folder that was searched, and the time in it."""

    path: Path
    name: str
    time: datetime


def find_composites(
    folder: str | Path, radar_format: str
) -> tuple[list[CompositeFile], LeftOut]:
    """Searches a folder and the folders in it, however deep, for radar composites.

    All of them make one series, in whichever folders they lie. Hidden files and
    folders are passed over, as is all that is not of the format by its name.

    Returns:
        The composites, oldest first, and the files that cannot take part: those without
        a time in their name, or with one that there was already.

    Raises:
        UserError: there is no such folder, or it cannot be read; or what the format
            needs is not installed.
    """
    check_packages(radar_format)
    wanted = RADAR_FORMATS[radar_format]
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"path is '{root}': it must be a folder of radar composites")

    def refuse(error: OSError) -> None:
        raise UserError(
            f"the folder '{error.filename}' cannot be read ({reason(error)})"
        ) from error

    by_time: dict[datetime, CompositeFile] = {}
    left_out = LeftOut(noun="composite")
    written = "year to minute in 12 digits"
    if wanted.day_of_year:
        written += ", or year, day of the year, hour and minute in 9"
    for place, folders, names in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(filter(wanted.has, names)):
            path = Path(place, file)
            name = path.relative_to(root).as_posix()
            time = time_of(file, day_of_year=wanted.day_of_year)
            if time is None:
                told = f"'{name}' has no time in its name: it must have {written}"
                left_out.add("without a time", told)
            elif not path.is_file():
                left_out.add("unreadable", f"'{name}' is no regular file")
            elif time in by_time:
                told = f"'{name}' is of the same time as '{by_time[time].name}'"
                left_out.add("of a time there was", told)
            else:
                by_time[time] = CompositeFile(path, name, time)
    return [by_time[time] for time in sorted(by_time)], left_out


def read_composite(path: Path, config: "RadarConfig") -> np.ndarray:
    """Reads one composite.

    A block of `downsample` × `downsample` pixels becomes one pixel, by the mean of Z
    (mm⁶/m³, not of dBZ, of which a mean has no meaning) over those of its pixels that
    hold data; what is left of a side at its end is cut off. A block in which fewer
    than half of the pixels hold data holds none itself.

    Returns:
        uint8 `[2, H, W]`: pixels of the scale times 255, rounded, 0 where there is no
        data; and 1 where there is data, else 0.

    Raises:
        UserError: it cannot be read, or is smaller than a block.
    """
    scale, size = config.rain_scale, config.downsample
    if config.radar_format == "picture":
        # Looked up by value: 256 powers in place of a million.
        factors = 10.0 ** ((config.dbz_gain * np.arange(256) + config.dbz_offset) / 10)
        factors[config.no_data_value] = np.nan
        factor = read_picture(path, factors)
    else:
        factor = import_reflectivity(
            path, config.radar_format, scale, config.time_step_minutes
        )
    height, width = (side // size for side in factor.shape)
    if not height or not width:
        raise UserError(
            f"'{path}' has {factor.shape[0]}×{factor.shape[1]} pixels (height × "
            f"width): it must have at least downsample={size} along either"
        )
    blocks = factor[: height * size, : width * size].reshape(height, size, width, size)
    there = ~np.isnan(blocks)
    count = there.sum(axis=(1, 3))
    total = np.where(there, blocks, 0.0).sum(axis=(1, 3))
    valid = 2 * count >= size * size
    with np.errstate(divide="ignore", invalid="ignore"):
        dbz = 10 * np.log10(total / count)
    pixels = np.where(valid, scale.pixels(dbz), 0.0)
    return np.stack([np.rint(255 * pixels), valid]).astype(np.uint8)


def decoding(
    files: Sequence[CompositeFile], config: "RadarConfig"
) -> Callable[[FrameWriter], dict[str, Any]]:
    """What decodes some composites into an entry of a cache.

    Those of another size than the largest are padded; those that cannot be read leave
    a sentence, so that they are told again without being read again.
    """

    def attempt(file: CompositeFile) -> np.ndarray | str:
        try:
            return read_composite(file.path, config)
        except UserError as error:
            return str(error).replace(str(file.path), file.name)

    def produce(writer: FrameWriter) -> dict[str, Any]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            read = list(pool.map(attempt, files))
        shapes = [one.shape[1:] for one in read if not isinstance(one, str)]
        largest = [max(sides) for sides in zip(*shapes, strict=True)]
        composites: list[dict[str, Any]] = []
        for file, one in zip(files, read, strict=True):
            fact = {"name": file.name, "time": file.time.isoformat()}
            if isinstance(one, str):
                composites.append({**fact, "problem": one})
                continue
            height, width = one.shape[1:]
            padding = (0, largest[0] - height), (0, largest[1] - width)
            writer.add(*np.pad(one, [(0, 0), *padding])[..., np.newaxis])
            facts = {"size": [height, width], "data": bool(one[1].any())}
            composites.append({**fact, **facts})
        if not shapes:  # An entry has frames.
            writer.add(np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1, 1), np.uint8))
        return {"composites": composites}

    return produce


def batches(files: Sequence[CompositeFile]) -> Iterator[list[CompositeFile]]:
    """The composites of each day, in parts of at most 100: what is decoded together."""
    for _, group in groupby(files, key=lambda file: file.time.date()):
        day = list(group)
        for start in range(0, len(day), _MAX_BATCH):
            yield day[start : start + _MAX_BATCH]


@dataclass(frozen=True, eq=False)
class Composite:
    """A radar composite that is decoded, one of some frames.

    `name` is its file below the data folder, `size` (H, W) after averaging.
    """

    name: str
    time: datetime
    size: tuple[int, int]
    has_data: bool
    frames: Frames
    index: int

    def read(self) -> np.ndarray:
        """Pixels and mask, uint8 `[2, H, W]`, see `read_composite`."""
        pixels = self.frames.read(self.index)[0, ..., 0]
        mask = self.frames.read_mask(self.index)[0, ..., 0]
        height, width = self.size
        return np.stack([pixels, mask])[:, :height, :width]


def decoded_composites(
    entries: Sequence[tuple[Frames, Mapping[str, Any]]], left_out: LeftOut
) -> list[Composite]:
    """The composites of some entries that can be read and have the size of most.

    `entries` are frames and what `decoding` told of them; the others are added to
    `left_out`.
    """
    composites: list[Composite] = []
    for frames, extra in entries:
        index = 0
        for fact in extra["composites"]:
            if "problem" in fact:
                left_out.add("unreadable", fact["problem"])
                continue
            time = datetime.fromisoformat(fact["time"])
            size = (fact["size"][0], fact["size"][1])
            composites.append(
                Composite(fact["name"], time, size, fact["data"], frames, index)
            )
            index += 1
    sizes = Counter(one.size for one in composites)
    usual = max(sizes, key=lambda size: sizes[size], default=(0, 0))
    for one in composites:
        if one.size != usual:
            here, most = (f"{height}×{width}" for height, width in (one.size, usual))
            told = f"'{one.name}' has {here} pixels after averaging, but most"
            left_out.add("of another size", f"{told} composites have {most}")
    return [one for one in composites if one.size == usual]


def refuse_left_out(left_out: LeftOut, bad_files: str) -> None:
    """Raises a `UserError` on the first file left out, where they are refused."""
    if left_out.reasons and bad_files == "refuse":
        raise UserError(
            f"{next(iter(left_out.reasons.values()))[0]}; with data.bad_files='skip' "
            "such files are left out and counted"
        )
