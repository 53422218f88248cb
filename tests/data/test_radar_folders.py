"""Folders of several services at once: formats, pixel sizes and time steps found."""

from datetime import datetime, timedelta

import h5py
import numpy as np
import pytest
from PIL import Image

from convlstm_jax.cli.experiment import experiment
from convlstm_jax.config import validated
from convlstm_jax.data.radar.composites import (
    read_composite,
    split_at_gaps,
    time_of,
    time_step_of,
)
from convlstm_jax.data.radar.config import RadarConfig
from convlstm_jax.data.radar.formats import format_of
from convlstm_jax.errors import UserError
from tests.data.radar_files import (
    REAL,
    SCALE,
    level,
    random_bytes,
    reader,
    write_bom,
    write_gif,
    write_knmi,
    write_odim,
)
from tests.data.test_radar import composites, config, sources, write
from tests.data.test_radar_formats import write_geotiff


def write_odim_series(folder, start, count, minutes=5, scale=2000.0, size=(12, 10)):
    folder.mkdir()
    for index in range(count):
        time = datetime.strptime(start, "%Y%m%d%H%M") + timedelta(
            minutes=minutes * index
        )
        raw = random_bytes(index, size, least=100)
        write_odim(folder / f"T_{time:%Y%m%d%H%M%S}.h5", raw)
        with h5py.File(folder / f"T_{time:%Y%m%d%H%M%S}.h5", "a") as file:
            file["where"].attrs.modify("xscale", scale)
            file["where"].attrs.modify("yscale", scale)


def picture_with_head(path, raw, *comments):
    head = "".join(f"# {line}\n" for line in comments)
    size = f"{raw.shape[1]} {raw.shape[0]}"
    path.write_bytes(f"P5\n{head}{size}\n255\n".encode() + raw.tobytes())


