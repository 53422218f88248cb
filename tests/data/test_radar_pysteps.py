"""What the importers of pysteps read, by their names, and grids of composites."""

import importlib.util
import struct

import h5py
import numpy as np
import pytest
from PIL import Image

from convlstm_jax.config import validated
from convlstm_jax.data.radar.composites import find_composites, read_composite
from convlstm_jax.data.radar.config import RadarConfig
from convlstm_jax.data.radar.formats import check_packages, format_of, read_rain
from convlstm_jax.errors import UserError
from tests.data.radar_files import (
    REAL,
    SCALE,
    level,
    level_of_rain,
    random_bytes,
    reader,
    texts,
    write_bom,
    write_gif,
    write_knmi,
    write_odim,
)
from tests.data.test_radar import config, sources
from tests.data.test_radar_folders import picture_with_head, write_odim_series


def write_radolan(path, raw, product="RY", precision="-02"):
    """A composite of the DWD: 25 rows of 20 pixels, the southern row first."""
    head = f"{product}281445100000916BY   1150VS 3SW   2.18.3PR E{precision}INT   5"
    head += "GP  25x  20MS 12<boo,ros>\x03"
    path.write_bytes(head.encode() + raw.astype("<u2").tobytes())


def write_saf(path, rain, units="mm/h"):
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(path, "w") as file:
        for name, length in zip(("ny", "nx"), rain.shape, strict=True):
            file.createDimension(name, length)
        height, width = (3000.0 * side for side in rain.shape)
        file.setncatts(
            {
                "gdal_projection": "+proj=geos +a=6378137.0 +lon_0=0.0 +h=35785863.0",
                "gdal_geotransform_table": [0.0, 3000.0, 0.0, height, 0.0, -3000.0],
                "gdal_xgeo_up_left": 0.0, "gdal_xgeo_low_right": width,
                "gdal_ygeo_low_right": 0.0, "gdal_ygeo_up_left": height,
                "institution": "a service",
            }
        )  # fmt: skip
        for name in ("crr_intensity", "crr_quality"):
            values = file.createVariable(name, "f4", ("ny", "nx"))
            values.units = units
            values[:] = rain


def test_radolan_begins_in_the_south(tmp_path, pysteps):
    raw = np.random.default_rng(0).integers(2, 300, (25, 20))
    raw[0, :2] = 0x29C4  # No data.
    path = tmp_path / "raa01-ry_10000-1609281445-dwd---bin"
    write_radolan(path, raw)
    (tmp_path / "README").write_text("about this folder")
    assert format_of(path) == "pysteps:dwd_radolan"
    wanted = config(tmp_path, radar_format="pysteps:dwd_radolan")
    (file,), left_out = find_composites(tmp_path, wanted)
    assert str(file.time) == "2016-09-28 14:45:00" and not left_out.reasons
    (pixels, valid), facts = read_composite(path, wanted)
    rain = 12 * (raw * 0.01 - 0.01)[::-1]
    np.testing.assert_array_equal(valid[-1], [0, 0] + 18 * [1])
    np.testing.assert_array_equal(pixels, np.where(valid, level_of_rain(rain), 0))
    assert facts["pixel_size_km"] == 1
    write_radolan(path, raw, product="XX")
    with pytest.raises(UserError, match=r"its product is 'XX': it must be RY, YW, RW"):
        reader("pysteps:dwd_radolan")(path)


def test_saf_rain_rates(tmp_path, pysteps):
    rain = np.random.default_rng(1).uniform(1, 30, (6, 5))
    rain[0, 0] = 65535
    path = tmp_path / "S_NWC_CRR_MSG4_Europe-VISIR_20180601T070000Z.nc"
    write_saf(path, rain)
    assert format_of(path) == "pysteps:saf_crri"
    (pixels, valid), facts = read_composite(path, config(tmp_path))
    np.testing.assert_array_equal(pixels[1:], level_of_rain(rain[1:]))
    assert valid.sum() == 29 and facts["grid"]["x2"] == 15000


