"""A folder of radar composites as clips to learn from, to validate and to test on."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from convlstm_jax.config import field
from convlstm_jax.data.base import InputClip, RainDataConfig
from convlstm_jax.data.cache import FrameCache, Frames, default_cache
from convlstm_jax.data.files import LeftOut, content_hash, plural
from convlstm_jax.data.prepared import Manifest, Prepared, is_prepared, preparing
from convlstm_jax.data.radar.clips import (
    Event,
    RadarClips,
    date_of,
    format_gaps,
    name_of,
    split_at_gaps,
    split_events,
)
from convlstm_jax.data.radar.composites import (
    Composite,
    CompositeFile,
    batches,
    decoded_composites,
    decoding,
    find_composites,
    read_composite,
    refuse_left_out,
)
from convlstm_jax.data.radar.formats import RADAR_FORMATS
from convlstm_jax.data.sources import SPLITS, Sources
from convlstm_jax.errors import UserError

_PICTURES = {"radar_format": ("picture",)}


class RadarConfig(RainDataConfig):
    """A folder of radar composites with the time in their names.

    An event is a run of composites without a missing time step. Splits are by event,
    in the order of time; where there are fewer events than splits, each is cut in time.
    No frame is in two splits.
    """

    name: Literal["radar"] = "radar"
    path: str = field(
        "",
        "Folder of radar composites with the time in their names (year to minute, 12 "
        "digits), or a folder that --mode=prepare wrote.",
    )
    radar_format: Literal["picture", "odim_hdf5", "knmi_hdf5", "mch_gif", "bom_rf3"] = (
        field(
            "picture",
            '"picture" (8 bits, PGM or PNG), "odim_hdf5" (DBZH, RATE, ACRR or TH), '
            '"knmi_hdf5" (reflectivity or rain), or, where pysteps is installed (pip '
            'install -r requirements-radar.txt), "mch_gif" (AQC, CPC, AZC and RZC of '
            'MeteoSwiss) or "bom_rf3" (NetCDF of Australia\'s Rainfields 3).',
        )
    )
    downsample: int = field(
        4, "Side of the blocks of pixels averaged into one.", unit="pixels", ge=1
    )
    frame_stride: int = field(1, "Use every n-th composite.", ge=1)
    clip_stride: int = field(
        1,
        "Composites from the beginning of one clip to that of the next; 0: as many as "
        "a clip spans, so that clips do not overlap.",
        ge=0,
    )
    crop_stride: int = field(
        8,
        "Distance of two training crops; 0: side by side, as those of validation and "
        "test are.",
        unit="pixels",
        ge=0,
    )
    min_rain_share: float = field(
        0.05,
        "Share of rain, from 0.1 mm/h on, that a crop must have in the first frame of "
        "its clip.",
        ge=0,
        lt=1,
    )
    time_step_minutes: float = field(
        5.0,
        "Time from one composite to the next; where one is missing, an event ends. "
        "Rain gathered (mm) counts as that of this time, unless a file says of which.",
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
    validation_fraction: float = field(
        0.1, "Share of the events for validation.", gt=0, lt=1
    )
    test_fraction: float = field(
        0.1, "Share of the events for test, where no dates are given.", gt=0, lt=1
    )
    bad_files: Literal["refuse", "skip"] = field(
        "refuse",
        "What to do with a composite that cannot be read, is of another size or has no "
        'time of its own: "refuse" it, or "skip" it as if it were missing.',
    )

    @property
    def minutes_per_frame(self) -> float:
        """Minutes from one frame of a clip to the next."""
        return self.time_step_minutes * self.frame_stride

    def check(self) -> Iterator[str]:
        """Yields what is wrong between the fields."""
        yield from super().check()
        if self.validation_fraction + self.test_fraction >= 1:
            yield (
                f"validation_fraction is {self.validation_fraction:g}: it must be "
                f"below 1 together with test_fraction, which is {self.test_fraction:g}"
            )

    def check_disk(self) -> Iterator[str]:
        """Yields what is wrong with the folder."""
        if not self.path or not Path(self.path).expanduser().is_dir():
            yield f"path is {self.path!r}: it must be a folder of radar composites"

    def shaping(self) -> dict[str, Any]:
        """The fields that decide the pixels of composites, and their values."""
        names = ["radar_format", "downsample", "dbz_min", "dbz_max"]
        if self.radar_format == "picture":
            names += ["dbz_gain", "dbz_offset", "no_data_value"]
        else:  # Pixels of pictures are reflectivities, whatever rain is made of them.
            names += ["zr_a", "zr_b", "time_step_minutes"]
        return {name: getattr(self, name) for name in names}

    def sources(self, *, num_frames: int, seed: int) -> Sources:
        """The splits; conditions are the dates of the events. Nothing is drawn."""
        composites, left_out = self._open()
        told = f": {left_out}" if left_out.reasons else ""
        runs, gaps = split_at_gaps(composites, self.time_step_minutes)
        span = self.span(num_frames)
        events = [run for run in runs if len(run) >= span]
        conditions = tuple(dict.fromkeys(map(date_of, events)))
        for date in self.test_conditions:
            if date not in conditions:
                raise UserError(
                    f"test_conditions names {date!r}: it must name dates on which "
                    f"events of '{self.path}' with at least {span} composites "
                    f"{self.time_step_minutes:g} minutes apart begin: "
                    f"{', '.join(conditions) or 'there is none'}"
                )
        parts, cut_in_time = split_events(events, span, self)
        clips = {
            split: RadarClips(self, split, parts[split], num_frames, conditions)
            for split in SPLITS
        }
        facts = self._facts(composites, events, span)
        numbers = ", ".join(f"{len(clips[split])} {split}" for split in SPLITS)
        numbers = (
            f"clips of {num_frames} frames at {self.height}x{self.width}: {numbers}"
        )
        for split in clips:
            if not len(clips[split]):
                raise UserError(
                    f"the {split} split of '{self.path}' is empty ({facts}; {numbers}"
                    f"{told}): add composites, ask for fewer frames or smaller crops, "
                    "or change data.min_rain_share, data.time_step_minutes, the "
                    "fractions or data.test_conditions"
                )
        lengths = ", ".join(f"{name_of(event)}: {len(event)}" for event in events[:8])
        description = (
            f"Radar composites of '{self.path}': {facts} ({lengths}"
            f"{', …' if len(events) > 8 else ''}), "
            f"{'each cut in time' if cut_in_time else 'split by event'}; {numbers}."
        )
        if self.test_conditions:
            description += f" Held out for the test: {', '.join(self.test_conditions)}."
        description += format_gaps(gaps, self.time_step_minutes)
        if told:
            description += f" Left out{told}."
        return Sources(
            train=clips["train"],
            validation=clips["validation"],
            test=clips["test"],
            description=description,
            height=self.height,
            width=self.width,
            channels=1,
            conditions=conditions,
            test_films=clips["test"].film_names,
        )

    def span(self, num_frames: int) -> int:
        """Composites from the first to the last of a clip."""
        return (num_frames - 1) * self.frame_stride + 1

    def _facts(
        self, composites: list[Composite], events: list[Event], span: int
    ) -> str:
        """What the folder holds, in words."""
        height, width = composites[0].size
        facts = (
            f"{len(composites)} composites of {height}x{width} pixels after averaging "
            f"over {self.downsample}x{self.downsample}, {self.time_step_minutes:g} "
            f"minutes apart; {plural(len(events), 'event')} of at least {span} "
            "composites"
        )
        steps = Counter(
            (after.time - before.time).total_seconds() / 60
            for before, after in pairwise(composites)
        )
        usual = steps.most_common(1)[0][0] if steps else self.time_step_minutes
        if usual != self.time_step_minutes:
            facts += f"; most composites are {usual:g} minutes apart"
        empty = [one.name for one in composites if not one.has_data]
        if empty:
            facts += f"; {len(empty)} without data at any pixel (first: '{empty[0]}')"
        return facts

    def _open(self) -> tuple[list[Composite], LeftOut]:
        """The composites of the folder that can be used, oldest first, and the others.

        Raises:
            UserError: there are none, or some are to be refused.
        """
        entries: list[tuple[Frames, Mapping[str, Any]]] = []
        if is_prepared(self.path):
            prepared = Prepared(self.path, "radar", self.shaping())
            told = {why: [*one] for why, one in prepared.manifest.left_out.items()}
            left_out = LeftOut(told, "composite")
            for item in prepared.manifest.items:
                found = prepared.frames(item)
                assert found is not None
                entries.append((found, item.facts))
        else:
            files, left_out = find_composites(self.path, self.radar_format)
            refuse_left_out(left_out, self.bad_files)
            for batch in batches(files):
                frames = self._decoded(batch, default_cache())
                entries.append((frames, frames.extra))
        composites = decoded_composites(entries, left_out)
        refuse_left_out(left_out, self.bad_files)
        if not composites:
            raise UserError(
                f"the folder '{self.path}' holds no radar composite that can be used "
                f"as data.radar_format={self.radar_format!r} "
                f"({', '.join(RADAR_FORMATS[self.radar_format].suffixes)})"
                + (f": {left_out}" if left_out.reasons else "")
            )
        return composites, left_out

    def prepare(self, output: Path) -> Manifest:
        """Decodes all composites once into a folder; see `prepared`.

        Raises:
            UserError: a composite is to be refused, or the folder cannot be written.
        """
        files, left_out = find_composites(self.path, self.radar_format)
        refuse_left_out(left_out, self.bad_files)
        with preparing(output, "radar", self.path, self.shaping()) as folder:
            entries = []
            for batch in batches(files):
                frames = self._decoded(batch, folder.cache)
                folder.add(batch[0].name, frames, frames.extra)
                entries.append((frames, frames.extra))
            folder.left_out = {why: [*one] for why, one in left_out.reasons.items()}
            decoded_composites(entries, left_out)
            refuse_left_out(left_out, self.bad_files)
        assert folder.manifest is not None
        return folder.manifest

    def _decoded(self, batch: list[CompositeFile], cache: FrameCache) -> Frames:
        paths, names = [file.path for file in batch], [file.name for file in batch]
        content = content_hash(paths, cache.folder / ".hashes")
        key = {"kind": "radar", "content": content, "names": names, **self.shaping()}
        return cache.cached(key, decoding(batch, self))

    def read_input(self, path: str, num_frames: int) -> InputClip:
        """Reads the last composites of a folder, their whole area.

        Those of the last run without a missing time step count; with `bad_files` of
        "skip" one that cannot be read is as if it were missing.
        """
        files, left_out = find_composites(path, self.radar_format)
        refuse_left_out(left_out, self.bad_files)
        span = self.span(num_frames)
        while True:
            events, _ = split_at_gaps(files, self.time_step_minutes)
            if not events or len(events[-1]) < span:
                raise UserError(
                    f"'{path}' ends with {len(events[-1]) if events else 0} composites "
                    f"that are {self.time_step_minutes:g} minutes apart: it must end "
                    f"with at least {span}"
                    + (f" (left out: {left_out})" if left_out.reasons else "")
                )
            chosen = events[-1][-span:]
            read: list[np.ndarray] = []
            try:
                for file in chosen:
                    read.append(read_composite(file.path, self))
                break
            except UserError as error:
                left_out.add("unreadable", str(error))
                refuse_left_out(left_out, self.bad_files)
                files.remove(chosen[len(read)])
        chosen, read = chosen[:: self.frame_stride], read[:: self.frame_stride]
        if len({one.shape for one in read}) > 1:
            raise UserError(
                f"'{path}' has composites of different sizes, from '{chosen[0].name}' "
                "on: they must be of one size"
            )
        frames, mask = np.moveaxis(np.stack(read), 1, 0)[..., np.newaxis]
        if not mask[-1].any():
            raise UserError(
                f"'{path}': the latest composite, '{chosen[-1].name}', has no data at "
                "any pixel: it must have some to forecast from"
            )
        label = f"{path} (left out: {left_out})" if left_out.reasons else path
        return InputClip(frames, mask, tuple(one.time for one in chosen), label)
