"""A folder of radar composites as clips to learn from, to validate and to test on."""

from typing import Any

from convlstm_jax.data.composites import CompositeReader
from convlstm_jax.data.prepared import is_prepared
from convlstm_jax.data.prepared_composites import (
    PreparedComposites,
    open_prepared_composites,
)
from convlstm_jax.data.radar_crops import Cutting, RadarClips
from convlstm_jax.data.radar_events import (
    find_composites,
    split_at_gaps,
    split_events,
)
from convlstm_jax.data.radar_formats import RADAR_FORMATS
from convlstm_jax.data.radar_opening import (
    readable_composites,
    refuse_left_out,
    told_left_out,
)
from convlstm_jax.data.sources import Sources, check_seed_and_counts
from convlstm_jax.errors import UserError
from convlstm_jax.rain import RainScale


def radar_sources(
    *,
    path: str,
    num_frames: int,
    height: int,
    width: int,
    downsample: int = 1,
    frame_stride: int = 1,
    clip_stride: int = 0,
    crop_stride: int = 0,
    least_rain_share: float = 0.0,
    time_step_minutes: float = 5.0,
    dbz_gain: float = 0.5,
    dbz_offset: float = -32.0,
    no_data_value: int = 255,
    radar_format: str = "picture",
    scale: RainScale,
    test_conditions: tuple[str, ...] = (),
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    bad_files: str = "refuse",
    seed: int = 0,
    num_train_sequences: int,
    num_validation_sequences: int,
    num_test_sequences: int,
) -> Sources:
    """Clips from a folder of radar composites with the time in their names.

    An event is a run of composites without a missing time step. Splits are by event,
    in the order of time; where there are fewer events than splits, each is cut in time.
    No frame is in two splits. Every composite is read once when the folder is opened.

    A folder that `prepare_composites` wrote gives what the folder it was made from
    gives, bit for bit, and needs no package that reads the format.

    Args:
      path: the folder, see `find_composites`, or a prepared one.
      num_frames: frames per clip, input and output together.
      height: H of a crop, pixels of the averaged composite.
      width: W of a crop.
      downsample: see `CompositeReader`.
      frame_stride: takes every so many-th composite.
      clip_stride: composites from one clip's start to the next one's; 0: one clip
        starts after the other's end.
      crop_stride: pixels from one crop to the next in training; 0: side by side, as
        they always are in validation and test.
      least_rain_share: share of pixels with rain of at least 0.1 mm/h that a crop must
        have in its clip's first frame.
      time_step_minutes: from one composite to the next; in some formats also the time
        in which a composite's rain was gathered, see `import_reflectivity`.
      dbz_gain: see `CompositeReader`.
      dbz_offset: see `CompositeReader`.
      no_data_value: see `CompositeReader`.
      radar_format: a name of `RADAR_FORMATS`.
      scale: what the pixels of the clips are to mean.
      test_conditions: dates, such as 2017-05-09; the events that begin on them are the
        test split and in no other, and `test_fraction` means nothing.
      validation_fraction: share of the events for validation, in (0, 1).
      test_fraction: share of the events for the test, in (0, 1).
      bad_files: whether a composite that cannot be read, is of another size or has no
        time of its own is to be refused ("refuse"), or left out as if it were missing,
        and counted ("skip").
      seed: the training seed; of no effect here, where nothing is drawn.
      num_train_sequences: upper limit of clips to learn from.
      num_validation_sequences: upper limit of clips for validation.
      num_test_sequences: upper limit of clips for the test.

    Returns:
      The splits; their conditions are the dates of the events.

    Raises:
      UserError: an argument is out of its range, what the format needs is not
        installed, a file is to be refused, or no clip is left in a split.
    """
    check_seed_and_counts(
        seed, num_train_sequences, num_validation_sequences, num_test_sequences
    )
    if bad_files not in ("refuse", "skip"):
        raise UserError(f"bad_files is {bad_files!r}, but must be 'refuse' or 'skip'.")
    how_read: dict[str, Any] = {
        "downsample": downsample,
        "dbz_gain": dbz_gain,
        "dbz_offset": dbz_offset,
        "no_data_value": no_data_value,
        "radar_format": radar_format,
        "time_step_minutes": time_step_minutes,
    }
    reader: CompositeReader | PreparedComposites
    if is_prepared(path):
        composites, left_out, reader = open_prepared_composites(
            path, scale, how_read, bad_files
        )
    else:
        composites, left_out = find_composites(path, radar_format)
        reader = CompositeReader(scale, **how_read)
        composites = readable_composites(composites, reader, left_out)
    refuse_left_out(left_out, bad_files)
    told = told_left_out(left_out)
    if not composites:
        raise UserError(
            f"The folder '{path}' holds no radar composite that can be used as "
            f"data.radar_format={radar_format!r} "
            f"({', '.join(RADAR_FORMATS[radar_format].suffixes)}){told}."
        )
    runs, gaps = split_at_gaps(composites, time_step_minutes)
    cuttings = {
        split: Cutting(
            num_frames=num_frames,
            height=height,
            width=width,
            frame_stride=frame_stride,
            clip_stride=clip_stride or (num_frames - 1) * frame_stride + 1,
            crop_stride=crop_stride if split == "train" else 0,
            least_rain_share=least_rain_share,
        )
        for split in ("train", "validation", "test")
    }
    span = cuttings["train"].span
    events = [run for run in runs if len(run) >= span]
    conditions = tuple(dict.fromkeys(event.date for event in events))
    for date in test_conditions:
        if date not in conditions:
            raise UserError(
                f"test_conditions names {date!r}, but the events of '{path}' with at "
                f"least {span} composites {time_step_minutes:g} minutes apart begin on "
                f"{', '.join(conditions) or 'no day'}."
            )
    parts, cut_in_time = split_events(
        events, span, test_conditions, validation_fraction, test_fraction
    )
    limits = (num_train_sequences, num_validation_sequences, num_test_sequences)
    clips = {
        split: RadarClips(parts[split], reader, cuttings[split], conditions, most)
        for split, most in zip(cuttings, limits, strict=True)
    }
    told_clips = ", ".join(f"{len(clips[split])} {split}" for split in clips)
    tall, wide = reader.read(composites[0].path).shape[1:]
    facts = (
        f"{len(composites)} composites of {tall}x{wide} pixels after averaging over "
        f"{downsample}x{downsample}, {time_step_minutes:g} minutes apart; "
        f"{len(events)} events of at least {span} composites"
    )
    for split in clips:
        if not len(clips[split]):
            raise UserError(
                f"The {split} split of '{path}' is empty ({facts}; clips of "
                f"{num_frames} frames at {height}x{width}: {told_clips}"
                f"{told}); add composites, ask for fewer frames or smaller crops, or "
                "change data.least_rain_share, data.time_step_minutes, the "
                "fractions or data.test_conditions."
            )
    description = (
        f"Radar composites of '{path}': {facts} ("
        + ", ".join(f"{event.name}: {len(event)}" for event in events[:8])
        + (", …" if len(events) > 8 else "")
        + f"), {'each cut in time' if cut_in_time else 'split by event'}; clips of "
        f"{num_frames} frames at {height}x{width}: {told_clips}."
    )
    if test_conditions:
        description += f" Held out for the test: {', '.join(test_conditions)}."
    if gaps:
        description += f" Time steps missing: {len(gaps)} (first: {gaps[0]})."
    if left_out:
        description += f" Left out{told}."
    return Sources(
        train=clips["train"],
        validation=clips["validation"],
        test=clips["test"],
        description=description,
        height=height,
        width=width,
        channels=1,
        conditions=conditions,
    )
