"""A folder of radar composites as clips to learn from, to validate and to test on."""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from convlstm_jax.config import applies, field
from convlstm_jax.data.base import FolderDataConfig, InputClip, RainDataConfig
from convlstm_jax.data.cache import FrameCache
from convlstm_jax.data.files import plural
from convlstm_jax.data.prepared import Decoded, Manifest, prepare
from convlstm_jax.data.radar.composites import (
    Composite,
    CompositeFile,
    decode,
    missing_between,
    read_composite,
    refuse_left_out,
    usable_composites,
)
from convlstm_jax.data.radar.folder import (
    Folder,
    check_alike,
    look_into,
    open_folder,
    remarks,
)
from convlstm_jax.data.radar.formats import RADAR_FORMATS, is_format
from convlstm_jax.data.radar.gaps import advected
from convlstm_jax.data.sources import (
    SPLITS,
    Sources,
    checked_index,
    cut_in_time,
    deal,
    shares,
)
from convlstm_jax.errors import UserError
from convlstm_jax.paths import local_path
from convlstm_jax.rain import DRY_BELOW_MM_PER_H

_ORDER_SEED = 2**63 + 2  # Of the order of clips; no training seed is as large.
_PICTURES = {"radar_format": ("auto", "picture", "geotiff")}


# Composites one time step apart, none missing, oldest first.
Event = Sequence[Composite]
# An event and the part of it that is used, which may be the whole.
Part = tuple[Event, Event]


def date_of(event: Event) -> str:
    """Date of the first composite, as 2016-09-28: the condition of its clips."""
    return f"{event[0].time:%Y-%m-%d}"


def split_events(
    events: Sequence[Event], span: int, config: "RadarConfig"
) -> tuple[dict[str, list[Part]], bool]:
    """Distributes events of at least `span` composites, in the order of time.

    Returns the events, or parts of them, of each split; and whether there were so few
    that each was cut in time: the beginning to learn from, the end to test on.
    """
    test_dates = config.test_conditions
    held_out = [(event, event) for event in events if date_of(event) in test_dates]
    others = [(event, event) for event in events if date_of(event) not in test_dates]
    wanted = shares(
        config.validation_fraction, config.test_fraction, held_out=bool(test_dates)
    )
    dealt = deal(others, wanted)
    parts = dealt or {split: [] for split in SPLITS}
    for event, _ in [] if dealt else others:
        for split, (first, end) in cut_in_time(len(event), span, wanted).items():
            if first < end:
                parts[split].append((event, event[first:end]))
    if test_dates:
        parts["test"] = held_out
    return parts, bool(others) and not dealt


