"""Radar composites: times, gaps, splits and no data, on tiny files."""

import gzip
import importlib.util
import os
import pickle
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.config import validated
from convlstm_jax.data.radar import composites as composites_module
from convlstm_jax.data.radar.clips import (
    date_of,
    format_gaps,
    name_of,
    split_at_gaps,
    split_events,
)
from convlstm_jax.data.radar.composites import CompositeFile, find_composites, time_of
from convlstm_jax.data.radar.config import RadarConfig
from convlstm_jax.errors import UserError
from tests.data.radar_files import level, random_bytes, reader, write_odim

FMI = Path(__file__).resolve().parents[3] / "shared" / "data" / "radar_fmi"


def write(folder, start, count, seed=0, size=(12, 10), step=5):
    """Composites as the FMI's: comments in the head, gzip, 255 for no data."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    frames = rng.integers(64, 180, (count, *size), np.uint8)
    frames[:, 0, 0] = 255
    time = datetime.strptime(start, "%Y%m%d%H%M")
    for index, frame in enumerate(frames):
        name = f"{time + timedelta(minutes=step * index):%Y%m%d%H%M}_rain.pgm.gz"
        head = f"P5\n# obstime {start}\n{size[1]} {size[0]}\n255\n".encode()
        (folder / name).write_bytes(gzip.compress(head + frame.tobytes()))
    return frames


def config(path, **fields):
    defaults = {
        "height": 4,
        "width": 5,
        "downsample": 1,
        "crop_stride": 0,
        "min_rain_share": 0.0,
        "dbz_max": 60.1,
        "num_validation_sequences": 10_000,
    }
    return RadarConfig(path=str(path), **{**defaults, **fields})


def sources(path, num_frames=4, **fields):
    return config(path, **fields).sources(num_frames=num_frames, seed=0)


def dbz(value):
    return level(value / 2 - 32)


def test_values_become_reflectivity_on_the_scale_and_255_no_data(tmp_path):
    frames = write(tmp_path, "201609281445", 1)
    (file,) = tmp_path.iterdir()
    pixels, valid = reader()(file)
    np.testing.assert_array_equal(valid, frames[0] != 255)
    np.testing.assert_array_equal(pixels, np.where(valid, dbz(frames[0]), 0))


def test_blocks_are_averaged_as_z_over_what_holds_data(tmp_path):
    values = np.full((4, 7), 255, np.uint8)
    values[:2, :2] = [[104, 124], [255, 104]]  # 20, 30, no data, 20 dBZ
    values[:2, 2:4] = [[104, 255], [255, 255]]  # Three quarters without data.
    values[2:, :2] = 0
    Image.fromarray(values).save(tmp_path / "a.pgm")
    pixels, valid = reader(downsample=2)(tmp_path / "a.pgm")
    np.testing.assert_array_equal(valid, [[1, 0, 0], [1, 0, 0]])
    dbz = 10 * np.log10((100 + 1000 + 100) / 3)
    np.testing.assert_array_equal(
        pixels, [[np.rint(255 * dbz / 60.1), 0, 0], [0, 0, 0]]
    )


def test_other_encodings(tmp_path):
    values = np.array([[0, 100, 200]], np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    read = reader(dbz_gain=70 / 255, dbz_offset=-10.0, no_data_value=0)
    pixels, valid = read(tmp_path / "a.png")
    dbz = values[0] * (70 / 255) - 10
    np.testing.assert_array_equal(valid, [[0, 1, 1]])
    np.testing.assert_array_equal(pixels[0, 1:], np.rint(255 * dbz[1:] / 60.1))


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


def composites(*minutes):
    start = datetime(2020, 1, 1)
    times = [start + timedelta(minutes=m) for m in minutes]
    return [CompositeFile(Path(str(time)), str(time), time) for time in times]


def test_a_missing_step_splits_an_event_and_is_named():
    runs, gaps = split_at_gaps(composites(0, 5, 10, 20, 25, 5000, 5005), 5)
    assert [len(run) for run in runs] == [3, 2, 2]
    assert gaps == [(datetime(2020, 1, 1, 0, 10), 1)]
    assert date_of(runs[2]) == "2020-01-04"
    assert name_of(runs[2]) == "2020-01-04 11:20"


def test_the_steps_that_are_missing_are_counted_and_dated():
    _, gaps = split_at_gaps(composites(0, 5, 20, 25, 28, 1438, 1470), 5)
    assert format_gaps(gaps, 5.0) == (
        " Time steps missing: 289 (first: 2020-01-01 00:10)."
    )
    assert format_gaps([], 5.0) == ""


def test_events_are_dealt_out_in_time_or_cut_where_there_are_few():
    days = [tuple(composites(*range(1440 * d, 1440 * d + 50, 5))) for d in range(5)]
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
    """Every frame of every clip, by the bytes of its crop's composite and place."""
    return {frame.tobytes() for clip in source for frame in clip["frames"]}


