"""Radar composites: times, gaps, splits, crops and no data, on tiny files."""

import gzip
import importlib.util
import os
import pickle
import re
from datetime import datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.config import validated
from convlstm_jax.data.radar import composites as composites_module
from convlstm_jax.data.radar.composites import (
    Composite,
    find_composites,
    split_at_gaps,
    time_of,
)
from convlstm_jax.data.radar.config import (
    RadarConfig,
    crop_places,
    date_of,
    split_events,
)
from convlstm_jax.errors import UserError
from tests.data.radar_files import SCALE, level, reader


def dbz(value):
    return level(value / 2 - 32)


def write_frames(folder, start, frames):
    """Composites as the FMI's: comments in the head, gzip, 255 for no data."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(frames):
        time = datetime.strptime(start, "%Y%m%d%H%M") + timedelta(minutes=5 * index)
        head = f"P5\n# obstime {start}\n{frame.shape[1]} {frame.shape[0]}\n255\n"
        content = gzip.compress(head.encode() + frame.tobytes())
        (folder / f"{time:%Y%m%d%H%M}_rain.pgm.gz").write_bytes(content)
    return frames


def write(folder, start, count, seed=0):
    frames = np.random.default_rng(seed).integers(64, 180, (count, 12, 10), np.uint8)
    frames[:, 0, 0] = 255
    return write_frames(folder, start, frames)


def config(path, **fields):
    defaults = {"height": 4, "width": 5, "downsample": 1, "crop_stride": 0}
    defaults |= {"min_rain_share": 0.0, "dbz_max": 60.1}
    return RadarConfig(path=str(path), **{**defaults, **fields})


def sources(path, num_frames=4, **fields):
    return config(path, **fields).sources(num_frames=num_frames, seed=0)


def levels(frames):
    """Pixels of composites, 0 where there is no data."""
    return np.where(frames == 255, 0, dbz(frames)).astype(np.uint8)


def test_blocks_are_averaged_as_rain_over_what_holds_data(tmp_path):
    values = np.full((4, 7), 255, np.uint8)
    values[:2, :2] = [[104, 124], [255, 104]]  # 20, 30, no data, 20 dBZ
    values[:2, 2:4] = [[104, 255], [255, 84]]  # Half: just enough data.
    values[:2, 4:6] = [[104, 255], [255, 255]]
    values[2:, :2] = 0
    Image.fromarray(values).save(tmp_path / "a.pgm")
    pixels, valid = reader(downsample=2)(tmp_path / "a.pgm")
    np.testing.assert_array_equal(valid, [[1, 1, 0], [1, 0, 0]])
    # Reflectivities of mean rain rates, of R = (Z / a)^(1/b).
    rain = [(10 ** (np.array(dbz) / 10) / 223) ** (1 / 1.53) for dbz in
            ([20, 30, 20], [20, 10])]  # fmt: skip
    means = [10 * np.log10(223 * one.mean() ** 1.53) for one in rain]
    np.testing.assert_array_equal(pixels, [[*level(np.array(means)), 0], [0, 0, 0]])


def test_the_mean_rain_of_a_block_is_kept(tmp_path):
    """What averaging as Z makes too much."""
    values = np.random.default_rng(0).integers(74, 160, (48, 48), np.uint8)
    Image.fromarray(values).save(tmp_path / "a.pgm")
    fine, coarse = (
        SCALE.rain_mm_per_h(reader(downsample=size)(tmp_path / "a.pgm")[0] / 255)
        for size in (1, 4)
    )
    np.testing.assert_allclose(fine.mean(), coarse.mean(), rtol=0.005)


def test_values_above_the_scale_are_counted(tmp_path):
    frames = np.full((14, 12, 10), 104, np.uint8)  # 20 dBZ
    frames[3, :2, :2], frames[3, 0, 5], frames[5, 2, 2] = 184, 255, 185  # 60, 60.5 dBZ
    write_frames(tmp_path, "201609281445", frames)
    assert "Set to" not in sources(tmp_path, dbz_max=60.5).description
    told = "Set to dbz_max=60 (244 mm/h), as they are above it: 1 pixel."
    assert told in sources(tmp_path, dbz_max=60.0).description
    assert "it: 5 pixels." in sources(tmp_path, dbz_max=59.0).description


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("201609281445_fmi.pgm.gz", datetime(2016, 9, 28, 14, 45)),
        ("RAD_20170509-1045.png", datetime(2017, 5, 9, 10, 45)),
        ("x_20170509T104500Z.png", datetime(2017, 5, 9, 10, 45)),
        ("201613281445.png", None),
        ("frame_0001.png", None),
        ("AQC162721445F.png", None),
    ],
)
def test_the_time_in_a_name(name, time):
    assert time_of(name) == time


def test_mch_names_have_the_day_of_the_year(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for name in ("AQC162721445F_00005.801", "AQC163991445F", ".AQC162721450F"):
        (tmp_path / f"{name}.gif").write_bytes(b"")
    (tmp_path / "AQC162721455F.png").write_bytes(b"")
    wanted = config(tmp_path, radar_format="mch_gif", bad_files="skip")
    (composite,), left_out = find_composites(tmp_path, wanted)
    assert composite.time == datetime(2016, 9, 28, 14, 45)
    ((sentence,),) = left_out.reasons.values()
    assert "AQC163991445F.gif' has no time in its name" in sentence


def composites(*minutes):
    start = datetime(2020, 1, 1)
    times = [start + timedelta(minutes=m) for m in minutes]
    return [Composite(str(time), time, (1, 1), None, 0) for time in times]


def test_a_missing_step_splits_an_event_and_is_counted():
    runs, missing = split_at_gaps(composites(0, 5, 10, 25, 28, 5000, 5005), 5)
    assert [len(run) for run in runs] == [3, 1, 1, 2]
    assert missing == 2
    assert date_of(runs[3]) == "2020-01-04"
    assert split_at_gaps([], 5) == ([], 0)


def test_events_are_dealt_out_in_time_or_cut_where_there_are_few():
    days = [composites(*range(1440 * d, 1440 * d + 50, 5)) for d in range(5)]
    fields = {"validation_fraction": 0.2, "test_fraction": 0.2}
    parts, cut = split_events(days, 4, config("", **fields))
    assert not cut
    assert [[date_of(event) for event, _ in parts[s]] for s in parts] == [
        ["2020-01-01", "2020-01-02", "2020-01-03"],
        ["2020-01-04"],
        ["2020-01-05"],
    ]
    held_out = config("", test_conditions=("2020-01-02",))
    parts, cut = split_events(days[:2], 4, held_out)
    assert cut
    assert parts["test"] == [(days[1], days[1])]
    assert [len(parts[s][0][1]) for s in ("train", "validation")] == [6, 4]


def frames_of(source):
    """Every frame of every clip, by its bytes."""
    return {frame.tobytes() for clip in source for frame in clip["frames"]}


def test_no_clip_shares_a_frame_with_another_split(tmp_path):
    write(tmp_path / "a", "201609281445", 14)
    found = sources(tmp_path, validation_fraction=0.2, test_fraction=0.2)
    train, validation, test = (
        frames_of(list(split)) for split in (found.train, found.validation, found.test)
    )
    assert train and validation and test
    assert not (train & validation or train & test or validation & test)
    assert "each cut in time" in found.description
    assert set(found.test_films) == {"2016-09-28 14:45"}
    assert len(found.test_films) == len(found.test)


def test_a_day_is_held_out_and_is_the_condition(tmp_path):
    write(tmp_path / "a", "201609281445", 9, seed=1)
    second = write(tmp_path / "b", "201705091045", 5, seed=2)
    found = sources(tmp_path, test_conditions=("2017-05-09",), validation_fraction=0.3)
    assert found.conditions == ("2016-09-28", "2017-05-09")
    seen = list(pickle.loads(pickle.dumps(found.test)))
    assert {int(clip["condition"]) for clip in seen} == {1}
    assert {int(clip["condition"]) for clip in found.train} == {0}
    # Two starts of crops three high and two wide, in an order of their own.
    expected = [
        levels(second[s : s + 4, y : y + 4, x : x + 5])
        for s in (0, 1)
        for y in (0, 4, 8)
        for x in (0, 5)
    ]
    clips = [clip["frames"][..., 0] for clip in seen]
    assert sorted(map(bytes, clips)) == sorted(map(bytes, expected))
    assert not np.array_equal(clips, expected)
    corner = next(clip for clip in seen if not clip["mask"].all())
    np.testing.assert_array_equal(corner["mask"][:, 0, 0], np.zeros((4, 1)))
    assert corner["mask"].sum() == 4 * (20 - 1)
    assert (corner["frames"][:, 0, 0] == 0).all()
    assert "Held out for the test: 2017-05-09" in found.description
    for index in (-1, 12):
        with pytest.raises(IndexError, match=f"Clip {index} is out .* holds 12 clips"):
            found.test[index]
    fields = {"test_conditions": ("2017-05-09",), "num_test_sequences": 5}
    few = sources(tmp_path, validation_fraction=0.3, **fields).test
    np.testing.assert_array_equal([clip["frames"][..., 0] for clip in few], clips[:5])


def test_training_crops_may_overlap_and_strides_count_composites(tmp_path):
    write(tmp_path / "a", "201609281445", 16, seed=1)
    write(tmp_path / "b", "201705091045", 7, seed=2)
    strides = {"frame_stride": 2, "crop_stride": 2, "clip_stride": 2}
    found = sources(tmp_path, test_conditions=("2017-05-09",), **strides)
    # A clip spans 7 of the 9 composites that validation leaves; 5 × 3 crops of each.
    assert len(found.train) == 2 * 5 * 3
    assert len(found.validation) == len(found.test) == 3 * 2


def test_clips_have_their_margin_and_no_data_beyond_the_composite(tmp_path):
    write(tmp_path, "201609281445", 25)
    plain, found = (sources(tmp_path, margin=margin) for margin in (0, 3))
    for split in ("train", "test"):
        bare, wide = getattr(plain, split), getattr(found, split)
        assert len(bare) == len(wide) > 0
        whole = {bytes(one["frames"]): one for one in bare}
        for index in range(len(wide)):
            clip = wide[index]
            frames, mask = clip["frames"], clip["mask"]
            assert frames.shape == mask.shape == (4, 10, 11, 1)
            inner = np.ascontiguousarray(frames[:, 3:-3, 3:-3])
            one = whole[bytes(inner)]
            np.testing.assert_array_equal(mask[:, 3:-3, 3:-3], one["mask"])
            assert not frames[mask == 0].any()
    # Composites have 12×10 pixels: crops lie in a grid of 3×2, so beyond two of their
    # sides is nothing, or beyond one and something on the others.
    corner = next(
        clip for clip in map(found.test.__getitem__, range(len(found.test)))
        if not clip["mask"][:, :3].any() and not clip["mask"][:, :, :3].any()
    )  # fmt: skip
    assert corner["mask"][:, 3:, 3:].mean() > 0.9


def test_crops_without_rain_or_data_are_passed_over():
    pixels, valid = np.zeros((2, 8, 10), np.uint8)
    pixels[:4, :5] = 140  # Rain here,
    valid[:] = 1
    valid[4:, 5:] = 0  # no data there.
    for share, places in ((0.0, [(0, 0), (0, 5), (4, 0)]), (0.5, [(0, 0)])):
        wanted = config("", min_rain_share=share)
        assert crop_places((pixels, valid), wanted, 0) == places
    valid[:2, :5] = 0  # Half is just enough data; rain is a share of it.
    pixels[:4, :5] = 0
    pixels[2:4, :1] = 140
    for share, places in ((0.2, [(0, 0)]), (0.21, [])):
        wanted = config("", min_rain_share=share)
        assert crop_places((pixels, valid), wanted, 0) == places


def test_bad_files_are_refused_or_left_out_and_counted(tmp_path):
    write(tmp_path, "201609281445", 22)
    files = sorted(tmp_path.iterdir())
    files[4].write_bytes(files[4].read_bytes()[:40])
    with pytest.raises(UserError, match=f"{files[4].name}' cannot be read.*bad_files"):
        sources(tmp_path)
    Image.new("L", (3, 3)).save(tmp_path / "201609280000.png")
    Image.new("L", (3, 3)).save(tmp_path / "map.png")
    Image.new("RGB", (10, 12)).save(tmp_path / "201609280005.png")
    os.mkfifo(tmp_path / "201609280010.png")  # To be read for ever.
    Image.new("L", (10, 12)).save(tmp_path / "201609281445.png")
    found = sources(tmp_path, bad_files="skip")
    for told in (
        "3 composites unreadable (first: ",
        "1 composite of another size than 12×10 pixels, that of most (first: '2016",
        "1 composite without a time",
        "1 composite with the time of another",
        "Time steps missing: 1.",
        "2 events",
    ):
        assert told in found.description


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"test_conditions": ("2001-01-01",)}, "names '2001-01-01'.*2016-09-28"),
        ({"num_frames": 13}, "train split .* is empty .*: 39 composites in a row with"),
        (
            {"time_step_minutes": 10.0},
            "are 5 minutes apart and data.time_step_minutes is 10: it must be that",
        ),
        (
            {"height": 99},
            "train split .* is empty .*: composites of 12×10 pixels have no crop of 99",
        ),
        ({"time_step_minutes": 4.2}, "apart and data.time_step_minutes is 4.2: it"),
        ({"time_step_minutes": 2.5}, "2.5 minutes apart, but most of them 5;"),
        ({"downsample": 11}, "at least downsample=11"),
        ({"radar_format": "odim_hdf5"}, "holds no radar composite that can be used"),
    ],
)
def test_what_leaves_no_clip_is_said_in_a_sentence(tmp_path, fields, message):
    write(tmp_path, "201609281445", 12)
    with pytest.raises(UserError, match=message):
        sources(tmp_path, **fields)


@pytest.mark.parametrize("fields", [{}, {"test_fraction": 0.5}])
def test_the_number_of_composites_that_is_enough(tmp_path, fields):
    write(tmp_path / "few", "201609281445", 5)
    with pytest.raises(UserError, match="composites in a row") as caught:
        sources(tmp_path / "few", **fields)
    enough = int(re.search(r"(\d+) composites in a row", str(caught.value))[1])
    write(tmp_path / "short", "201609281445", enough - 1)
    with pytest.raises(UserError, match="is empty"):
        sources(tmp_path / "short", **fields)
    write(tmp_path / "long", "201609281445", enough)
    assert sources(tmp_path / "long", **fields).train


def test_composites_are_decoded_once_until_they_or_the_fields_change(
    tmp_path, monkeypatch
):
    write(tmp_path, "201609281445", 14)
    read = []
    plain = composites_module.read_composite
    monkeypatch.setattr(
        composites_module,
        "read_composite",
        lambda path, *rest: read.append(path.name) or plain(path, *rest),
    )
    before = frames_of(list(sources(tmp_path).train))
    assert len(read) == 14
    assert frames_of(list(sources(tmp_path, zr_a=200.0).train)) == before
    assert len(read) == 14
    sources(tmp_path, dbz_max=50.0)
    assert len(read) == 28
    write(tmp_path, "201609281445", 1, seed=7)
    assert frames_of(list(sources(tmp_path).train)) != before
    assert len(read) == 42


def test_an_event_that_lasts_over_midnight_is_one(tmp_path):
    """Its composites lie in two entries of the cache."""
    frames = write(tmp_path, "201609282220", 28)
    found = sources(tmp_path, height=12, width=10, frame_stride=2, test_fraction=0.45)
    assert found.conditions == ("2016-09-28",)
    assert set(found.test_films) == {"2016-09-28 22:20"}
    clips = [clip["frames"] for clip in [*found.train, *found.test]]
    expected = {levels(frames[k : k + 7 : 2]).tobytes() for k in range(28)}
    assert len(clips) > 1 and {clip.tobytes() for clip in clips} <= expected
    (tmp_path / "201609290000_rain.pgm.gz").write_bytes(b"damaged")
    found = sources(tmp_path, bad_files="skip", test_fraction=0.4)
    assert "2 events of at least 4 composites" in found.description
    assert set(found.test_films) == {"2016-09-28 22:20", "2016-09-29 00:05"}


def test_a_prepared_folder_gives_what_its_source_gives(tmp_path):
    write(tmp_path / "a", "201609281445", 22)
    bad = sorted((tmp_path / "a").iterdir())[3]
    bad.write_bytes(b"damaged")
    Image.new("L", (3, 3)).save(tmp_path / "a" / "201609280000.png")
    Image.new("L", (3, 3)).save(tmp_path / "a" / "map.png")
    with pytest.raises(UserError, match=r"map.png' has no time"):
        config(tmp_path / "a").prepare(tmp_path / "refused")
    manifest = config(tmp_path / "a", bad_files="skip").prepare(tmp_path / "b")
    assert manifest.kind == "radar" and manifest.counts["frames"] == 22
    plain, prepared = (
        sources(tmp_path / name, bad_files="skip") for name in ("a", "b")
    )
    assert prepared.description == plain.description.replace(
        str(tmp_path / "a"), str(tmp_path / "b")
    )
    for split in ("train", "validation", "test"):
        one, two = getattr(plain, split), getattr(prepared, split)
        assert frames_of(list(one)) == frames_of(list(two))
    with pytest.raises(UserError, match=r"map.png' has no time"):
        sources(tmp_path / "b")
    with pytest.raises(UserError, match="downsample is 1 there and 2 here"):
        sources(tmp_path / "b", downsample=2, bad_files="skip")
    again = config(tmp_path / "a", bad_files="skip").prepare(tmp_path / "b")
    assert again == manifest


def test_the_last_composites_are_read_as_training_reads_them(tmp_path):
    frames = write(tmp_path, "201609281445", 9)
    read = config(tmp_path, frame_stride=2).read_input(str(tmp_path), 3)
    np.testing.assert_array_equal(read.frames[..., 0], levels(frames[4::2]))
    np.testing.assert_array_equal(read.mask[..., 0], frames[4::2] != 255)
    assert read.times[-1] == datetime(2016, 9, 28, 15, 25) and len(read.times) == 3
    last = sorted(tmp_path.iterdir())[-1]
    last.write_bytes(b"damaged")
    with pytest.raises(UserError, match=f"{last.name}' cannot be read.*'skip'"):
        config(tmp_path).read_input(str(tmp_path), 3)
    read = config(tmp_path, bad_files="skip").read_input(str(tmp_path), 8)
    np.testing.assert_array_equal(read.mask[..., 0], frames[:8] != 255)
    assert "1 composite unreadable (first: " in read.label
    with pytest.raises(UserError, match=r"ends with 8 composites .* at least 9"):
        config(tmp_path, bad_files="skip").read_input(str(tmp_path), 9)


def test_fields_that_do_not_suit_each_other_or_the_disk(tmp_path):
    other = {"radar_format": "odim_hdf5", "dbz_gain": 1.0}
    (problem,) = validated(RadarConfig, other, "config.data.")[1]
    assert "config.data.dbz_gain" in problem
    (problem,) = config(tmp_path / "none").check_machine()
    assert "none': it must be a folder of radar composites" in problem
