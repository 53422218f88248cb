"""Nowcasts as NetCDF and GeoTIFF: what pysteps, xarray, GDAL and we read of them."""

from datetime import datetime, timedelta
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.data.radar.cf import read_cf, times_of
from convlstm_jax.data.radar.config import RadarConfig
from convlstm_jax.ensembles import (
    exceedance_probability,
    probability_matched_mean,
    quantiles,
)
from convlstm_jax.errors import UserError
from convlstm_jax.viz.clip_writer import ClipLook
from convlstm_jax.viz.maps import check_map_packages, crs_of, graticule
from convlstm_jax.viz.nowcast_files import write_nowcast
from convlstm_jax.viz.pixels import DRY_COLOUR, PROBABILITY_COLOURS, RAIN_COLOURS

MISSING = [one for one in ("netCDF4", "pyproj", "rasterio") if not find_spec(one)]
needs_maps = pytest.mark.skipif(
    bool(MISSING), reason=f"{' and '.join(MISSING)} missing: requirements-radar.txt"
)
SIZE, ISSUED = (30, 20), datetime(2016, 9, 28, 18, 0)
TIMES = [ISSUED + timedelta(minutes=2.5 * step) for step in (1, 2, 3)]
RAIN = np.random.default_rng(0).gamma(0.3, 2.0, (3, *SIZE))
MASK = np.ones((2, *SIZE), np.uint8)
MASK[:, :4, :7] = 0
EXPECTED = np.where(MASK[-1] > 0, np.where(RAIN < 0.1, 0, RAIN), np.nan)
EXPECTED = EXPECTED.astype(np.float32)
SHARES = np.random.default_rng(1).uniform(0.2, 2, (3, *SIZE, 5))
RATES = (0.5, 2.0, 5.0)
MEMBERS = RAIN[..., None] * SHARES
EXPECTED_MEMBERS = np.where(MEMBERS < 0.1, 0, MEMBERS).astype(np.float32)
EXPECTED_MEMBERS[:, MASK[-1] == 0] = np.nan
FMI = {
    "projection": "+proj=stere +lon_0=25 +lat_0=90 +lat_ts=60 +a=6371288 +units=m",
    "x1": -380886.31, "y1": -3395677.92, "x2": -360893.45, "y2": -3365690.0,
    "xpixelsize": 999.643, "ypixelsize": 999.5973, "cartesian_unit": "m",
}  # fmt: skip
KNMI = {
    "projection": "+proj=stere +lat_0=90 +lon_0=0.0 +lat_ts=60.0 +a=6378.137 "
    "+b=6356.752 +x_0=0 +y_0=0",
    "x1": 0.0, "y1": -3680.0, "x2": 20.0, "y2": -3650.0,
    "xpixelsize": 1.0, "ypixelsize": 1.0, "cartesian_unit": "km",
}  # fmt: skip
SWISS = {
    "projection": "+proj=somerc +lon_0=7.43958333333333 +lat_0=46.9524055555556 "
    "+k_0=1 +x_0=600000 +y_0=200000 +ellps=bessel "
    "+towgs84=674.374,15.056,405.346,0,0,0,0 +units=m +no_defs",
    "x1": 255000.0, "y1": 450000.0, "x2": 275000.0, "y2": 480000.0,
    "xpixelsize": 1000.0, "ypixelsize": 1000.0, "cartesian_unit": "m",
}  # fmt: skip
DEGREES = {
    "projection": "+proj=longlat +datum=WGS84 +no_defs",
    "x1": 10.0, "y1": 50.0, "x2": 12.0, "y2": 53.0,
    "xpixelsize": 0.1, "ypixelsize": 0.1, "cartesian_unit": "degrees",
}  # fmt: skip
GRIDS = {"fmi": FMI, "knmi": KNMI, "swiss": SWISS, "degrees": DEGREES}


def written(path, grid, members=RAIN[..., None]):
    given = [ISSUED - timedelta(minutes=2.5), ISSUED]
    look = ClipLook(scale=2, times=TIMES, given=given, grid=grid)
    write_nowcast(path, RAIN[:2], members, MASK, look, RATES[::-1])  # Any order.
    return path


def in_metres(grid, name):
    return grid[name] * (1000 if grid["cartesian_unit"] == "km" else 1)


@needs_maps
@pytest.mark.parametrize("name", GRIDS)
def test_pysteps_reads_what_was_written(tmp_path, name):
    importers = pytest.importorskip("pysteps.io.nowcast_importers")
    grid, path = GRIDS[name], written(tmp_path / "nowcast.nc", GRIDS[name])
    rain, facts = importers.import_netcdf_pysteps(str(path), onerror="raise")
    np.testing.assert_array_equal(rain.astype(np.float32), EXPECTED)
    assert facts["unit"] == "mm/h" and facts["zerovalue"] == 0
    assert list(facts["leadtimes"]) == [2.5, 5, 7.5]
    assert [str(time) for time in facts["timestamps"]] == list(map(str, TIMES))
    for key in ("x1", "x2", "y1", "y2", "xpixelsize", "ypixelsize"):
        np.testing.assert_allclose(facts[key], in_metres(grid, key), rtol=1e-6)
    if "stere" in grid["projection"]:
        assert "+lat_ts=60.0" in facts["projection"]