def crop_places(
    composite: np.ndarray, config: "RadarConfig", crop_stride: int
) -> list[tuple[int, int]]:
    """Top and left of the crops of a composite that hold enough data and rain."""
    pixels, valid = composite
    rain = pixels / 255 >= config.rain_scale.pixel_of_rain(DRY_BELOW_MM_PER_H)
    height, width = config.height, config.width
    step_y, step_x = crop_stride or height, crop_stride or width

    def counts(flags: np.ndarray) -> np.ndarray:
        """Set pixels in each crop, by differences of sums from the corner on."""
        sums = np.pad(flags.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        rows = (sums[height:] - sums[:-height])[::step_y]
        return (rows[:, width:] - rows[:, :-width])[:, ::step_x]

    known = counts(valid)
    enough = 2 * known >= height * width
    enough &= counts(rain) >= config.min_rain_share * known
    return [(int(row) * step_y, int(col) * step_x) for row, col in np.argwhere(enough)]


class RadarClips:
    """A random-access source of crops of radar sequences.

    A clip is every place of a grid, from every `clip_stride`-th composite on, where the
    first frame (later ones a forecaster could not know) holds data in at least half of
    its pixels and rain in enough of those. They come in a fixed random order, and have
    "frames", "mask" and "condition", see `ClipSource`.
    """

    def __init__(
        self,
        config: "RadarConfig",
        split: str,
        parts: Sequence[Part],
        num_frames: int,
        conditions: Sequence[str],
    ) -> None:
        self._config = config
        self._parts = parts
        self._span = config.span(num_frames)
        self._conditions = [conditions.index(date_of(event)) for event, _ in parts]
        crop_stride = config.crop_stride if split == "train" else 0
        max_clips = getattr(config, f"num_{split}_sequences")
        clip_stride = config.clip_stride or self._span
        places = [
            (number, start, top, left)
            for number, (_, part) in enumerate(parts)
            for start in range(0, len(part) - self._span + 1, clip_stride)
            for top, left in crop_places(part[start].read(), config, crop_stride)
        ]
        order = np.random.default_rng(_ORDER_SEED).permutation(len(places))
        self._places = np.array(places, np.int64).reshape(-1, 4)[order[:max_clips]]

    def __len__(self) -> int:
        """Returns the number of clips."""
        return len(self._places)

    @property
    def film_names(self) -> list[str]:
        """The event that each clip is cut from, by the time of its first composite."""
        events = [event for event, _ in self._parts]
        return [f"{events[i][0].time:%Y-%m-%d %H:%M}" for i in self._places[:, 0]]

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Reads clip `index`, see `ClipSource`."""
        index = checked_index(index, len(self))
        number, start, top, left = map(int, self._places[index])
        part = self._parts[number][1][start : start + self._span]
        chosen = part[:: self._config.frame_stride]
        read = np.stack([self._cut(one.read(), top, left) for one in chosen], axis=1)
        frames, mask = read[..., np.newaxis]
        condition = np.asarray(self._conditions[number], np.int32)
        return {"frames": frames, "mask": mask, "condition": condition}

    def _cut(self, composite: np.ndarray, top: int, left: int) -> np.ndarray:
        """A crop with its margin, where there is no data beyond the composite."""
        height, width, _ = self._config.clip_shape
        cut = np.zeros((2, height, width), np.uint8)
        top, left = top - self._config.margin, left - self._config.margin
        y, x = max(top, 0), max(left, 0)
        found = composite[:, y : top + height, x : left + width]
        cut[:, y - top :, x - left :][:, : found.shape[1], : found.shape[2]] = found
        return cut


class RadarConfig(RainDataConfig, FolderDataConfig):
    """Folders of radar composites with the time in their names.

    An event is a run of composites without a missing time step. Splits are by event,
    in the order of time; where there are fewer events than splits, each is cut in time.
    Folders have their own formats, areas and sizes; the size of a pixel in km and the
    time step must be the same.
    """

    name: Literal["radar"] = "radar"
    path: str = field(
        "",
        "Folder of composites with the time in their names (12 digits, year to minute) "
        "or one that --mode=prepare wrote; several with commas between them.",
    )
    radar_format: str = field(
        "auto",
        '"auto" (what the first files of each folder are), "picture" (8 bits, PGM or '
        'PNG), "geotiff" (with rasterio), "odim_hdf5" (DBZH, RATE, ACRR or TH), '
        '"knmi_hdf5" (reflectivity or rain), or, where pysteps is installed, "mch_gif" '
        '(AQC, CPC, AZC and RZC of MeteoSwiss), "bom_rf3" (Rainfields 3, NetCDF) or '
        'any of its importers by its name, such as "pysteps:mrms_grib"; with xarray '
        '"cf_netcdf" and "cf_zarr", of many times in a file.',
        must=(
            f"be 'auto', {', '.join(map(repr, RADAR_FORMATS))} or an importer of "
            "pysteps such as 'pysteps:mrms_grib'",
            lambda name: name == "auto" or is_format(name),
        ),
    )
    file_pattern: str = field(
        "*", "Which files are read, by name; * stands for any characters."
    )
    product: str = field(
        "",
        "Which of several fields in a file is read: a quantity of ODIM such as RATE, "
        "or its place such as dataset2/data1, an image of KNMI such as image2, the "
        "number or description of a GeoTIFF's band, or a variable of NetCDF.",
    )
    pixel_size_km: float = field(
        0.0,
        "Side of the pixels into which those of all files are averaged; 0: blocks of "
        "downsample pixels.",
        unit="km",
        ge=0,
    )
    downsample: int = field(
        4,
        "Side of the blocks of pixels averaged into one.",
        unit="pixels",
        ge=1,
        when={"pixel_size_km": (0.0,)},
    )
    source_pixel_size_km: float = field(
        1.0, "Side of a pixel in files that do not say.", unit="km", ge=0.01, le=1000
    )
    clip_stride: int = field(
        1, "Composites from clip to clip; 0: clips do not overlap.", ge=0
    )
    crop_stride: int = field(
        8, "Distance of training crops; 0: side by side.", unit="pixels", ge=0
    )
    min_rain_share: float = field(
        0.05, "Least share of rain (0.1 mm/h) in the first frame of a clip.", ge=0, lt=1
    )
    time_step_minutes: float = field(
        0.0,
        "Time from one composite to the next, over which mm accumulate unless a file "
        "says otherwise; 0: found from the times.",
        unit="minutes",
        ge=0,
    )
    max_filled_gap: int = field(
        0,
        "Most missing composites in a row that are made from those before and after, "
        "by advection (needs pysteps).",
        ge=0,
        le=12,
    )
    dbz_gain: float = field(
        0.5, "dBZ = dbz_gain * value + dbz_offset.", gt=0, when=_PICTURES
    )
    dbz_offset: float = field(-32.0, "See dbz_gain.", unit="dBZ", when=_PICTURES)
    no_data_value: int = field(
        255, "Value that stands for no data.", ge=0, le=255, when=_PICTURES
    )
    test_conditions: tuple[str, ...] = field(
        (), "Dates of events kept for the test set.", example="2017-05-09"
    )

    @property
    def minutes_per_frame(self) -> float:
        """Minutes from one frame of a clip to the next; of 5 where no data say."""
        return (self.time_step_minutes or 5.0) * self.frame_stride

    @property
    def folders(self) -> list[str]:
        """The folders that `path` names; a folder's own name may have commas."""
        if not self.path or local_path(self.path).is_dir():
            return [self.path]
        return [part.strip() for part in self.path.split(",")]

    def check_machine(self) -> Iterator[str]:
        """See `DataConfig.check_machine`."""
        yield from super().check_machine()
        for folder in self.folders:
            if not folder or not local_path(folder).is_dir():
                yield f"path is {folder!r}: it must be a folder of radar composites"

    def found(self) -> "RadarConfig":
        """This config with the time step that the data have."""
        if self.time_step_minutes or not self.path:
            return self
        with contextlib.suppress(UserError):  # That `sources` raises, too.
            steps = {look_into(one, self)[0].time_step_minutes for one in self.folders}
            if len(steps) == 1:
                return self.model_copy(update={"time_step_minutes": steps.pop()})
        return self

    def shaping(self) -> dict[str, Any]:
        """The fields that decide the pixels of composites, and their values."""
        names = ["radar_format", "product", "dbz_min", "dbz_max", "zr_b"]
        names += [
            name
            for name in ("downsample", "pixel_size_km", "source_pixel_size_km")
            if applies(type(self), name, vars(self))
        ]
        if self.radar_format in ("picture", "geotiff"):
            names += ["dbz_gain", "dbz_offset", "no_data_value"]
        # Pixels of pictures are reflectivities, whatever rain is made of them.
        if self.radar_format != "picture":
            names += ["zr_a", "time_step_minutes"]
        values = {name: getattr(self, name) for name in names}
        return {**values, "averaged": "rain rate"}  # Formerly Z.

    def sources(self, *, num_frames: int, seed: int) -> Sources:
        """The splits; conditions are the dates of the events. Nothing is drawn."""
        folders = [open_folder(folder, self) for folder in self.folders]
        span = self.span(num_frames)
        check_alike(folders, span)
        events = sorted(
            (run for one in folders for run in one.runs if len(run) >= span),
            key=lambda run: run[0].time,
        )
        conditions = tuple(dict.fromkeys(map(date_of, events)))
        for date in self.test_conditions:
            if date not in conditions:
                raise UserError(
                    f"test_conditions names {date!r}: it must name dates of events of "
                    f"at least {span} composites: {', '.join(conditions) or 'none'}"
                )
        parts, cut_in_time = split_events(events, span, self)
        clips: dict[str, Any] = {
            split: RadarClips(self, split, parts[split], num_frames, conditions)
            for split in SPLITS
        }
        numbers = ", ".join(f"{len(clips[split])} {split}" for split in SPLITS)
        facts = (
            f"{'; '.join(one.facts() for one in folders)}; "
            f"{plural(len(events), 'event')} of at least "
            f"{span} composites, {'each cut' if cut_in_time else 'split'} in time; "
            f"clips of {num_frames} frames at {self.height}x{self.width}: {numbers}"
        )
        for split, found in clips.items():
            if not len(found):
                raise UserError(
                    f"the {split} split of '{self.path}' is empty "
                    f"({facts}.{remarks(folders)}): {self._remedy(folders, span)}"
                )
        description = f"Radar composites of {facts}."
        if self.test_conditions:
            description += f" Held out for the test: {', '.join(self.test_conditions)}."
        description += remarks(folders)
        return self.make_sources(clips, description, conditions=conditions)

    def _remedy(self, folders: Sequence[Folder], span: int) -> str:
        """What gives each split a clip."""
        height, width = np.max([one.composites[0].size for one in folders], axis=0)
        if height < self.height or width < self.width:
            return (
                f"composites of {height}×{width} pixels have no crop of "
                f"{self.height}×{self.width}: config.data.height and width must be at "
                "most that"
            )
        wanted = shares(self.validation_fraction, self.test_fraction, held_out=False)
        enough = span
        while any(
            end - first < span
            for first, end in cut_in_time(enough, span, wanted).values()
        ):
            enough += 1
        longest = max(len(run) for one in folders for run in one.runs)
        held = f", and it has {longest}" if longest < enough else ""
        return (
            f"{enough} composites in a row with rain would be enough{held}; or ask for "
            "fewer frames, or change the fractions, data.min_rain_share or "
            "data.time_step_minutes"
        )

    def cut_off(self, num_pixels: int) -> str:
        """Says that pixels were above the scale."""
        top = self.rain_scale.rain_mm_per_h(np.float64(1))
        return (
            f"Set to dbz_max={self.dbz_max:g} ({top:.3g} mm/h), as they are above it: "
            f"{plural(num_pixels, 'pixel')}"
        )

    def prepare(self, output: Path) -> Manifest:
        """Decodes all composites once into a folder; see `prepared`."""
        if len(self.folders) > 1:
            raise UserError(
                f"path is {self.path!r}: --mode=prepare takes one folder, so prepare "
                "each, and give data.path all the folders that it made"
            )
        config, files, left_out = look_into(self.path, self)
        unread = {why: [*one] for why, one in left_out.reasons.items()}

        def decode_all(cache: FrameCache) -> Decoded:
            entries = list(decode(files, config, cache))
            usable_composites(entries, left_out, config)
            return [
                (frames.extra["composites"][0]["name"], frames, frames.extra)
                for frames in entries
            ], unread

        return prepare(output, "radar", self.path, config.shaping(), decode_all)

    def read_input(
        self, path: str, num_frames: int, until: datetime = datetime.max
    ) -> InputClip:
        """Reads the last composites of a folder, or until a time, their whole area.

        With `bad_files` of "skip" one that cannot be read is as if it were missing.
        """
        config, files, left_out = look_into(path, self)
        minutes, span = config.time_step_minutes, self.span(num_frames)
        files = [file for file in files if file.time <= until]
        filled = beyond = 0
        read = dict[CompositeFile, np.ndarray]()  # The latest first.
        for file in reversed(files):
            late = [*read][-1:]
            gap = missing_between(file, late[0], minutes) if late else 0
            if len(read) >= span or gap is None or gap > self.max_filled_gap:
                break
            try:
                pixels, facts = read_composite(file.path, config, file.index)
            except UserError as error:
                left_out.add("unreadable", str(error))
                refuse_left_out(left_out, self)
                continue
            if gap and pixels.shape == read[late[0]].shape:
                between = advected(pixels, read[late[0]], gap, self.rain_scale)
                for back, one in enumerate(between[::-1], 1):
                    time = late[0].time - back * (late[0].time - file.time) / (gap + 1)
                    read[CompositeFile(file.path, "", time)] = one
                    filled += 1
            read[file] = pixels
            beyond += facts["beyond"]
        label = f"{path} (left out: {left_out})" if left_out.reasons else path
        label += f" (filled by advection: {filled})" if filled else ""
        label += f" ({self.cut_off(beyond)})" if beyond else ""
        if len(read) < span:
            raise UserError(
                f"{label} ends with {len(read)} composites that are "
                f"{minutes:g} minutes apart: it must end with at least "
                f"{span}"
            )
        chosen = [*read][:span][::-1][:: self.frame_stride]
        if len({read[file].shape for file in chosen}) > 1:
            first = chosen[0].name
            raise UserError(
                f"'{path}' has composites of different sizes, from '{first}' on"
            )
        clip = np.stack([read[file] for file in chosen], axis=1)
        frames, mask = clip[..., np.newaxis]
        if not mask[-1].any():
            last = chosen[-1].name
            raise UserError(f"'{path}': the latest composite, '{last}', has no data")
        times = tuple(one.time for one in chosen)
        return InputClip(frames, mask, times, label, grid=facts["grid"])