def test_no_clip_shares_a_frame_with_another_split(tmp_path):
    write(tmp_path / "a", "201609281445", 14, seed=1)
    found = sources(tmp_path, validation_fraction=0.2, test_fraction=0.2)
    splits = [
        frames_of([split[index] for index in range(len(split))])
        for split in (found.train, found.validation, found.test)
    ]
    assert all(splits)
    assert not (splits[0] & splits[1] or splits[0] & splits[2] or splits[1] & splits[2])
    assert "each cut in time" in found.description


def test_a_day_is_held_out_and_is_the_condition(tmp_path):
    first = write(tmp_path / "a", "201609281445", 9, seed=1)
    second = write(tmp_path / "b", "201705091045", 5, seed=2)
    found = sources(tmp_path, test_conditions=("2017-05-09",), validation_fraction=0.3)
    assert found.conditions == ("2016-09-28", "2017-05-09")
    assert {int(found.test[i]["condition"]) for i in range(len(found.test))} == {1}
    assert {int(found.train[i]["condition"]) for i in range(len(found.train))} == {0}
    # Two starts of two crops high and two wide, in an order of their own.
    assert len(found.test) == 2 * 3 * 2
    wholes = {
        dbz(second[s : s + 4, y : y + 4, x : x + 5]).astype(np.uint8).tobytes()
        for s in (0, 1)
        for y in (0, 4, 8)
        for x in (0, 5)
        if (y, x) != (0, 0)
    }
    seen = [found.test[i] for i in range(len(found.test))]
    assert wholes <= {clip["frames"].tobytes() for clip in seen}
    corner = next(clip for clip in seen if not clip["mask"].all())
    np.testing.assert_array_equal(corner["mask"][:, 0, 0], np.zeros((4, 1)))
    assert corner["mask"].sum() == 4 * (20 - 1)
    assert (corner["frames"][:, 0, 0] == 0).all()
    assert len(first) == 9 and "Held out for the test: 2017-05-09" in found.description
    copy = pickle.loads(pickle.dumps(found.train))
    np.testing.assert_array_equal(copy[1]["frames"], found.train[1]["frames"])


def test_training_crops_may_overlap_and_strides_count_composites(tmp_path):
    write(tmp_path / "a", "201609281445", 16, seed=1)
    write(tmp_path / "b", "201705091045", 7, seed=2)
    fields = {
        "test_conditions": ("2017-05-09",),
        "frame_stride": 2,
        "crop_stride": 2,
        "clip_stride": 2,
    }
    found = sources(tmp_path, **fields)
    # A clip spans 7 of the 9 composites that validation leaves; 5 × 3 crops of each.
    assert len(found.train) == 2 * 5 * 3
    assert len(found.validation) == len(found.test) == 3 * 2
    wet = sources(tmp_path, min_rain_share=0.85, **fields)
    assert 0 < len(wet.train) < len(found.train)


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
    assert "3 composites unreadable (first: " in found.description
    assert "1 composite of another size" in found.description
    assert "1 composite without a time" in found.description
    assert "1 composite of a time there was" in found.description
    assert "Time steps missing: 1 (first: 2016-09-28 15:05)" in found.description
    assert "2 events" in found.description


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"test_conditions": ("2001-01-01",)}, "names '2001-01-01'.*2016-09-28"),
        ({"num_frames": 13}, "the train split of .* is empty"),
        (
            {"time_step_minutes": 10.0},
            "the train split of .* is empty .*most composites are 5 minutes apart",
        ),
        ({"height": 99}, "the train split of .* is empty"),
        ({"downsample": 11}, "at least downsample=11"),
    ],
)
def test_what_leaves_no_clip_is_said_in_a_sentence(tmp_path, fields, message):
    write(tmp_path, "201609281445", 12)
    with pytest.raises(UserError, match=message):
        sources(tmp_path, **fields)