@needs_maps
@pytest.mark.parametrize("suffix", [".nc", ".tif"])
@pytest.mark.parametrize("name", GRIDS)
def test_gdal_finds_the_place_on_the_map(tmp_path, name, suffix):
    import pyproj
    import rasterio
    from rasterio.warp import transform

    grid, path = GRIDS[name], written(tmp_path / f"nowcast{suffix}", GRIDS[name])
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), EXPECTED)
        assert np.isnan(file.nodata)
        corner = file.transform.c, file.transform.f
        place = transform(file.crs, "EPSG:4326", *([part] for part in corner))
        bands = file.descriptions
    if suffix == ".tif":
        assert bands[0] == "+2.5 min, 2016-09-28 18:02:30"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    upper_left = grid["x1"], grid["y2"]
    expected = upper_left
    if name != "degrees":
        expected = pyproj.Proj(grid["projection"])(*upper_left, inverse=True)
    # The Swiss datum lies some 100 m from WGS84.
    np.testing.assert_allclose(np.ravel(place), expected, atol=0.003)


@needs_maps
def test_xarray_and_this_package_read_it(tmp_path):
    xarray = pytest.importorskip("xarray")
    path = written(tmp_path / "nowcast.nc", FMI)
    with xarray.open_dataset(path, engine="h5netcdf", decode_timedelta=False) as data:
        field = data["precip_intensity"]
        np.testing.assert_array_equal(field, EXPECTED)
        assert field.attrs["units"] == "mm h-1"
        assert list(field["lead_time"].to_numpy()) == [2.5, 5, 7.5]
        assert data["y"][0] > data["y"][1]
    config = RadarConfig(radar_format="cf_netcdf")
    assert times_of(path, config) == TIMES
    read = read_cf(path, config, 1)
    np.testing.assert_array_equal(read.values.astype(np.float32), EXPECTED[1])
    assert read.grid["x1"] == pytest.approx(FMI["x1"])


@needs_maps
def test_pysteps_reads_an_ensemble(tmp_path):
    importers = pytest.importorskip("pysteps.io.nowcast_importers")
    path = written(tmp_path / "nowcast.nc", FMI, MEMBERS)
    rain, facts = importers.import_netcdf_pysteps(str(path), onerror="raise")
    expected = np.moveaxis(EXPECTED_MEMBERS, -1, 0)
    np.testing.assert_array_equal(rain.astype(np.float32), expected)
    assert facts["unit"] == "mm/h" and list(facts["leadtimes"]) == [2.5, 5, 7.5]
    assert facts["x1"] == pytest.approx(FMI["x1"]) and "stere" in facts["projection"]


@needs_maps
def test_the_products_of_an_ensemble_in_netcdf(tmp_path):
    xarray = pytest.importorskip("xarray")
    path = written(tmp_path / "nowcast.nc", FMI, MEMBERS)
    expected = {
        "probability_of_exceedance": exceedance_probability(EXPECTED_MEMBERS, RATES),
        "precip_quantile": quantiles(EXPECTED_MEMBERS, (0.1, 0.5, 0.9)),
        "precip_mean": EXPECTED_MEMBERS.mean(-1),
        "precip_matched_mean": probability_matched_mean(EXPECTED_MEMBERS),
    }
    with xarray.open_dataset(path, engine="h5netcdf", decode_timedelta=False) as data:
        assert data["precip_intensity"].dims == ("ens_number", "time", "y", "x")
        assert list(data["ens_number"]) == [1, 2, 3, 4, 5]
        for name, values in expected.items():
            np.testing.assert_array_equal(data[name], values)
            is_share = name == "probability_of_exceedance"
            assert data[name].attrs["units"] == ("1" if is_share else "mm h-1")
            assert ("standard_name" in data[name].attrs) != is_share
            assert list(data[name]["lead_time"].to_numpy()) == [2.5, 5, 7.5]
            assert data[name].attrs["grid_mapping"] == "polar_stereographic"
        likely = data["probability_of_exceedance"].sel(threshold=2.0)
        np.testing.assert_array_equal(likely, expected["probability_of_exceedance"][1])
        middle = data["precip_quantile"].sel(quantile=0.5)
        np.testing.assert_array_equal(middle, expected["precip_quantile"][1])
    config = RadarConfig(radar_format="cf_netcdf", product="precip_matched_mean")
    read = read_cf(path, config, 1).values.astype(np.float32)
    np.testing.assert_array_equal(read, expected["precip_matched_mean"][1])