def test_the_format_of_a_file_is_found_by_its_first_bytes(tmp_path):
    raw = random_bytes(0)
    write_odim(tmp_path / "odim_hdf5", raw)
    write_knmi(tmp_path / "knmi_hdf5", raw, "X_[DBZ]")
    write_gif(tmp_path / "a.gif", raw, np.zeros((256, 3)))
    (tmp_path / "a.gif").rename(tmp_path / "mch_gif")
    write_bom(tmp_path / "bom_rf3", np.ones((4, 4)))
    for path in tmp_path.iterdir():
        assert format_of(path) == path.name
    Image.fromarray(raw).save(tmp_path / "a.png")
    assert format_of(tmp_path / "a.png") == "picture"
    (tmp_path / "text.h5").write_text("no composite")
    (tmp_path / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    for name in ("text.h5", "damaged.h5", "none.png"):
        assert format_of(tmp_path / name) == ""
        with pytest.raises(UserError, match=r"read as auto|No such file"):
            reader("auto")(tmp_path / name)
    with pytest.raises(UserError, match="none of picture, geotiff, odim_hdf5, knmi"):
        reader("auto")(tmp_path / "text.h5")


@pytest.mark.parametrize("options", [{}, {"BIGTIFF": "YES"}, {"ENDIANNESS": "BIG"}])
def test_a_tiff_that_says_where_it_lies_is_no_picture(options, tmp_path):
    raw = random_bytes(0)
    write_geotiff(tmp_path / "a.tif", raw, **options)
    assert format_of(tmp_path / "a.tif") == "geotiff"
    Image.fromarray(raw).save(tmp_path / "b.tif")
    assert format_of(tmp_path / "b.tif") == "picture"
    damaged = (tmp_path / "a.tif").read_bytes()[:40]
    (tmp_path / "c.tif").write_bytes(damaged)
    assert format_of(tmp_path / "c.tif") == "picture"
    with pytest.raises(UserError, match=r"c.tif' cannot be read as picture"):
        reader("auto")(tmp_path / "c.tif")


def test_a_folder_of_geotiff_as_of_the_same_pictures(tmp_path):
    for name in ("tif", "png"):
        (tmp_path / name).mkdir()
    for minute in range(0, 60, 5):
        raw = random_bytes(minute, (12, 10), least=90)
        stem = f"2016092814{minute:02}"
        write_geotiff(tmp_path / "tif" / f"{stem}.tif", raw)
        Image.fromarray(raw).save(tmp_path / "png" / f"{stem}.png")
    fields = {"dbz_gain": 0.4, "dbz_offset": -20.0, "no_data_value": 200}
    found, plain = (sources(tmp_path / name, **fields) for name in ("tif", "png"))
    told = (
        f"'{tmp_path / 'tif'}' (geotiff): 12 of 12x10 pixels of 1 km, 5 minutes apart"
    )
    assert told in found.description
    for one, two in zip(found.train, plain.train, strict=True):
        np.testing.assert_array_equal(one["frames"], two["frames"])
        np.testing.assert_array_equal(one["mask"], two["mask"])
    changed = config(tmp_path / "tif", radar_format="geotiff", dbz_gain=0.4)
    assert changed.shaping() != config(tmp_path, radar_format="geotiff").shaping()
    assert {"zr_a", "time_step_minutes", "dbz_offset"} <= changed.shaping().keys()


def test_folders_of_two_services_become_one_data_set(tmp_path):
    write(tmp_path / "fmi", "201609281445", 14)  # 12×10 pixels of 1 km
    write_odim_series(tmp_path / "opera", "201705091045", 9)  # of 2 km
    Image.new("L", (3, 3)).save(tmp_path / "opera" / "legend.png")
    path = f"{tmp_path / 'fmi'}, {tmp_path / 'opera'}"
    fields = {"pixel_size_km": 2.0, "test_conditions": ("2017-05-09",)}
    found = sources(path, **fields, width=5)
    assert found.conditions == ("2016-09-28", "2017-05-09")
    for told in (
        f"'{tmp_path / 'fmi'}' (picture): 14 of 6x5 pixels of 2 km, 5 minutes apart",
        f"'{tmp_path / 'opera'}' (odim_hdf5): 9 of 12x10 pixels of 2 km, 5 minutes",
        "2 events of at least 4 composites",
    ):
        assert told in found.description
    with h5py.File(sorted((tmp_path / "opera").glob("*.h5"))[0]) as file:
        raw = file["dataset1/data1/data"][...]
    firsts = [clip["frames"][0, ..., 0].tobytes() for clip in found.test]
    expected = np.where(raw == 255, 0, level(raw / 2 - 32)).astype(np.uint8)
    assert expected[4:8, :5].tobytes() in firsts
    one = tmp_path / "a, b"  # A folder's own name may have commas.
    (tmp_path / "fmi").rename(one)
    assert len(sources(one, validation_fraction=0.3, test_fraction=0.3).train)


def test_pixels_are_averaged_by_area(tmp_path):
    """Blocks of 2.5 pixels, against an oracle on a grid five times as fine."""
    raw = random_bytes(3, (13, 11), least=84)
    write_odim(tmp_path / "a.h5", raw)
    fields = {"pixel_size_km": 5.0, "dbz_max": SCALE.dbz_max}
    wanted = RadarConfig(radar_format="odim_hdf5", **fields)
    (pixels, valid), facts = read_composite(tmp_path / "a.h5", wanted)
    dbz = np.where(raw == 0, -np.inf, raw / 2 - 32)
    rain = np.where(raw == 255, np.nan, (10 ** (dbz / 10) / 223) ** (1 / 1.53))
    fine = np.repeat(np.repeat(rain, 2, 0), 2, 1)[:25, :20]
    blocks = fine.reshape(5, 5, 4, 5).swapaxes(1, 2).reshape(5, 4, 25)
    np.testing.assert_array_equal(valid, (~np.isnan(blocks)).mean(-1) >= 0.5)
    mean = np.nanmean(blocks, axis=-1)
    expected = np.where(valid, level(10 * np.log10(223 * mean**1.53)), 0)
    np.testing.assert_array_equal(pixels, expected)
    assert facts["pixel_size_km"] == 5
    grid = facts["grid"]
    assert (grid["xpixelsize"], grid["cartesian_unit"]) == (5000, "m")


def test_sizes_that_almost_fit_do(tmp_path):
    raw = random_bytes(4, (8, 8))
    sizes = "metersperpixel_x 999.674053", "metersperpixel_y 999.62859"
    picture_with_head(tmp_path / "a.pgm", raw, *sizes)
    by_km = reader(downsample=4, pixel_size_km=4.0)(tmp_path / "a.pgm")
    np.testing.assert_array_equal(by_km, reader(downsample=4)(tmp_path / "a.pgm"))
    Image.fromarray(raw).save(tmp_path / "a.png")
    told = reader(pixel_size_km=4.0, source_pixel_size_km=2.0)(tmp_path / "a.png")
    assert told.shape == (2, 4, 4)
    with pytest.raises(UserError, match=r"has pixels of 2 km and data.pixel_size_km i"):
        reader(pixel_size_km=1.0, source_pixel_size_km=2.0)(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"8×8 pixels .* at least pixel_size_km=50"):
        reader(pixel_size_km=50.0)(tmp_path / "a.png")
    picture_with_head(tmp_path / "b.pgm", raw, "metersperpixel_x 0", sizes[1])
    with pytest.raises(UserError, match=r"its pixels are of 0 x 999.629 m"):
        reader()(tmp_path / "b.pgm")
    (problem,) = validated(RadarConfig, {"pixel_size_km": 4.0, "downsample": 2})[1]
    assert "downsample does not exist with pixel_size_km=4.0" in problem


@pytest.mark.parametrize(
    ("second", "fields", "message"),
    [
        ({"minutes": 6}, {"pixel_size_km": 2.0}, "are 5 and 6 minutes apart: all fol"),
        ({}, {}, "are of 1 and 2 km: data.pixel_size_km must be the size"),
        ({"scale": 3e3}, {"pixel_size_km": 2.0}, "has pixels of 3 km and data.pixel"),
        ({"count": 3}, {"pixel_size_km": 2.0}, "most 3 composites are .* needs 4: le"),
    ],
)
def test_folders_that_do_not_go_together(second, fields, message, tmp_path):
    write(tmp_path / "a", "201609281445", 14)
    write_odim_series(tmp_path / "b", "201705091045", **{"count": 9, **second})
    with pytest.raises(UserError, match=message):
        sources(f"{tmp_path / 'a'},{tmp_path / 'b'}", **fields)


def test_folders_that_are_not_there_or_hold_nothing(tmp_path):
    write(tmp_path / "a", "201609281445", 14)
    path = f"{tmp_path / 'a'},{tmp_path / 'none'}"
    (problem,) = config(path).check_machine()
    assert problem.endswith("none': it must be a folder of radar composites")
    with pytest.raises(UserError, match=r"path is .* --mode=prepare takes one folder"):
        config(path).prepare(tmp_path / "out")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "201609281445.txt").write_text("rain")
    with pytest.raises(UserError, match="holds no radar composite of a format that d"):
        sources(path)


