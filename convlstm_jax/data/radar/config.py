"""A folder of radar composites as clips to learn from, to validate and to test on."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from convlstm_jax.config import field
from convlstm_jax.data.base import FolderDataConfig, InputClip, RainDataConfig
from convlstm_jax.data.cache import FrameCache, default_cache
from convlstm_jax.data.files import LeftOut, plural
from convlstm_jax.data.prepared import (
    Decoded,
    Manifest,
    is_prepared,
    prepare,
    read_prepared,
)
from convlstm_jax.data.radar.composites import (
    Composite,
    CompositeFile,
    decode,
    find_composites,
    read_composite,
    refuse_left_out,
    split_at_gaps,
    usable_composites,
)
from convlstm_jax.data.radar.formats import RADAR_FORMATS
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

_RAIN_MM_PER_H = 0.1  # From this rate on a pixel counts as rain in a crop.
_ORDER_SEED = 2**63 + 2  # Of the order of clips; no training seed is as large.
_PICTURES = {"radar_format": ("picture",)}

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
    rain = pixels / 255 >= config.rain_scale.pixel_of_rain(_RAIN_MM_PER_H)
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
        rows = slice(top, top + self._config.height)
        columns = slice(left, left + self._config.width)
        part = self._parts[number][1][start : start + self._span]
        chosen = part[:: self._config.frame_stride]
        read = np.stack([one.read()[:, rows, columns] for one in chosen], axis=1)
        frames, mask = read[..., np.newaxis]
        condition = np.asarray(self._conditions[number], np.int32)
        return {"frames": frames, "mask": mask, "condition": condition}


class RadarConfig(RainDataConfig, FolderDataConfig):
    """A folder of radar composites with the time in their names.

    An event is a run of composites without a missing time step. Splits are by event,
    in the order of time; where there are fewer events than splits, each is cut in time.
    """

    name: Literal["radar"] = "radar"
    path: str = field(
        "",
        "Folder of composites with the time in their names (12 digits, year to minute) "
        "or one that --mode=prepare wrote.",
    )
    radar_format: Literal[tuple(RADAR_FORMATS)] = field(
        "picture",
        '"picture" (8 bits, PGM or PNG), "odim_hdf5" (DBZH, RATE, ACRR or TH), '
        '"knmi_hdf5" (reflectivity or rain), or, where pysteps is installed, "mch_gif" '
        '(AQC, CPC, AZC and RZC of MeteoSwiss) or "bom_rf3" (Rainfields 3, NetCDF).',
    )
    downsample: int = field(
        4, "Side of the blocks of pixels averaged into one.", unit="pixels", ge=1
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
        5.0,
        "Time from one composite to the next, over which mm accumulate unless a file "
        "says otherwise.",
        unit="minutes",
        gt=0,
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
        """Minutes from one frame of a clip to the next."""
        return self.time_step_minutes * self.frame_stride

    def check_machine(self) -> Iterator[str]:
        """See `DataConfig.check_machine`."""
        yield from super().check_machine()
        if not self.path or not local_path(self.path).is_dir():
            yield f"path is {self.path!r}: it must be a folder of radar composites"

    def shaping(self) -> dict[str, Any]:
        """The fields that decide the pixels of composites, and their values."""
        names = ["radar_format", "downsample", "dbz_min", "dbz_max", "zr_b"]
        if self.radar_format == "picture":
            names += ["dbz_gain", "dbz_offset", "no_data_value"]
        else:  # Pixels of pictures are reflectivities, whatever rain is made of them.
            names += ["zr_a", "time_step_minutes"]
        values = {name: getattr(self, name) for name in names}
        return {**values, "averaged": "rain rate"}  # Formerly Z.

    def sources(self, *, num_frames: int, seed: int) -> Sources:
        """The splits; conditions are the dates of the events. Nothing is drawn."""
        composites, left_out = self._open()
        told = f": {left_out}" if left_out.reasons else ""
        runs, missing = split_at_gaps(composites, self.time_step_minutes)
        span = self.span(num_frames)
        events = [run for run in runs if len(run) >= span]
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
            f"{self._facts(composites)}; {plural(len(events), 'event')} of at least "
            f"{span} composites, {'each cut' if cut_in_time else 'split'} in time; "
            f"clips of {num_frames} frames at {self.height}x{self.width}: {numbers}"
        )
        for split, found in clips.items():
            if not len(found):
                raise UserError(
                    f"the {split} split of '{self.path}' is empty ({facts}{told}): "
                    f"{self._remedy(composites[0].size, span)}"
                )
        description = f"Radar composites of '{self.path}': {facts}."
        if self.test_conditions:
            description += f" Held out for the test: {', '.join(self.test_conditions)}."
        if missing:
            description += f" Time steps missing: {missing}."
        if beyond := sum(one.beyond for one in composites):
            top = self.rain_scale.rain_mm_per_h(np.float64(1))
            description += (
                f" Set to dbz_max={self.dbz_max:g} ({top:.3g} mm/h), as they are above "
                f"it: {plural(beyond, 'pixel')}."
            )
        if told:
            description += f" Left out{told}."
        return self.make_sources(clips, description, conditions=conditions)

    def _remedy(self, size: tuple[int, int], span: int) -> str:
        """What gives each split a clip."""
        if size[0] < self.height or size[1] < self.width:
            return (
                f"composites of {size[0]}×{size[1]} pixels have no crop of "
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
        return (
            f"{enough} composites in a row with rain would be enough; or ask for fewer "
            "frames, or change the fractions, data.min_rain_share or "
            "data.time_step_minutes"
        )

    def _facts(self, composites: Sequence[Composite]) -> str:
        """What the folder holds, in words."""
        height, width = composites[0].size
        facts = (
            f"{len(composites)} composites of {height}x{width} pixels after averaging "
            f"over {self.downsample}x{self.downsample}, {self.time_step_minutes:g} "
            "minutes apart"
        )
        steps = Counter(
            after.time - before.time for before, after in pairwise(composites)
        )
        for usual, _ in steps.most_common(1):
            if usual != timedelta(minutes=self.time_step_minutes):
                facts += f", but most of them {usual.total_seconds() / 60:g}"
        return facts

    def _open(self) -> tuple[list[Composite], LeftOut]:
        """The composites that can be used, at least one, and those that are not."""
        if is_prepared(self.path):
            manifest, found = read_prepared(self.path, "radar", self.shaping())
            left_out = LeftOut(manifest.left_out, "composite")
            entries = [frames for frames in found if frames is not None]
        else:
            files, left_out = find_composites(self.path, self)
            entries = list(decode(files, self, default_cache()))
        composites = usable_composites(entries, left_out, self)
        if not composites:
            suffixes = ", ".join(RADAR_FORMATS[self.radar_format].suffixes)
            raise UserError(
                f"the folder '{self.path}' holds no radar composite that can be used "
                f"as data.radar_format={self.radar_format!r} ({suffixes})"
                + (f": {left_out}" if left_out.reasons else "")
            )
        return composites, left_out

    def prepare(self, output: Path) -> Manifest:
        """Decodes all composites once into a folder; see `prepared`."""
        files, left_out = find_composites(self.path, self)
        unread = {why: [*one] for why, one in left_out.reasons.items()}

        def decode_all(cache: FrameCache) -> Decoded:
            entries = list(decode(files, self, cache))
            usable_composites(entries, left_out, self)
            return [
                (frames.extra["composites"][0]["name"], frames, frames.extra)
                for frames in entries
            ], unread

        return prepare(output, "radar", self.path, self.shaping(), decode_all)

    def read_input(self, path: str, num_frames: int) -> InputClip:
        """Reads the last composites of a folder, their whole area.

        With `bad_files` of "skip" one that cannot be read is as if it were missing.
        """
        files, left_out = find_composites(path, self)
        step, span = timedelta(minutes=self.time_step_minutes), self.span(num_frames)
        read: dict[CompositeFile, np.ndarray] = {}  # The latest first.
        for file in reversed(files):
            if len(read) == span or (read and [*read][-1].time - file.time != step):
                break
            try:
                read[file], _ = read_composite(file.path, self)
            except UserError as error:
                left_out.add("unreadable", str(error))
                refuse_left_out(left_out, self)
        label = f"{path} (left out: {left_out})" if left_out.reasons else path
        if len(read) < span:
            raise UserError(
                f"{label} ends with {len(read)} composites that are "
                f"{self.time_step_minutes:g} minutes apart: it must end with at least "
                f"{span}"
            )
        chosen = [*read][::-1][:: self.frame_stride]
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
        return InputClip(frames, mask, tuple(one.time for one in chosen), label)