@pytest.mark.parametrize("quantity", ["RATE", "DBZH"])
def test_hdf5_in_the_order_of_its_quantities(quantity, tmp_path, pysteps):
    raw = random_bytes(1)
    offset = 0.0 if quantity == "RATE" else -32.0
    write_odim(tmp_path / "a.h5", raw, quantity, offset=offset)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.move("dataset1/data1/what", "dataset1/what1")
        for name, value in file["dataset1/what1"].attrs.items():
            file["dataset1/what"].attrs[name] = value
        del file["dataset1/what1"]
        corners = {f"{corner}_{axis}": 50.0 for corner in ("LL", "UR", "LR", "UL")
                   for axis in ("lon", "lat")}  # fmt: skip
        texts(file["where"], **corners)
    frame = reader("pysteps:mch_hdf5")(tmp_path / "a.h5")
    valid = raw != 255
    rain = level_of_rain(raw / 2) if quantity == "RATE" else level(raw / 2 - 32)
    np.testing.assert_array_equal(frame[0], np.where(valid & (raw > 0), rain, 0))
    message = f"{quantity} in dataset1/data1 and data.product is 'ACRR': data.product m"
    with pytest.raises(UserError, match=message):
        reader("pysteps:mch_hdf5", product="ACRR")(tmp_path / "a.h5")


def write_dwd(path, raw, quantity, gain, offset):
    """As the DWD writes it, in whole metres from a lower left corner."""
    write_odim(path, raw, quantity, gain, offset)
    projection = "+proj=stere +lat_0=90 +lat_ts=60 +lon_0=10 +a=6378137 +b=6356752.3"
    with h5py.File(path, "a") as file:
        corners = {"LL_lon": 3.57, "LL_lat": 45.7, "UR_lon": 18.73, "UR_lat": 55.86}
        texts(file["where"], projdef=projection, **corners)
        texts(file["dataset1/what"], endtime="144700")
    return projection


@pytest.mark.parametrize(
    ("quantity", "gain", "offset"),
    [("DBZH", 0.5, -32.0), ("RATE", 0.3, 0.0), ("ACRR", 0.02, 0.0)],
)
def test_dwd_hdf5_values(quantity, gain, offset, tmp_path, pysteps):
    pyproj = pytest.importorskip("pyproj")
    raw, path = random_bytes(1), tmp_path / "a.h5"
    raw[2:] = np.random.default_rng(7).permutation(np.arange(64, 113)).reshape(7, 7)
    projection = write_dwd(path, raw, quantity, gain, offset)
    wanted = RadarConfig(radar_format="pysteps:dwd_hdf5", time_step_minutes=60.0)
    rain, grid = read_rain(path, wanted)
    values = raw * gain + offset
    expected = {
        "DBZH": 10 ** (values / 15.3),
        "RATE": 223 ** (1 / 1.53) * values,
        "ACRR": 223 ** (1 / 1.53) * values * 30,  # In two minutes.
    }[quantity]
    np.testing.assert_array_equal(np.isnan(rain), raw == 255)
    echo = (raw > 0) & (raw < 255)
    np.testing.assert_allclose(rain[echo], expected[echo], rtol=1e-9)
    none = 10 ** (-32.5 / 15.3) if quantity == "DBZH" else 0  # By its importer.
    np.testing.assert_allclose(rain[raw == 0], none)
    x1, y1 = pyproj.Proj(projection)(3.57, 45.7)
    np.testing.assert_allclose([grid["x1"], grid["y1"]], [x1, y1])
    assert (grid["projection"], grid["xpixelsize"]) == (projection, 2000)