def test_prepared_folders_are_joined_too(tmp_path):
    write(tmp_path / "a", "201609281445", 14)
    write_odim_series(tmp_path / "b", "201705091045", 9)
    fields = {"pixel_size_km": 2.0, "test_conditions": ("2017-05-09",)}
    plain = sources(f"{tmp_path / 'a'},{tmp_path / 'b'}", **fields)
    for name in "ab":
        config(tmp_path / name, **fields).prepare(tmp_path / f"done_{name}")
    path = ",".join(str(tmp_path / f"done_{name}") for name in "ab")
    prepared = sources(path, **fields)
    assert prepared.description.replace("done_", "") == plain.description
    for one, two in zip(plain.train, prepared.train, strict=True):
        np.testing.assert_array_equal(one["frames"], two["frames"])


@pytest.mark.parametrize(
    ("minutes", "step", "missing"),
    [
        ([0, 5, 10, 25, 30], 5, 2),
        ([0, 2, 5, 7, 10, 12], 2.5, 0),
        ([0, 2, 4, 6, 12], 2, 2),
        ([0, 6.1, 12, 18], 6, 0),
        ([0, 10, 30, 40], 10, 1),
        ([0, 15, 30], 15, 0),
        ([0, 7, 14, 21], 7, 0),
        ([0], 0, 0),
    ],
)
def test_the_time_step_is_found_from_the_times(minutes, step, missing):
    series = composites(*minutes)
    assert time_step_of([one.time for one in series]) == step
    runs, found = split_at_gaps(series, step)
    assert found == missing and len(runs) == (2 if missing else 1)


