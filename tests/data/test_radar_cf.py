"""CF NetCDF and Zarr with an axis of time, and gaps filled by advection."""

import importlib.util
import os

import h5py
import numpy as np
import pytest

from convlstm_jax.data.radar.composites import find_composites, read_composite
from convlstm_jax.data.radar.formats import format_of
from convlstm_jax.data.radar.gaps import advected
from convlstm_jax.errors import UserError
from tests.data.radar_files import SCALE, level, level_of_rain, reader
from tests.data.test_radar import config, levels, sources, write_frames

xarray = pytest.importorskip(
    "xarray", reason="xarray is not installed (requirements-xarray.txt)"
)


def rain_of(count=12, size=(12, 10), seed=0):
    rain = np.random.default_rng(seed).uniform(0.5, 40, (count, *size))
    rain[:, 0, 0] = np.nan
    return rain


def data_set(rain, minutes=5, units="mm h-1", start="2016-09-28T14:45", **more):
    """Rows from south to north, with a mapping as CF has it, in km."""
    count, height, width = rain.shape
    step = np.timedelta64(int(60 * minutes), "s")
    mapping = {
        "grid_mapping_name": "lambert_azimuthal_equal_area",
        "latitude_of_projection_origin": 55.0,
        "longitude_of_projection_origin": 10.0,
        "false_easting": 0.0, "false_northing": 0.0,
    }  # fmt: skip
    attributes = {"units": units, "grid_mapping": "crs"}
    return xarray.Dataset(
        {
            "rain": (("time", "y", "x"), rain[:, ::-1].astype("f4"), attributes),
            "crs": ((), 0, mapping),
            **more,
        },
        coords={
            "time": np.datetime64(start) + step * np.arange(count),
            "y": ("y", 2.0 * np.arange(height), {"units": "km"}),
            "x": ("x", 100 + 2.0 * np.arange(width), {"units": "km"}),
        },
    )


def write(data, path, **how):
    if path.suffix == ".zarr":
        data.to_zarr(path, consolidated=False)
    else:
        data.to_netcdf(path, **{"engine": "h5netcdf", **how})


@pytest.mark.parametrize("suffix", [".nc", ".zarr", "classic"])
def test_each_time_of_a_file_is_a_composite(suffix, tmp_path):
    rain = rain_of()
    how = {"engine": "scipy"} if suffix == "classic" else {}
    suffix = ".nc" if suffix == "classic" else suffix
    write(data_set(rain[:7]), tmp_path / f"first{suffix}", **how)
    later = data_set(rain[7:], start="2016-09-28T15:20")
    write(later, tmp_path / f"second{suffix}", **how)
    found = sources(tmp_path, num_frames=2, validation_fraction=0.3, test_fraction=0.3)
    name = "cf_zarr" if suffix == ".zarr" else "cf_netcdf"
    told = f"({name}): 12 of 12x10 pixels of 2 km, 5 minutes apart; 1 event of at least"
    assert told in found.description
    read = config(tmp_path).read_input(str(tmp_path), 12)
    expected = np.where(np.isnan(rain), 0, level_of_rain(np.nan_to_num(rain)))
    np.testing.assert_array_equal(read.frames[..., 0], expected)
    np.testing.assert_array_equal(read.mask[..., 0], ~np.isnan(rain))
    assert (read.grid["x1"], read.grid["y2"]) == (99, 23)
    if importlib.util.find_spec("pyproj"):
        assert "+proj=laea +lat_0=55" in read.grid["projection"]


def test_a_change_of_a_store_is_seen(tmp_path):
    fields = {"num_frames": 2, "validation_fraction": 0.3, "test_fraction": 0.3}
    clips = []
    for seed in (0, 1):
        data_set(rain_of(seed=seed)).to_zarr(
            tmp_path / "a.zarr", consolidated=False, mode="w"
        )
        clips.append(sources(tmp_path, **fields).train[0]["frames"])
    assert not np.array_equal(*clips)


@pytest.mark.parametrize(
    ("units", "factor"),
    [("kg m-2 s-1", 1 / 3600), ("mm/h", 1), ("mm hr-1", 1), ("mm", 5 / 60)],
)
def test_units_of_rain(units, factor, tmp_path):
    rain = rain_of(3)
    write(data_set(factor * rain, units=units), tmp_path / "a.nc")
    wanted = config(tmp_path, radar_format="cf_netcdf", time_step_minutes=5.0)
    (pixels, valid), _ = read_composite(tmp_path / "a.nc", wanted, 1)
    np.testing.assert_array_equal(
        pixels * valid, level_of_rain(np.nan_to_num(rain[1])) * valid
    )