@needs_maps
def test_gdal_reads_the_matched_mean_and_the_probabilities(tmp_path):
    import rasterio

    with rasterio.open(written(tmp_path / "nowcast.tif", FMI, MEMBERS)) as file:
        bands, names, units = file.read(), file.descriptions, file.units
    matched = probability_matched_mean(EXPECTED_MEMBERS)
    np.testing.assert_array_equal(bands[:3], matched)
    shares = exceedance_probability(EXPECTED_MEMBERS, RATES)
    np.testing.assert_array_equal(bands[3:], shares.reshape(9, *SIZE))
    assert names[0] == "+2.5 min, 2016-09-28 18:02:30" and units[:4] == (
        "mm/h", "mm/h", "mm/h", "1",
    )  # fmt: skip
    assert names[7] == "probability of 2 mm/h or more, +5 min, 2016-09-28 18:05:00"


def test_all_members_in_npy(tmp_path):
    found = np.load(written(tmp_path / "nowcast.npy", {}, MEMBERS))
    np.testing.assert_array_equal(found, EXPECTED_MEMBERS)
    one = np.load(written(tmp_path / "nowcast.npy", {}))
    np.testing.assert_array_equal(one, EXPECTED[..., None])


@needs_maps
@pytest.mark.parametrize("grid", [{}, {**FMI, "projection": "+proj=nowhere"}])
def test_without_a_projection_places_are_pixels(tmp_path, grid):
    import netCDF4
    import rasterio

    assert crs_of(grid) is None
    with rasterio.open(written(tmp_path / "nowcast.tif", grid)) as file:
        assert file.crs is None
        assert (file.transform.c, file.transform.f) == (0, SIZE[0])
    with netCDF4.Dataset(written(tmp_path / "nowcast.nc", grid)) as file:
        assert file["x"].units == "1" and "grid_mapping" not in file["y"].ncattrs()
        assert list(file["y"][:2]) == [29.5, 28.5]


@needs_maps
def test_meridians_and_parallels():
    lines, degrees = graticule(DEGREES, SIZE, SIZE)
    assert degrees == 0.5
    expected = np.zeros(SIZE, bool)
    expected[5::5] = expected[:, 5::5] = True
    np.testing.assert_array_equal(lines, expected)
    # Finland's middle meridian is a column of pixels, its parallels are arcs.
    wide = {**FMI, "x2": 119113.69, "y2": -2895677.92}
    wide |= {"xpixelsize": 25000.0, "ypixelsize": 25000.0}
    lines, degrees = graticule(wide, (20, 20), (200, 200))
    assert degrees == 1 and lines[:, 152].all() and not lines.all(axis=1).any()
    assert not graticule({}, SIZE, SIZE)[0].any()


@needs_maps
@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_pictures_have_a_scale_and_lines(tmp_path, suffix):
    sizes, colours = [], []
    for grid in ({}, DEGREES):
        with Image.open(written(tmp_path / f"a{suffix}", grid)) as picture:
            assert getattr(picture, "n_frames", 1) == (3 if suffix == ".gif" else 1)
            sizes.append(picture.size)
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
        colours.append({tuple(one) for one in pixels})
    assert sizes[0][0] == sizes[1][0] > SIZE[1] + 100
    for _, colour in RAIN_COLOURS:
        assert colour in colours[0]
        assert tuple(part // 4 * 3 for part in DRY_COLOUR) in colours[1] - colours[0]


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_pictures_of_an_ensemble_have_its_probabilities(tmp_path, suffix):
    pictures = []
    for members in (RAIN[..., None], MEMBERS):
        with Image.open(written(tmp_path / f"a{suffix}", {}, members)) as picture:
            assert getattr(picture, "n_frames", 1) == (3 if suffix == ".gif" else 1)
            pictures.append(np.asarray(picture.convert("RGB")))
    one, several = pictures
    height, width, _ = np.subtract(several.shape, one.shape)
    # Two probabilities and three members below the mean, or one probability beside it.
    assert height > 5 * SIZE[0] if suffix == ".png" else width > 2 * SIZE[1]
    seen = {tuple(pixel) for pixel in several.reshape(-1, 3).tolist()}
    assert seen >= {colour for _, colour in RAIN_COLOURS + PROBABILITY_COLOURS}


def test_only_some_frames_of_a_long_nowcast_are_in_a_strip(tmp_path):
    minutes = np.arange(-9, 13)
    times = [ISSUED + timedelta(minutes=5 * int(one)) for one in minutes]
    look = ClipLook(times=times[10:], given=times[:10])
    members, given = MEMBERS[[0] * 12], RAIN[[0] * 10]
    write_nowcast(tmp_path / "a.png", given, members, MASK[[0] * 10], look, RATES)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width < 9 * 160


@pytest.mark.parametrize("name", ["a.nc", "a.tif"])
def test_a_missing_package_is_told(tmp_path, monkeypatch, name):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs .* and pyproj: run `pip install"):
        check_map_packages(tmp_path / name)
    assert crs_of(FMI) is None