def test_hdf5_of_several_quantities_is_refused_with_the_choices(tmp_path, pysteps):
    path, raw = tmp_path / "a.h5", random_bytes(1, least=70)
    write_dwd(path, raw, "DBZH", 0.5, -32.0)
    with h5py.File(path, "a") as file:
        file.copy("dataset1", "dataset2")
        file["dataset2/data1/data"][...] = raw[::-1]
        texts(file["dataset2/data1/what"], quantity="RATE")
        for corner in ("LR", "UL"):
            texts(file["where"], **{f"{corner}_lon": 10.0, f"{corner}_lat": 50.0})
    choices = (
        "it holds DBZH in dataset1/data1, RATE in dataset2/data1: data.product must"
    )
    for name in ("mch_hdf5", "dwd_hdf5"):
        with pytest.raises(
            UserError, match=f"{choices} be RATE or DBZH, or radar_form"
        ):
            reader(f"pysteps:{name}")(path)
        frame = reader(f"pysteps:{name}", product="DBZH")(path)
        echo = (raw > 0) & (raw < 255)
        np.testing.assert_array_equal(frame[0][echo], level(raw / 2 - 32)[echo])
    frame = reader("pysteps:mch_hdf5", product="RATE")(path)
    flipped, echo = raw[::-1], echo[::-1]
    np.testing.assert_array_equal(
        frame[0][echo], level_of_rain(np.maximum(flipped / 2 - 32, 0))[echo]
    )
    with pytest.raises(UserError, match=r"its RATE is not in dataset1/data1, the only"):
        reader("pysteps:dwd_hdf5", product="RATE")(path)
    # Of one quantity twice importers read the last, or the first, unasked.
    with h5py.File(path, "a") as file:
        texts(file["dataset2/data1/what"], quantity="DBZH")
    for product in ("", "DBZH"):
        with pytest.raises(
            UserError, match=r"DBZH in dataset2/data1.*: radar_format mu"
        ):
            reader("pysteps:mch_hdf5", product=product)(path)
    frame = reader("odim_hdf5", product="dataset2/data1")(path)
    np.testing.assert_array_equal(frame[1], flipped != 255)


def write_grib(path, tenths, north=55.0, west=230.0, step=0.01):
    """GRIB 2 of one field of 0.1 mm/h, as of MRMS: degrees, the northern row first."""
    rows, columns = tenths.shape
    micro = [round(1e6 * one) for one in (north, west, step)]
    south, east = micro[0] - (rows - 1) * micro[2], micro[1] + (columns - 1) * micro[2]
    place = [columns, rows, 0, 2**32 - 1, *micro[:2]]
    sections = [
        (1, struct.pack(">HHBBBHBBBBBBB", 161, 0, 2, 1, 0, 2024, 6, 1, 12, 0, 0, 0, 1)),
        (3, struct.pack(">BIBBH", 0, tenths.size, 0, 0, 0)
         + struct.pack(">BBIBIBI", 1, 0, 6_367_470, 0, 0, 0, 0)
         + struct.pack(">6IB4IB", *place, 48, south, east, micro[2], micro[2], 0)),
        (4, struct.pack(">HHBBBBBHBBI", 0, 0, 1, 7, 0, 0, 97, 0, 0, 1, 0)
         + struct.pack(">BBIBBI", 102, 0, 0, 255, 0, 0)),
        (5, struct.pack(">IHfhhBB", tenths.size, 0, -30.0, 0, 1, 16, 0)),
        (6, b"\xff"),
        (7, (tenths + 30).astype(">u2").tobytes()),
    ]  # fmt: skip
    body = b"".join(
        struct.pack(">IB", len(content) + 5, number) + content
        for number, content in sections
    )
    head = struct.pack(">4sHBBQ", b"GRIB", 0, 209, 2, 16 + len(body) + 4)
    path.write_bytes(head + body + b"7777")


def test_mrms_grib_values(tmp_path, pysteps):
    pytest.importorskip("pygrib", reason="pygrib is not installed (requirements-radar)")
    tenths = np.random.default_rng(3).permutation(np.arange(1, 121)).reshape(12, 10)
    tenths[0, :3], tenths[1, :2] = -30, (-30, 0)  # No coverage is −3, no rain 0.
    path = tmp_path / "PrecipRate_00.00_20240601-120000.grib2"
    write_grib(path, tenths)
    assert format_of(path) == "pysteps:mrms_grib"
    rain, grid = read_rain(path, RadarConfig(radar_format="auto"))
    np.testing.assert_array_equal(np.isnan(rain), tenths == -30)
    expected = 223 ** (1 / 1.53) * np.maximum(tenths, 0) / 10
    np.testing.assert_allclose(rain[tenths >= 0], expected[tenths >= 0], rtol=1e-6)
    assert grid["cartesian_unit"] == "degrees"
    np.testing.assert_allclose([grid["xpixelsize"], grid["ypixelsize"]], 0.01)
    np.testing.assert_allclose([grid["y1"], grid["y2"]], [54.885, 55.005])
    np.testing.assert_allclose(grid["x2"] - grid["x1"], 0.1)
    np.testing.assert_allclose(grid["x1"] % 360, 229.995)
    wanted = config(tmp_path, radar_format="auto", downsample=2)
    (pixels, valid), facts = read_composite(path, wanted)
    assert pixels.shape == (6, 5) and not valid[0, 0] and valid[1:].all()
    height, width = 1.112, 1.112 * np.cos(np.radians(54.945))
    assert facts["pixel_size_km"] == pytest.approx(2 * np.sqrt(height * width))