def test_rain_gathered_between_bounds_and_degrees(tmp_path):
    rain = rain_of(2)
    data = data_set(rain / 6, units="mm")
    ends = data["time"].to_numpy()
    bounds = np.stack([ends - np.timedelta64(10, "m"), ends], 1)
    data = data.assign_coords(bounds=(("time", "nv"), bounds))
    data["time"].attrs["bounds"] = "bounds"
    data["time"].encoding["units"] = "minutes since 2016-09-28"
    data["y"].attrs["units"] = data["x"].attrs["units"] = "degrees"
    data = data.assign_coords(
        y=("y", 55 + 0.01 * np.arange(12), {"units": "degrees_north"}),
        x=("x", 10 + 0.02 * np.arange(10), {"units": "degrees_east"}),
    )
    write(data, tmp_path / "a.nc")
    (pixels, valid), facts = read_composite(tmp_path / "a.nc", config(tmp_path), 1)
    np.testing.assert_array_equal(
        pixels * valid, level_of_rain(np.nan_to_num(rain[1])) * valid
    )
    assert facts["grid"]["projection"].startswith("+proj=longlat")
    height, width = 1.112, 2.224 * np.cos(np.radians(55.055))
    assert facts["pixel_size_km"] == pytest.approx((height * width) ** 0.5)


def test_one_of_several_variables_is_chosen(tmp_path):
    rain = rain_of(3)
    quality = (("time", "y", "x"), np.ones(rain.shape), {"units": "1"})
    write(data_set(rain, quality=quality), tmp_path / "a.nc")
    assert reader("cf_netcdf")(tmp_path / "a.nc").any()  # Only one is rain.
    dbz = (("time", "y", "x"), rain, {"units": "dBZ"})
    write(data_set(rain, dbz=dbz), tmp_path / "b.nc")
    with pytest.raises(UserError, match=r"holds rain in mm h-1, dbz in dBZ: data\.pro"):
        reader("cf_netcdf")(tmp_path / "b.nc")
    with pytest.raises(UserError, match=r"b\.nc' cannot be read .*data\.product must"):
        find_composites(tmp_path, config(tmp_path, radar_format="cf_netcdf"))
    pixels, valid = reader("cf_netcdf", product="dbz")(tmp_path / "b.nc")
    np.testing.assert_array_equal(
        pixels * valid, level(np.nan_to_num(rain[0]))[::-1] * valid
    )
    write(data_set(rain).isel(time=1), tmp_path / "c.nc")  # Its time is no axis.
    wanted = config(tmp_path, radar_format="cf_netcdf", file_pattern="c*")
    (file,), _ = find_composites(tmp_path, wanted)
    assert str(file.time) == "2016-09-28 14:50:00" and file.name == "c.nc[0]"


def test_cf_files_that_are_refused(tmp_path):
    write(data_set(rain_of(3)).drop_vars("time"), tmp_path / "a.nc")
    with pytest.raises(UserError, match=r"along time it holds nothing: data\.product"):
        reader("cf_netcdf")(tmp_path / "a.nc")
    write(data_set(rain_of(3)), tmp_path / "b.zarr")
    (tmp_path / "secret").write_bytes(b"secret")
    os.symlink(tmp_path / "secret", tmp_path / "b.zarr" / "link")
    with pytest.raises(UserError, match="must lie in the store itself, and not be lin"):
        reader("cf_zarr")(tmp_path / "b.zarr")
    assert format_of(tmp_path / "b.zarr") == "cf_zarr"
    (tmp_path / "d.nc").write_bytes((tmp_path / "a.nc").read_bytes()[:3000])
    wanted = config(tmp_path, radar_format="cf_netcdf", file_pattern="d*")
    with pytest.raises(UserError, match=r"d\.nc' cannot be read \("):
        find_composites(tmp_path, wanted)
    long = np.zeros((1, 200_000, 1), "u1")
    long = xarray.Dataset({"rain": (("time", "y", "x"), long, {"units": "mm/h"})})
    long = long.assign_coords(time=[np.datetime64("2016-09-28")])
    write(long, tmp_path / "long.nc")
    with pytest.raises(UserError, match="a side of its field has more than 100,000 pi"):
        reader("cf_netcdf")(tmp_path / "long.nc")