def test_folders_that_hold_no_composites(tmp_path):
    with pytest.raises(UserError, match=r"path is .*must be a folder of radar"):
        find_composites(tmp_path / "none", "picture")
    with pytest.raises(UserError, match="holds no radar composite that can be used"):
        sources(tmp_path)


def test_test_clips_name_their_event_and_composites_without_data_are_told(tmp_path):
    write(tmp_path, "201609281445", 14)
    names = sorted(one.name for one in tmp_path.iterdir())
    for name in names[:2]:
        nothing = b"P5\n10 12\n255\n" + bytes([255]) * 120
        (tmp_path / name).write_bytes(gzip.compress(nothing))
    found = sources(tmp_path, validation_fraction=0.3, test_fraction=0.3)
    assert len(found.test_films) == len(found.test)
    assert set(found.test_films) == {"2016-09-28 14:45"}
    assert f"2 without data at any pixel (first: '{names[0]}')" in found.description


def test_composites_are_decoded_once_until_they_or_the_fields_change(
    tmp_path, monkeypatch
):
    write(tmp_path, "201609281445", 14)
    read = []
    plain = composites_module.read_composite
    monkeypatch.setattr(
        composites_module,
        "read_composite",
        lambda path, config: read.append(path.name) or plain(path, config),
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
    bad = tmp_path / "201609290000_rain.pgm.gz"
    found = sources(tmp_path, height=12, width=10, frame_stride=2, test_fraction=0.45)
    assert found.conditions == ("2016-09-28",)
    assert set(found.test_films) == {"2016-09-28 22:20"}
    clips = [found.train[index]["frames"] for index in range(len(found.train))]
    clips += [found.test[index]["frames"] for index in range(len(found.test))]
    levels = np.where(frames == 255, 0, dbz(frames)).astype(np.uint8)
    expected = {levels[k : k + 7 : 2].tobytes() for k in range(28)}
    assert len(clips) > 1 and {clip.tobytes() for clip in clips} <= expected
    bad.write_bytes(b"damaged")
    found = sources(tmp_path, bad_files="skip", test_fraction=0.4)
    assert (
        "2 events of at least 4 composites (2016-09-28 22:20: 20, 2016-09-29 00:05"
        in (found.description)
    )


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
    np.testing.assert_array_equal(
        read.frames[..., 0], dbz(frames[4::2]) * read.mask[..., 0]
    )
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
    Image.new("L", (10, 12), 255).save(tmp_path / "201609281525.png")
    last.unlink()
    with pytest.raises(
        UserError, match=r"latest composite, '201609281525.png', has no"
    ):
        config(tmp_path).read_input(str(tmp_path), 3)
    Image.new("L", (10, 13)).save(tmp_path / "201609281530.png")
    with pytest.raises(UserError, match=r"different sizes, from .*they must be of one"):
        config(tmp_path).read_input(str(tmp_path), 3)


def test_fields_that_do_not_suit_each_other_or_the_disk(tmp_path):
    wrong = {"validation_fraction": 0.6, "test_fraction": 0.4, "dbz_min": 60.1}
    _, problems = validated(RadarConfig, {**wrong, "dbz_max": 60.0})
    assert len(problems) == 2 and "together with test_fraction" in problems[1]
    other = {"radar_format": "odim_hdf5", "dbz_gain": 1.0}
    _, problems = validated(RadarConfig, other, "config.data.")
    assert len(problems) == 1 and "config.data.dbz_gain" in problems[0]
    (problem,) = config(tmp_path / "none").check_disk()
    assert "none': it must be a folder of radar composites" in problem
    assert not list(config(tmp_path).check_disk())
    assert config(tmp_path, frame_stride=3).minutes_per_frame == 15


@pytest.mark.skipif(not FMI.is_dir(), reason=f"the FMI's composites are not in {FMI}")
def test_the_fmis_composites_as_they_lie(tmp_path):
    for day in ("20160928", "20170509"):
        for path in sorted((FMI / day).iterdir())[:8]:
            (tmp_path / path.name).symlink_to(path)
    fields = {"height": 48, "width": 40, "downsample": 8, "clip_stride": 2}
    fields["test_conditions"] = ("2017-05-09",)
    found = sources(tmp_path, **fields)
    assert "16 composites of 153x95 pixels" in found.description
    assert "2 events of at least 4" in found.description
    assert found.conditions == ("2016-09-28", "2017-05-09")
    clip = found.test[0]
    assert clip["frames"].shape == clip["mask"].shape == (4, 48, 40, 1)
    assert clip["frames"].dtype == np.uint8 and 0 < clip["mask"].mean() <= 1


# --- formats of weather services


def write_series(folder, start, count, minutes=15):
    """Composites as OPERA names them."""
    folder.mkdir()
    frames = np.stack([random_bytes(index, (8, 10), 64) for index in range(count)])
    for index, raw in enumerate(frames):
        time = datetime.strptime(start, "%Y%m%d%H%M")
        time += timedelta(minutes=minutes * index)
        write_odim(folder / f"T_PAAH21_C_EUOC_{time:%Y%m%d%H%M}00.hdf", raw)
    return frames


ODIM = {
    "height": 8,
    "width": 10,
    "time_step_minutes": 15.0,
    "radar_format": "odim_hdf5",
}
HELD_OUT = {"test_conditions": ("2017-05-09",), "validation_fraction": 0.3}


def odim_sources(path, **fields):
    return sources(path, 3, **ODIM, **HELD_OUT, **fields)


def test_a_folder_of_odim_composites(tmp_path):
    write_series(tmp_path / "a", "201609281445", 7)
    second = write_series(tmp_path / "b", "201705091045", 4)
    (tmp_path / "b" / "201705090000.png").write_bytes(b"of another format")
    found = odim_sources(tmp_path)
    assert "11 composites of 8x10 pixels" in found.description
    test = pickle.loads(pickle.dumps(found.test))
    clips = {clip["frames"].tobytes() for clip in (test[0], test[1])}
    levels = np.where(second == 255, 0, level(second / 2 - 32)).astype(np.uint8)
    assert clips == {levels[:3].tobytes(), levels[1:].tobytes()}


def test_bad_odim_files_are_refused_or_left_out_and_counted(tmp_path):
    write_series(tmp_path / "a", "201609281445", 10)
    write_series(tmp_path / "b", "201705091045", 4)
    cut, narrow, *_ = sorted((tmp_path / "a").iterdir())
    cut.write_bytes(cut.read_bytes()[:900])
    write_odim(narrow, random_bytes(1, (8, 9)))
    with pytest.raises(
        UserError, match=f"'a/{cut.name}' cannot be read as odim.*'skip' such"
    ):
        odim_sources(tmp_path)
    write_odim(tmp_path / "a" / "latest.h5", random_bytes(1, (8, 10)))
    found = odim_sources(tmp_path, bad_files="skip")
    assert (
        f"1 composite unreadable (first: 'a/{cut.name}' cannot be read as odim"
        in found.description
    )
    assert (
        f"1 composite of another size (first: 'a/{narrow.name}' has 8×9"
        in found.description
    )
    assert "1 composite without a time (first: " in found.description
    assert "12 composites of 8x10 pixels" in found.description


def test_mch_names_have_the_day_of_the_year(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for name in ("AQC162721445F_00005.801", "AQC163991445F", ".AQC162721450F"):
        (tmp_path / f"{name}.gif").write_bytes(b"")
    (tmp_path / "AQC162721455F.png").write_bytes(b"")
    (composite,), left_out = find_composites(tmp_path, "mch_gif")
    assert composite.time == datetime(2016, 9, 28, 14, 45)
    ((sentence,),) = left_out.reasons.values()
    assert (
        "AQC163991445F.gif' has no time in its name: it must have year to minute in"
        in sentence
    )
    assert sentence.endswith("or year, day of the year, hour and minute in 9")