def test_grib_of_too_many_pixels_is_refused(tmp_path, pysteps):
    """Which claims to hold 10,000 × 10,000 pixels."""
    pytest.importorskip("pygrib", reason="pygrib is not installed (requirements-radar)")
    write_grib(tmp_path / "a.grib2", np.zeros((12, 10), int))
    content = (tmp_path / "a.grib2").read_bytes()
    for old, new in (
        (
            struct.pack(">BIBBH", 0, 120, 0, 0, 0),
            struct.pack(">BIBBH", 0, 10**8, 0, 0, 0),
        ),
        (struct.pack(">II", 10, 12), struct.pack(">II", 10**4, 10**4)),
    ):
        assert content.count(old) == 1
        content = content.replace(old, new)
    (tmp_path / "a.grib2").write_bytes(content)
    with pytest.raises(UserError, match="claims 800,000,000 bytes in a frame"):
        reader("pysteps:mrms_grib")(tmp_path / "a.grib2")


def test_importers_that_have_a_reader_here(tmp_path, pysteps):
    raw = random_bytes(1)
    write_odim(tmp_path / "opera_hdf5", raw)
    write_knmi(tmp_path / "knmi_hdf5", raw, "X_[DBZ]")
    write_bom(tmp_path / "bom_rf3", np.ones((4, 4)))
    picture_with_head(tmp_path / "fmi_pgm", raw)
    for path in tmp_path.iterdir():
        own = format_of(path) or "picture"
        one, two = (reader(name)(path) for name in (own, f"pysteps:{path.name}"))
        np.testing.assert_array_equal(one, two)


def test_an_importer_of_a_plugin_in_km_from_below(tmp_path, pysteps, monkeypatch):
    """One of another package; and arguments that change the values are not left."""
    rain = np.random.default_rng(0).uniform(1, 9, (6, 5))
    asked = {}

    def import_mine(filename, window_size=4, gzipped=False, **kwargs):
        asked.update(window_size=window_size, gzipped=gzipped)
        facts = {"unit": "mm h-1", "yorigin": "lower", "cartesian_unit": "km"}
        facts |= {"xpixelsize": 2.0, "ypixelsize": 2.0, "projection": "+proj=laea"}
        corners = {"x1": 0.0, "y1": 0.0, "x2": 10.0, "y2": 12.0}
        return np.ma.masked_greater(rain, 8), None, {**facts, **corners}

    from pysteps.io import importers

    monkeypatch.setattr(importers, "import_mine", import_mine, raising=False)
    (tmp_path / "201609281445.dat.gz").write_bytes(b"rain")
    wanted = config(tmp_path, radar_format="pysteps:mine", dbz_max=SCALE.dbz_max)
    (file,), _ = find_composites(tmp_path, wanted)
    (pixels, valid), facts = read_composite(file.path, wanted)
    np.testing.assert_array_equal(valid, rain[::-1] <= 8)
    np.testing.assert_array_equal(pixels, level_of_rain(rain[::-1]) * valid)
    assert asked == {"window_size": 1, "gzipped": True}
    assert facts["grid"] == {
        "x1": 0.0, "y1": 0.0, "x2": 10.0, "y2": 12.0, "xpixelsize": 2.0,
        "ypixelsize": 2.0, "cartesian_unit": "km", "yorigin": "upper",
        "projection": "+proj=laea",
    }  # fmt: skip