def test_cf_files_that_would_do_harm(tmp_path):
    """Times without end in a few bytes, in each kind of file."""
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    for name, shape in (("time", (10**11,)), ("rain", (10**11, 4, 4))):
        chunks = (1,) * len(shape)
        one = group.create_array(name, shape=shape, chunks=chunks, dtype="i8")
        one.attrs["_ARRAY_DIMENSIONS"] = ["time", "y", "x"][: len(shape)]
    group["time"].attrs["units"] = "minutes since 2016-09-28"
    with pytest.raises(UserError, match="claims 800,000,000,000 bytes in a frame"):
        reader("cf_zarr")(tmp_path / "a.zarr")
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file.create_dataset("time", shape=(10**11,), chunks=(1000,), dtype="i8")
    with pytest.raises(UserError, match="claims 100,000,000,000 pixels"):
        reader("cf_netcdf")(tmp_path / "a.nc")
    data = data_set(rain_of(3))
    data["time"] = np.array(["NaT", "2016-09-28", "2016-09-29"], "M8[ns]")
    write(data, tmp_path / "b.nc")
    wanted = config(tmp_path, radar_format="cf_netcdf", file_pattern="b*")
    with pytest.raises(UserError, match=r"cannot be read \(some of its times are none"):
        find_composites(tmp_path, wanted)


def test_missing_packages_of_cf_files(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"without xarray and zarr: .*requirements-xar"):
        find_composites(tmp_path, config(tmp_path, radar_format="cf_zarr"))


def drifting(count=24, size=(40, 60)):
    """A shower that moves by 2 pixels a frame, as FMI's values."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    frames = [
        124 * np.exp(-((rows - 20) ** 2 + (columns - 8 - 2 * k) ** 2) / 60)
        for k in range(count)
    ]
    frames = np.rint(np.where(np.array(frames) > 30, frames, 0)).astype(np.uint8)
    frames[:, 0, 0] = 255
    return frames


def test_short_gaps_are_filled_and_counted(tmp_path, pysteps):
    pytest.importorskip("cv2")
    frames = drifting()
    write_frames(tmp_path, "201609281445", frames)
    files = sorted(tmp_path.iterdir())
    for index in (8, 9, 15):
        files[index].unlink()
    fields = {"height": 40, "width": 60, "test_fraction": 0.3}
    plain = sources(tmp_path, **fields).description
    assert "Time steps missing: 3." in plain and "3 events" in plain
    for most, told in ((1, "missing: 2. Time steps filled by advection: 1."),
                       (2, "of at least 4 composites, each cut in time"),
                       (2, "test. Time steps filled by advection: 3.")):  # fmt: skip
        found = sources(tmp_path, max_filled_gap=most, **fields)
        assert told in found.description
    for path in files[17:]:
        path.unlink()
    read = config(tmp_path, max_filled_gap=2).read_input(str(tmp_path), 10)
    assert read.label.endswith("(filled by advection: 3)")
    assert [f"{one:%H:%M}" for one in read.times[:3]] == ["15:20", "15:25", "15:30"]
    expected = levels(frames[7:17]).astype(float)
    np.testing.assert_array_equal(
        read.frames[[0, 3, 7, 9], ..., 0], expected[[0, 3, 7, 9]]
    )
    rain, wanted = (
        SCALE.rain_mm_per_h(x / 255) for x in (read.frames[..., 0], expected)
    )
    for index, still in ((1, 0), (2, 3), (8, 7)):
        error = np.abs(rain[index] - wanted[index]).mean()
        assert error < 0.4 * np.abs(wanted[still] - wanted[index]).mean()
        assert read.mask[index].sum() == 40 * 60 - 1
    with pytest.raises(UserError, match="ends with 1 composites"):
        config(tmp_path, max_filled_gap=0).read_input(str(tmp_path), 10)


def test_what_filling_needs_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="max_filled_gap needs pysteps and cv2: run"):
        advected(np.zeros((2, 4, 4)), np.zeros((2, 4, 4)), 1, SCALE)