def test_seconds_in_names_count():
    assert time_of("a_20170509104730.png") == datetime(2017, 5, 9, 10, 47, 30)
    assert time_of("a_20170509T1045.png") == datetime(2017, 5, 9, 10, 45)


def test_mch_names_of_every_two_and_a_half_minutes(tmp_path, pysteps):
    raw = random_bytes(1, (8, 6), least=90)
    for minute in (0, 2, 5, 7, 10, 12, 15, 17, 20, 22):
        name = f"AQC17129{1000 + minute}F_00005.801.gif"
        write_gif(tmp_path / name, raw, np.zeros((256, 3)))
    fields = {"validation_fraction": 0.3, "test_fraction": 0.3, "dbz_min": -30.0}
    found = sources(tmp_path, num_frames=3, **fields)
    assert "10 of 8x6 pixels of 1 km, 2.5 minutes apart" in found.description
    assert "1 event of at least 3 composites" in found.description
    read = config(tmp_path).read_input(str(tmp_path), 10)
    assert read.times[1].minute == 2 and len(read.times) == 10
    with pytest.raises(UserError, match=r"ends with 10 composites that are 2\.5 min"):
        config(tmp_path).read_input(str(tmp_path), 11)


def test_a_run_keeps_the_time_step_that_was_found(tmp_path):
    from configs import radar_nowcasting

    write_odim_series(tmp_path / "b", "201705091045", 9, minutes=15)
    overrides = {"data.path": str(tmp_path / "b")}
    made = experiment(radar_nowcasting.get_config(), overrides)
    assert made.config.data.time_step_minutes == 15
    assert made.data.minutes_per_frame == 15
    write(tmp_path / "a", "201609281445", 14)
    both = {"data.path": f"{tmp_path / 'a'},{tmp_path / 'b'}"}
    made = experiment(radar_nowcasting.get_config(), both)
    assert made.data.time_step_minutes == 0  # Opening them refuses the two.
    (tmp_path / "none").mkdir()
    overrides = {"data.path": str(tmp_path / "none")}
    made = experiment(radar_nowcasting.get_config(), overrides)
    assert made.data.time_step_minutes == 0  # Opening it says what is wrong.


def test_rain_gathered_over_an_unknown_time_is_refused(tmp_path):
    raw = np.ones((6, 5), np.uint16)
    write_knmi(tmp_path / "201705091045.h5", raw, "PRECIP_[MM]")
    with h5py.File(tmp_path / "201705091045.h5", "a") as file:
        del file["overview"]
    with pytest.raises(
        UserError, match=r"over which time .* data.time_step_minutes mu"
    ):
        config(tmp_path).read_input(str(tmp_path), 1)


@pytest.mark.slow
def test_real_events_of_three_services(request):
    names = ("radar_fmi", "radar_mch_20150515", "radar_mch_20170131")
    names += ("radar_knmi_20100826",)
    if not all((REAL / name).is_dir() for name in names):
        pytest.skip(f"not all of {names} are in {REAL}")
    request.getfixturevalue("pysteps")
    path = ",".join(str(REAL / name) for name in names)
    fields = {"height": 64, "width": 64, "pixel_size_km": 4.0}
    one = RadarConfig(path=path, test_conditions=("2017-05-09",), **fields)
    found = one.sources(num_frames=13, seed=0)
    assert found.conditions == (
        "2010-08-26", "2015-05-15", "2016-09-28", "2017-01-31", "2017-05-09",
    )  # fmt: skip
    assert set(found.test_films) == {"2017-05-09 10:45"} and len(found.test) == 140
    for told in ("(picture): 80 of 306x190 pixels of 4 km", "(mch_gif): 40 of 160x177",
                 "(knmi_hdf5): 92 of 191x175", "5 events of at least 13"):  # fmt: skip
        assert told in found.description
