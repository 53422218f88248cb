"""Prepared folders of radar composites: the clips of the folder itself, no data too."""

import gzip
import importlib.util
import json
import pickle
import re
from datetime import datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.data import preparing
from convlstm_jax.data.composites import READER_FIELDS, CompositeReader
from convlstm_jax.data.pipeline import train_batches
from convlstm_jax.data.prepared import _opened, kind_of
from convlstm_jax.data.prepared_composites import composite_settings
from convlstm_jax.data.preparing_composites import prepare_composites
from convlstm_jax.data.radar import radar_sources
from convlstm_jax.data.source_files import content_of
from convlstm_jax.errors import UserError
from convlstm_jax.rain import RainScale
from tests.data.prepared_folders import (
    SPLITS,
    Killed,
    assert_same_clips,
    contents_of,
    no_report,
    shards_of,
    stop_after,
)
from tests.data.radar_files import random_bytes, write_odim

H, W = 12, 10
SCALE = RainScale(0.0, 60.0, 223.0, 1.53)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(preparing, "SHARD_BYTES", 5 * 2 * H * W)


def write(folder, start, count, seed, size=(H, W)):
    """Composites with a place without data that moves, as gzip PGM files."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    time = datetime.strptime(start, "%Y%m%d%H%M")
    for index in range(count):
        frame = rng.integers(40, 180, size, np.uint8)
        frame[index % size[0] :, : size[1] // 3] = 255
        name = f"{time + timedelta(minutes=5 * index):%Y%m%d%H%M}_rain.pgm.gz"
        head = f"P5\n{size[1]} {size[0]}\n255\n".encode()
        (folder / name).write_bytes(gzip.compress(head + frame.tobytes()))


@pytest.fixture
def radar(tmp_path):
    """Three events; in the midst of the last one a time step is missing."""
    folder = tmp_path / "radar"
    write(folder / "2016", "201609281445", 11, 1)
    write(folder / "2017" / "05", "201705091045", 7, 2)
    write(folder / "2017", "201706112330", 12, 3)
    (folder / "2017" / "201706112350_rain.pgm.gz").unlink()
    return folder


def prepare(folder, output, report=no_report, bad_files="refuse", **fields):
    reader = CompositeReader(fields.pop("scale", SCALE), **fields)
    return prepare_composites(
        str(folder), output, reader=reader, bad_files=bad_files, report=report
    )


def open_folder(path, **fields):
    limits = {f"num_{split}_sequences": 9999 for split in SPLITS}
    defaults = {
        "num_frames": 3, "height": 4, "width": 5, "clip_stride": 1, "scale": SCALE,
    }  # fmt: skip
    return radar_sources(path=str(path), **{**defaults, **limits, **fields})


def told(sources, path):
    return sources.description.replace(f"'{path}'", "'radar'")


# --- the same clips -------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"frame_stride": 2, "clip_stride": 2, "crop_stride": 2, "num_frames": 2},
        {"downsample": 2, "width": 4, "test_conditions": ("2017-05-09",)},
        {"least_rain_share": 0.3, "crop_stride": 1, "num_train_sequences": 40},
        {"dbz_gain": 70 / 255, "dbz_offset": -10.0, "no_data_value": 60},
        {"scale": RainScale(5.0, 45.0, 200.0, 1.6), "least_rain_share": 0.2},
    ],
)
@pytest.mark.parametrize("bad_files", ["refuse", "skip"])
def test_clips_are_those_of_the_folder(radar, tmp_path, fields, bad_files):
    out = tmp_path / "out"
    how = {
        name: value
        for name, value in fields.items()
        if name in (*READER_FIELDS, "scale")
    }
    prepare(radar, out, bad_files=bad_files, **how)
    expected = open_folder(radar, **fields, bad_files=bad_files)
    found = open_folder(out, **fields, bad_files=bad_files)
    assert_same_clips(found, expected)
    assert told(found, out) == told(expected, radar)
    assert "Time steps missing: 1" in found.description
    masks = [found.train[index]["mask"] for index in range(len(found.train))]
    assert 0 < np.mean(masks) < 1
    batches = [train_batches(one.train, 4, seed=3) for one in (found, expected)]
    for _ in range(3):
        first, second = (next(one) for one in batches)
        assert first.keys() == second.keys() >= {"frames", "mask", "condition"}
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])
    for one in batches:
        one.close()
    copy = pickle.loads(pickle.dumps(found.train))
    np.testing.assert_array_equal(copy[1]["frames"], found.train[1]["frames"])


def test_manifest(radar, tmp_path):
    done = []
    out = tmp_path / "out"
    manifest = prepare(radar, out, lambda *told: done.append(told))
    assert json.loads((out / "manifest.json").read_text()) == manifest
    assert kind_of(out) == "radar composites"
    assert manifest["source"] == str(radar)
    assert manifest["settings"] == {
        "downsample": 1, "dbz_gain": 0.5, "dbz_offset": -32.0, "no_data_value": 255,
        "radar_format": "picture", "dbz_min": 0.0, "dbz_max": 60.0,
        "bad_files": "refuse",
    }  # fmt: skip
    assert manifest["counts"] == {
        "composites": 29, "composites_left_out": 0, "composites_in_part": 0,
        "other_files_left_out": 0, "frames": 29, "frames_left_out": 0,
        "frames_blank": 0, "composites_all_blank": 0,
    }  # fmt: skip
    assert [shard["records"] for shard in manifest["shards"]] == [5] * 5 + [4]
    first = manifest["composites"][0]
    name = "2016/201609281445_rain.pgm.gz"
    assert first == {
        "name": name, "time": "2016-09-28T14:45", **content_of(radar / name),
        "shape": [2, H, W], "frames": 1, "frames_left_out": 0, "problem": "",
        "blank": [], "pieces": [[0, 0, 0, 1]],
    }  # fmt: skip
    times = [one["time"] for one in manifest["composites"]]
    assert times == sorted(times) and times[-1] == "2017-06-12T00:25"
    assert done == [(float(index), 29) for index in range(1, 30)]


def test_a_composite_without_any_data_is_kept_and_counted(radar, tmp_path):
    path = radar / "2016" / "201609281540.png"
    Image.new("L", (W, H), 255).save(path)
    manifest = prepare(radar, tmp_path / "out")
    assert manifest["counts"]["frames_blank"] == 1
    assert manifest["counts"]["composites"] == manifest["counts"]["frames"] == 30
    assert_same_clips(open_folder(tmp_path / "out"), open_folder(radar))


# --- settings -------------------------------------------------------------------------


def test_how_pictures_become_rain_is_free_where_they_are_read(radar, tmp_path):
    prepare(radar, tmp_path / "out")
    fields = {
        "scale": RainScale(0.0, 60.0, 50.0, 1.2), "least_rain_share": 0.6,
        "crop_stride": 1, "time_step_minutes": 10.0, "num_frames": 1,
    }  # fmt: skip
    expected = open_folder(radar, **fields)
    assert_same_clips(open_folder(tmp_path / "out", **fields), expected)
    other = open_folder(radar, **{**fields, "scale": SCALE})
    assert len(other.train) != len(expected.train)


def test_settings_that_differ_are_named(radar, tmp_path):
    prepare(radar, tmp_path / "out", downsample=2)
    with pytest.raises(
        UserError,
        match=r"out' was prepared with other settings.*: downsample is 2 there and 1 "
        r"here, no_data_value is 255 there and 0 here, dbz_max is 60.0 there and 45.0 "
        r"here, bad_files is 'refuse' there and 'skip' here\.",
    ):
        open_folder(
            tmp_path / "out", no_data_value=0, scale=RainScale(0.0, 45.0),
            bad_files="skip",
        )  # fmt: skip


def test_what_importers_make_of_rain_is_a_setting():
    how_read = {"radar_format": "knmi_hdf5", "downsample": 1, "time_step_minutes": 5.0}
    assert composite_settings(SCALE, how_read, "skip") == {
        **how_read, "dbz_min": 0.0, "dbz_max": 60.0, "zr_a": 223.0, "zr_b": 1.53,
        "bad_files": "skip",
    }  # fmt: skip


def test_formats_of_weather_services(tmp_path, pysteps, monkeypatch):
    del pysteps
    folder, out = tmp_path / "odim", tmp_path / "out"
    folder.mkdir()
    for index in range(12):
        path = folder / f"20160928{index:02d}00.h5"
        write_odim(path, random_bytes(index))
    how_read = {"radar_format": "odim_hdf5", "time_step_minutes": 60.0}
    fields = {**how_read, "num_frames": 2, "height": 3, "width": 3}
    prepare(folder, out, **how_read)
    expected = open_folder(folder, **fields)
    with pytest.raises(UserError, match=r"zr_a is 223.0 there and 99.0 here, zr_b is "):
        open_folder(out, **{**fields, "scale": RainScale(0.0, 60.0, 99.0, 1.6)})
    with pytest.raises(UserError, match=r"is 'odim_hdf5' there and 'picture' here"):
        open_folder(out, time_step_minutes=60.0)
    # Where it is read nothing has to be installed.
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="cannot be read without pysteps"):
        open_folder(folder, **fields)
    assert_same_clips(open_folder(out, **fields), expected)


# --- going on -------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 4, 5, 6, 17, 28, 29])
def test_an_interrupted_work_goes_on(radar, tmp_path, stop):
    Image.new("L", (5, 7), 100).save(radar / "201610010000.png")
    (radar / "201610010005.png").write_bytes(b"no picture")
    whole = prepare(radar, tmp_path / "whole", bad_files="skip")
    out = tmp_path / "out"
    with pytest.raises(Killed):
        prepare(radar, out, stop_after(stop), bad_files="skip")
    with pytest.raises(UserError, match=r"out' is not prepared to its end: run the sa"):
        open_folder(out, bad_files="skip")
    before = shards_of(out)
    (out / f"shard-{len(before):05d}.array_record").write_bytes(b"of no line")
    assert prepare(radar, out, bad_files="skip") == whole
    assert {name: shards_of(out)[name] for name in before} == before
    assert contents_of(out) == contents_of(tmp_path / "whole")
    assert_same_clips(
        open_folder(out, bad_files="skip"), open_folder(radar, bad_files="skip")
    )
    assert prepare(radar, out, stop_after(1), bad_files="skip") == whole


def test_frames_of_other_sizes_fill_shards_by_their_bytes(tmp_path):
    """Each shard holds 1,200 bytes: five frames of 12×10, or one of more than that."""
    sizes = [(H, W)] * 4 + [(H, 20), (H, W), (30, 40), (H, W), (24, 20), (H, W)]
    for index, size in enumerate(sizes):
        picture = Image.fromarray(np.full(size, 100 + index, np.uint8))
        picture.save(tmp_path / f"2016092812{index:02d}.png")
    whole = prepare(tmp_path, tmp_path / "whole", bad_files="skip")
    found = [one["records"] for one in whole["shards"]]
    assert found == [4, 2, 1, 2, 1]
    for stop in range(1, len(sizes)):
        out = tmp_path / f"out{stop}"
        with pytest.raises(Killed):
            prepare(tmp_path, out, stop_after(stop), bad_files="skip")
        assert prepare(tmp_path, out, bad_files="skip") == whole
        assert contents_of(out) == contents_of(tmp_path / "whole")
    assert whole["counts"]["composites_left_out"] == 3


def test_what_changed_since_is_refused_by_name(radar, tmp_path):
    with pytest.raises(Killed):
        prepare(radar, tmp_path / "out", stop_after(9))
    with pytest.raises(UserError, match=r"begun with .*: dbz_max is 60.0 there and 50"):
        prepare(radar, tmp_path / "out", scale=RainScale(0.0, 50.0))
    write(radar, "201609281000", 1, 9)
    with pytest.raises(
        UserError,
        match=r"from other composites \('201609281000_rain.pgm.gz' is new since\)",
    ):
        prepare(radar, tmp_path / "out")


# --- bad data -------------------------------------------------------------------------


def spoil(radar):
    """Files of which none can be used, in the order in which they are told."""
    Image.new("L", (W, H)).save(radar / "2016" / "map.png")
    Image.new("L", (W, H)).save(radar / "2017" / "201609281445.png")
    (radar / "201610010005.png").write_bytes(b"no picture")
    Image.new("RGB", (W, H)).save(radar / "201610010010.png")
    Image.new("L", (5, 7)).save(radar / "201610010000.png")


def test_bad_data_is_named_counted_and_skipped(radar, tmp_path):
    spoil(radar)
    out = tmp_path / "out"
    manifest = prepare(radar, out, bad_files="skip")
    assert {why: len(told) for why, told in manifest["left_out"].items()} == {
        "without a time": 1, "of a time there was": 1,
    }  # fmt: skip
    problems = {
        one["name"]: one["problem"] for one in manifest["composites"] if one["problem"]
    }
    assert set(problems) == {f"2016100100{index}.png" for index in ("00", "05", "10")}
    assert re.search(
        r"201610010000.png' has 7×5 pixels after averaging, but most composites have "
        r"12×10$",
        problems["201610010000.png"],
    )
    assert "05.png' cannot be read as a picture" in problems["201610010005.png"]
    assert "of mode 'RGB'" in problems["201610010010.png"]
    assert manifest["counts"] == {
        "composites": 32, "composites_left_out": 3, "composites_in_part": 0,
        "other_files_left_out": 2, "frames": 29, "frames_left_out": 1,
        "frames_blank": 0, "composites_all_blank": 0,
    }  # fmt: skip
    expected, found = (
        open_folder(path, bad_files="skip", clip_stride=2) for path in (radar, out)
    )
    assert_same_clips(found, expected)
    assert told(found, out) == told(expected, radar)
    assert "2 unreadable (first: '" in found.description
    assert prepare(radar, out, bad_files="skip") == manifest


def test_bad_data_is_refused(radar, tmp_path):
    spoil(radar)
    out = tmp_path / "out"
    for name, words in {
        "2016/map.png": r"map.png' has no time in its name",
        "2017/201609281445.png": r"is of the same time as '.*_rain.pgm.gz'",
        "201610010005.png": r"05.png' cannot be read as a picture",
        "201610010010.png": r"10.png' is a picture of mode 'RGB'",
        "201610010000.png": r"00.png' has 7×5 pixels after averaging, but most",
    }.items():
        pattern = f"{words}.*; with data.bad_files='skip' such files are left out and c"
        with pytest.raises(UserError, match=pattern):
            prepare(radar, out)
        if name != "201610010000.png":
            (radar / name).unlink()
            for path in out.glob("*"):
                path.unlink()
    # All is decoded by then: to leave the last one out costs nothing more.
    before = shards_of(out)
    manifest = prepare(radar, out, bad_files="skip")
    assert shards_of(out) == before
    assert manifest["counts"]["composites_left_out"] == 1


def test_damaged_shards_are_told(radar, tmp_path):
    out = tmp_path / "out"
    manifest = prepare(radar, out)
    _opened.cache_clear()
    shard = out / manifest["shards"][0]["file"]
    content = bytearray(shard.read_bytes())
    first = np.flatnonzero(np.frombuffer(bytes(content[:60_000]), np.uint8))[-1]
    for position in range(first - 300, first):
        content[position] ^= 0x5A
    shard.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"shard-00000.* cannot be read \(.*: prepare"):
        open_folder(out)


def test_folders_without_composites(tmp_path):
    with pytest.raises(UserError, match=r"path is .*must be a folder of radar"):
        prepare(tmp_path / "none", tmp_path / "out")
    with pytest.raises(UserError, match=r"holds no radar composite with a time"):
        prepare(tmp_path, tmp_path / "out")
    (tmp_path / "radar").mkdir()
    (tmp_path / "radar" / "201609281445.png").write_bytes(b"")
    prepare(tmp_path / "radar", tmp_path / "out", bad_files="skip")
    with pytest.raises(UserError, match=r"holds no radar composite that can be used"):
        open_folder(tmp_path / "out", bad_files="skip")