def test_readers_here_need_no_pysteps(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("odim_hdf5", "opera_hdf5", "knmi_hdf5", "fmi_pgm"):
        check_packages(f"pysteps:{name}")
    with pytest.raises(UserError, match=r"'pysteps:picture', which cannot .* pysteps:"):
        check_packages("pysteps:picture")
    with pytest.raises(UserError, match=r"fmi_geotiff', .* without rasterio: run `pip"):
        check_packages("pysteps:fmi_geotiff")


def test_importers_that_are_not_there_are_named(tmp_path, pysteps, monkeypatch):
    find = importlib.util.find_spec
    with monkeypatch.context() as changed:
        optional = ("pygrib", "metranet")
        changed.setattr(
            importlib.util,
            "find_spec",
            lambda one: None if one in optional else find(one),
        )
        with pytest.raises(UserError, match=r"without pygrib: .*-radar\.txt`$"):
            check_packages("pysteps:mrms_grib")
        with pytest.raises(
            UserError, match=r"without metranet: .*, and install metran"
        ):
            check_packages("pysteps:mch_metranet")
    with pytest.raises(UserError, match=r"no importer of this name, but .*saf_crri"):
        check_packages("pysteps:other")
    (problem,) = validated(RadarConfig, {"radar_format": "odim"})[1]
    assert "radar_format is 'odim': it must be 'auto', 'picture'" in problem


@pytest.mark.parametrize("name", ["mch_hdf5", "dwd_hdf5", "saf_crri", "bom_rf3"])
def test_hdf5_that_reads_another_file_reaches_no_importer(name, tmp_path, pysteps):
    secret = tmp_path / "secret"
    with h5py.File(secret, "w") as file:
        file["data"] = random_bytes(1)
    write_odim(tmp_path / "a.h5", random_bytes(1))
    for link in (h5py.ExternalLink(str(secret), "/data"), h5py.SoftLink("/elsewhere")):
        with h5py.File(tmp_path / "a.h5", "a") as file:
            del file["dataset1/data1/data"]
            file["dataset1/data1/data"] = link
        with pytest.raises(UserError, match="must be a member in the file itself"):
            reader(f"pysteps:{name}")(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["dataset1/data1/data"]
        shape = {"shape": (200_000, 200_000), "chunks": (100, 100), "dtype": "u1"}
        file["dataset1/data1"].create_dataset("data", **shape)
    with pytest.raises(UserError, match="claims 40,000,000,000 pixels"):
        reader(f"pysteps:{name}")(tmp_path / "a.h5")


def test_other_files_that_would_do_harm(tmp_path, pysteps):
    """PostScript, which Pillow would hand to a program, and a NetCDF without end."""
    text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    (tmp_path / "AQC162721445F_00005.gif").write_text(text)
    with pytest.raises(UserError, match="cannot identify image file"):
        reader("mch_gif")(tmp_path / "AQC162721445F_00005.gif")
    wide = Image.new("L", (9_000, 9_000))
    for name, radar_format in (("AQC", "mch_gif"), ("a", "picture")):
        path = tmp_path / f"{name}.gif"
        wide.save(path)
        with pytest.raises(UserError, match="claims 648,000,000 bytes in a frame"):
            reader(radar_format)(path)
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(tmp_path / "a.nc", "w", format="NETCDF3_64BIT_OFFSET") as file:
        for name in "yx":
            file.createDimension(name, 30_000)
        file.set_fill_off()
        file.createVariable("precipitation", "i1", ("y", "x"))
    with open(tmp_path / "a.nc", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match=r"claims 7,200,000,000 bytes in a frame"):
        reader("bom_rf3")(tmp_path / "a.nc")


def test_one_of_several_products_is_chosen(tmp_path):
    raw = random_bytes(1)
    write_odim(tmp_path / "a.h5", raw)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.copy("dataset1", "dataset2")
        file["dataset2/data1/data"][...] = raw[::-1]
        file.copy("dataset1/data1", "dataset1/data2")
        file["dataset1/data2/data"][...] = raw[:, ::-1]
    with pytest.raises(UserError, match=r"dataset1/data2, .*: data.product must be da"):
        reader("odim_hdf5")(tmp_path / "a.h5")
    for product, expected in (
        ("dataset2/data1", raw[::-1]), ("dataset1/data2", raw[:, ::-1]),
    ):  # fmt: skip
        frame = reader("odim_hdf5", product=product)(tmp_path / "a.h5")
        np.testing.assert_array_equal(frame[1], expected != 255)
    with pytest.raises(UserError, match=r"DBZH, DBZH, DBZH, and data.product is 'RA"):
        reader("odim_hdf5", product="RATE")(tmp_path / "a.h5")
    write_knmi(tmp_path / "b.h5", raw, "X_[DBZ]")
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file.copy("image1", "image2")
        file["image2/image_data"][...] = raw[::-1]
    with pytest.raises(
        UserError, match=r"holds image1, image2: data.product must name"
    ):
        reader("knmi_hdf5")(tmp_path / "b.h5")
    frame = reader("knmi_hdf5", product="image2")(tmp_path / "b.h5")
    np.testing.assert_array_equal(frame[1], raw[::-1] != 255)


def test_files_of_one_time_are_chosen_by_a_pattern(tmp_path, pysteps):
    for product in ("AQC", "CPC"):
        for minute in range(0, 45, 5):
            name = f"{product}17129{1000 + minute}F_00005.801.gif"
            write_gif(tmp_path / name, random_bytes(1, (8, 6)), np.zeros((256, 3)))
    with pytest.raises(UserError, match=r"same time as 'AQC.*data\.file_pattern can"):
        sources(tmp_path)
    fields = {"validation_fraction": 0.3, "test_fraction": 0.3, "dbz_min": -30.0}
    write_odim(tmp_path / "A_201609281445.h5", random_bytes(1))  # Comes first.
    found = sources(tmp_path, num_frames=2, file_pattern="CPC*", **fields)
    assert "9 of 8x6 pixels" in found.description


def test_the_grid_comes_with_the_input(tmp_path):
    write_odim_series(tmp_path / "a", "201705091045", 3)
    grid = config(tmp_path / "a", downsample=2).read_input(str(tmp_path / "a"), 3).grid
    assert grid["projection"].startswith("+proj=laea +lat_0=55")
    assert (grid["xpixelsize"], grid["ypixelsize"]) == (4000, 4000)
    assert "x1" not in grid  # Without LL_lon and LL_lat.
    pyproj = pytest.importorskip("pyproj")
    for path in (tmp_path / "a").iterdir():
        with h5py.File(path, "a") as file:
            texts(file["where"], LL_lon=10.0, LL_lat=55.0)
    grid = config(tmp_path / "a", downsample=5).read_input(str(tmp_path / "a"), 3).grid
    x1, y1 = pyproj.Proj(grid["projection"])(10.0, 55.0)
    # Of 12 rows the two southernmost make no block of five.
    corners = [grid[name] for name in ("x1", "y1", "x2", "y2")]
    np.testing.assert_allclose(corners, [x1, y1 + 4000, x1 + 20_000, y1 + 24_000])


def test_grids_are_those_of_pysteps(pysteps):
    if not (REAL / "radar_fmi").is_dir():
        pytest.skip(f"{REAL / 'radar_fmi'} is not there")
    from pysteps.io import importers

    for folder, importer, given in (
        ("radar_fmi", importers.import_fmi_pgm, {"gzipped": True}),
        ("radar_knmi_20100826", importers.import_knmi_hdf5, {}),
    ):
        path = min(one for one in (REAL / folder).rglob("*") if one.is_file())
        _, _, expected = importer(str(path), **given)
        _, facts = read_composite(path, RadarConfig(downsample=1))
        sizes = ("xpixelsize", "ypixelsize")
        for name in (*sizes, "cartesian_unit", "yorigin"):
            assert facts["grid"][name] == pytest.approx(expected[name])
        found, wanted = (
            [one["x2"] - one["x1"], one["y2"] - one["y1"]]
            for one in (facts["grid"], expected)
        )
        # The FMI's pixels are not quite of the size that it tells.
        np.testing.assert_allclose(found, wanted, rtol=1e-3)
    _, facts = read_composite(path, RadarConfig(downsample=4))
    assert facts["grid"]["y2"] == expected["y2"]
    assert facts["grid"]["x2"] == expected["x2"]
