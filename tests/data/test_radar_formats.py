"""Composites of weather services: ODIM, KNMI, MeteoSwiss, BoM, and GeoTIFF."""

import importlib.util
import os
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from convlstm_jax.data.radar.composites import find_composites, read_composite
from convlstm_jax.data.radar.config import RadarConfig
from convlstm_jax.data.radar.formats import RADAR_FORMATS, check_packages, read_rain
from convlstm_jax.errors import UserError
from convlstm_jax.viz.maps import crs_of
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
from tests.viz.test_maps import EXPECTED, GRIDS, MEMBERS, written

CASES = Path(__file__).parent / "cases" / "odim"
LOOKUP = "io/mch_lut_8bit_Metranet_v103.txt"


def check(frame, levels, valid):
    """Every pixel, and rain as it was put in, to half a level."""
    np.testing.assert_array_equal(frame[1], valid)
    np.testing.assert_array_equal(frame[0], np.where(valid, levels, 0))


@pytest.mark.parametrize("minutes", [5.0, 60.0])
def test_knmi_rain_was_gathered_in_the_time_the_file_names(minutes, tmp_path):
    raw = np.random.default_rng(4).integers(1, 300, (6, 5)).astype(np.uint16)
    raw[0, :4] = [0, 255, 65534, 65535]
    write_knmi(tmp_path / "a.h5", raw, "PRECIP_[MM]")
    read = reader("knmi_hdf5", time_step_minutes=minutes)
    check(read(tmp_path / "a.h5"), level_of_rain(raw / 100 * 60 / 5), raw < 65534)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["overview"].attrs["product_datetime_start"]
    rain = level_of_rain(raw / 100 * 60 / minutes)
    check(read(tmp_path / "a.h5"), rain, raw < 65534)


@pytest.mark.parametrize(
    ("formula", "gain", "offset"),
    [
        ("GEO=0.500000*PV+-31.500000", 0.5, -31.5),
        ("GEO = 1.5e-1 * PV - 10", 0.15, -10),
        ("geo=.25*pv", 0.25, 0),
    ],
)
@pytest.mark.parametrize("missing", [0, 255])
def test_knmi_values_follow_from_the_calibration_formula(
    formula, gain, offset, missing, tmp_path
):
    raw = random_bytes(3)
    calibration = {
        "calibration_formulas": formula,
        "calibration_missing_data": np.array([missing], np.int32),  # 0: no echo.
        "calibration_out_of_image": np.array([255], np.int32),
    }
    write_knmi(tmp_path / "a.h5", raw, "ECHO_[DBZ]", calibration=calibration)
    frame = reader("knmi_hdf5")(tmp_path / "a.h5")
    check(frame, level(raw * gain + offset), raw != 255)


def test_the_northern_row_comes_first(tmp_path):
    raw = random_bytes(5)
    write_knmi(tmp_path / "a.h5", raw, "REFLECTIVITY_[DBZ]", pixel_size_y=1.0)
    frame = reader("knmi_hdf5")(tmp_path / "a.h5")
    check(frame, level(raw[::-1] / 2 - 32), raw[::-1] != 255)


def test_mch_gif_of_rain_gathered(tmp_path, pysteps):
    """AQC: values from 2 to 250 are (value − 71.5)/2 in dB of 316 R^1.5, R in mm."""
    raw = np.random.default_rng(6).integers(2, 100, (8, 6), np.uint8)
    raw[0, :4] = [0, 1, 251, 255]
    palette = np.random.default_rng(7).integers(0, 256, (256, 3))
    write_gif(tmp_path / "AQC162721445F_00005.801.gif", raw, palette)
    rain = 12 * (10 ** ((raw - 71.5) / 20) / 316) ** (1 / 1.5)
    rain[(raw < 2) | (raw > 250)] = 0
    read = reader("mch_gif", time_step_minutes=10.0)
    frame = read(tmp_path / "AQC162721445F_00005.801.gif")
    check(frame, level_of_rain(rain), raw != 255)


def test_mch_gif_of_rain_rate(tmp_path, pysteps):
    """RZC: colours stand for mm/h, by a table that comes with pysteps."""
    table = np.genfromtxt(Path(pysteps.__path__[0]) / LOOKUP, skip_header=1)
    rows = table[(table[:, -1] > 0.1) & (table[:, -1] < 100)][::7]
    _, distinct = np.unique(rows[:, 1:4], axis=0, return_index=True)
    rows = rows[sorted(distinct)]
    raw = np.arange(len(rows) + 1, dtype=np.uint8)[np.newaxis]
    palette = np.zeros((256, 3))
    palette[raw[0]] = [*rows[:, 1:4], [1, 2, 3]]  # The last stands for nothing.
    write_gif(tmp_path / "RZC162721445VL.801.gif", raw, palette)
    frame = reader("mch_gif")(tmp_path / "RZC162721445VL.801.gif")
    valid = raw < len(rows)
    check(frame, level_of_rain(np.append(rows[:, -1], 0.0))[np.newaxis], valid)
    assert len(rows) > 9


def test_bom_netcdf_says_how_long_rain_was_gathered(tmp_path, pysteps):
    rain = np.random.default_rng(8).integers(1, 60, (6, 5)) * 0.05
    rain[0, :2] = [np.nan, 0.0]
    write_bom(tmp_path / "a.nc", rain)
    frame = reader("bom_rf3", time_step_minutes=99.0)(tmp_path / "a.nc")
    check(frame, level_of_rain(10 * np.nan_to_num(rain)), ~np.isnan(rain))


def truncated(write, name, size):
    """Writes a file, and cuts its end off."""

    def damage(folder):
        noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
        write(folder / name, noise)
        (folder / name).write_bytes((folder / name).read_bytes()[:-size])
        return name

    return damage


def no_hdf5(folder):
    (folder / "a.h5").write_bytes(b"P5 1 1 255\n ")
    return "a.h5"


def odim(change=None, **fields):
    """Writes an ODIM file, and changes it by a function of the open file."""

    def write(folder):
        write_odim(folder / "a.h5", random_bytes(1), **fields)
        with h5py.File(folder / "a.h5", "a") as file:
            if change is not None:
                change(file)
        return "a.h5"

    return write


def without(group, name):
    return lambda file: file[group].attrs.pop(name)


def set_what(**attributes):
    return lambda file: texts(file["dataset1/data1/what"], **attributes)


def replaced(data=None, **how):
    """Puts another array in the place of the data."""

    def change(file):
        del file["dataset1/data1/data"]
        if data is not None:
            file["dataset1/data1/data"] = data
        else:
            file["dataset1/data1"].create_dataset("data", dtype=np.uint8, **how)

    return change


LINKED = replaced(h5py.ExternalLink("other.h5", "/data"))
ELSEWHERE = replaced(shape=(9, 7), external=[("raw.bin", 0, 63)])
HUGE = replaced(shape=(200_000, 200_000), chunks=(100, 100))
HUGE_CHUNK = replaced(shape=(9, 7), chunks=(30_000, 30_000), maxshape=(None, None))


def float_without_nodata(file):
    replaced(np.array([[10.0, -9999.0]], np.float32))(file)
    set_what(gain=1.0, offset=0.0, undetect=-8888.0)(file)
    del file["dataset1/data1/what"].attrs["nodata"]


def forecasts_alone(file):
    for number in (2, 3):
        file.copy("dataset1", f"dataset{number}")
    texts(file["dataset1/data1/what"], quantity="VRAD")


def polar_without_object(file):
    del file["what"].attrs["object"]
    file["where"].attrs["nbins"] = 240


def of_one_radar(kind):
    return lambda file: file["what"].attrs.modify("object", np.array([kind]))


def knmi(parameter="X_[DBZ]", **calibration):
    def write(folder):
        write_knmi(folder / "a.h5", random_bytes(1), parameter, calibration=calibration)
        return "a.h5"

    return write


def gif(path, raw):
    write_gif(path, raw, np.zeros((256, 3)))


def gif_without_product(folder):
    gif(folder / "a.gif", random_bytes(1))
    return "a.gif"


def bom(size=(4, 4), **fields):
    def write(folder):
        write_bom(folder / "a.nc", np.ones(size), **fields)
        return "a.nc"

    return write


WHAT = "dataset1/data1/what"
NO_MINUTES = odim(without("dataset1/what", "enddate"), quantity="ACRR")
SECOND, THIRD = "DBZH in dataset2/data1", "DBZH in dataset3/data1"
TWICE = odim(lambda file: file.copy("dataset1/data1", "dataset1/data2"))
CUT = truncated(write_odim, "a.h5", 2000)
NO_NO_DATA = {"calibration_formulas": "GEO=1*PV"}

REFUSED = {
    "odim_hdf5": [
        (CUT, "truncated"),
        (no_hdf5, "signature not found"),
        (odim(quantity="VRAD"), "holds VRAD: it must hold one of"),
        (odim(without(WHAT, "gain")), "no 'gain', as whole"),
        (odim(without(WHAT, "nodata")), "no 'nodata'"),
        (odim(set_what(undetect=255.0)), "nodata and undetect are both 255"),
        (odim(set_what(undetect=np.nan, nodata=np.nan)), "are both nan"),
        (odim(set_what(gain=0.0)), "gain and offset are 0 and -32"),
        (odim(set_what(gain="half")), "could not convert string to float: 'half'"),
        (odim(LINKED), "data1/data' must be a dataset in the file itself"),
        (odim(ELSEWHERE), "must lie in the file itself"),
        (odim(HUGE), "claims 40,000,000,000 pixels"),
        (odim(HUGE_CHUNK), "claims 900,000,000 pixels"),
        (odim(float_without_nodata), "a value of -9999 dBZ, which must"),
        (odim(forecasts_alone), f"holds {SECOND}, {THIRD}: data.product must be data"),
        (TWICE, "data.product must be dataset1/data1 or dataset1/data2"),
        (odim(polar_without_object), "is a 'SCAN' of one radar: it must be"),
        (odim(of_one_radar(b"PVOL")), "is a 'PVOL' of one radar: it must be"),
        (odim(of_one_radar(b"scan\0\0")), "is a 'SCAN' of one radar"),
        (NO_MINUTES, "does not say over which time its rain accumulated"),
        (knmi(), "holds nothing: it must hold one of ODIM's"),
    ],
    "knmi_hdf5": [
        (odim(), "its '/image1' must be a group in the file itself"),
        (knmi("HEIGHT_[KM]"), r"is 'HEIGHT_\[KM\]': it must end in \[DBZ\]"),
        (knmi(), "its calibration_formulas is '': it must be as GEO=0.5"),
        (knmi(calibration_formulas="GEO=PV^2"), r"'GEO=PV\^2': it must be"),
        (knmi(**NO_NO_DATA), "not say which value is no data"),
        (knmi(**NO_NO_DATA, calibration_missing_data=0), "which value is no data"),
    ],
    "mch_gif": [
        (gif_without_product, "name must begin with .* AQC, CPC, AZC, RZC"),
        (truncated(gif, "AQC.gif", 1500), "truncated"),
    ],
    "bom_rf3": [
        (no_hdf5, "cannot be read as bom_rf3"),
        (bom(units=""), "unit is 'None': it must be 'dBZ', 'mm/h' or 'mm'"),
        (bom(minutes=0), "not say over which time its rain accumulated"),
        (bom((2, 4, 4)), "has 3 dimensions, not two"),
    ],
}


@pytest.mark.parametrize(
    ("radar_format", "write", "message"),
    [(name, *case) for name, cases in REFUSED.items() for case in cases],
)
def test_what_cannot_be_read_is_said_in_a_sentence(
    radar_format, write, message, tmp_path, request
):
    if RADAR_FORMATS[radar_format].packages:
        request.getfixturevalue("pysteps")
    path = tmp_path / write(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        reader(radar_format)(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"'{path}' cannot be read as {radar_format} (")
    assert sentence.endswith(")") and "\n" not in sentence


@pytest.mark.parametrize("radar_format", sorted(set(RADAR_FORMATS) - {"picture"}))
def test_files_that_are_not_there(radar_format, tmp_path, pysteps):
    path = tmp_path / "AQC"
    with pytest.raises(UserError) as caught:
        reader(radar_format)(path)
    assert str(caught.value) == (
        f"'{path}' cannot be read as {radar_format} (No such file or directory)"
    )


def test_each_case_of_odim_is_read_right():
    """Rows 0 to 7 hold 32 dBZ, 8 to 15 no echo, 16 to 19 no data."""
    paths = sorted(CASES.glob("*.h5"))
    assert len(paths) == 5
    for path in paths:
        product = "dataset1/data1" if path.name.startswith("lead_times") else ""
        pixels, valid = reader("odim_hdf5", product=product)(path)
        np.testing.assert_array_equal(valid[:, 0], [1] * 16 + [0] * 4, path.name)
        expected = np.where(np.arange(20) < 8, level(np.array(32.0)), 0)
        np.testing.assert_array_equal(pixels, np.tile(expected[:, None], 24), path.name)


def test_odim_of_several_fields_is_refused_with_the_choices(tmp_path):
    """TH is no less a field than DBZH, and quality is none."""
    written = {"RATE": random_bytes(1), "TH": random_bytes(2), "QIND": random_bytes(3)}
    path = tmp_path / "a.h5"
    write_odim(path, random_bytes(0))
    with h5py.File(path, "a") as file:
        for number, (quantity, raw) in enumerate(written.items(), 2):
            file.copy("dataset1/data1", f"dataset1/data{number}")
            file[f"dataset1/data{number}/data"][...] = raw
            texts(file[f"dataset1/data{number}/what"], quantity=quantity)
    choices = (
        "DBZH in dataset1/data1, RATE in dataset1/data2, TH in dataset1/data3: "
        "data.product must be DBZH or RATE or TH"
    )
    with pytest.raises(UserError, match=rf"\(it holds {choices}\)$"):
        reader("odim_hdf5")(path)
    written["DBZH"] = random_bytes(0)
    for product, quantity in (("DBZH", "DBZH"), ("dataset1/data3", "TH")):
        raw = written[quantity]
        frame = reader("odim_hdf5", product=product)(path)
        check(frame, level(raw / 2 - 32), raw != 255)
    rain = level_of_rain(np.maximum(written["RATE"] / 2 - 32, 0))
    with h5py.File(path, "a") as file:  # Below −1 mm/h there is none.
        file["dataset1/data2/data"][...] = np.maximum(written["RATE"], 64)
    frame = reader("odim_hdf5", product="RATE")(path)
    check(frame, rain, written["RATE"] != 255)
    with pytest.raises(UserError, match=r"TH, QIND, and data.product is 'ACRR': it mu"):
        reader("odim_hdf5", product="ACRR")(path)


@pytest.mark.parametrize(
    ("times", "is_forecast"),
    [
        (("1450", "1455"), True),
        (("1445", "1455"), True),  # From now on, and longer.
        (("144500", "145000"), False),
        (("1445", "1450"), False),
        (("1350", "1450"), False),  # The rain of an hour until now.
        (("1440", "1445"), False),
        ((), False),  # That of the file.
    ],
)
def test_odim_of_later_times_are_forecasts(times, is_forecast, tmp_path):
    raw, path = random_bytes(1), tmp_path / "a.h5"
    write_odim(path, raw)
    with h5py.File(path, "a") as file:
        file.copy("dataset1", "dataset2")
        file["dataset2/data1/data"][...] = raw[::-1]
        del file["dataset2/what"]
        what = file.create_group("dataset2/what")
        for end, time in zip(("start", "end"), times, strict=False):
            texts(what, **{f"{end}date": "20160928", f"{end}time": time})
    for product in ("", "DBZH"):
        if is_forecast:
            frame = reader("odim_hdf5", product=product)(path)
            check(frame, level(raw / 2 - 32), raw != 255)
        else:
            with pytest.raises(UserError, match="be dataset1/data1 or dataset2/data1"):
                reader("odim_hdf5", product=product)(path)
    frame = reader("odim_hdf5", product="dataset2/data1")(path)
    check(frame, level(raw[::-1] / 2 - 32), raw[::-1] != 255)


def test_odim_of_lead_times(tmp_path):
    """Of the case, whose forecasts have no times: refused, unless they are told."""
    (path,) = CASES.glob("lead_times*")
    with pytest.raises(UserError, match=r"data.product must be dataset1/data1 or data"):
        reader("odim_hdf5")(path)
    told = tmp_path / "a.h5"
    told.write_bytes(path.read_bytes())
    with h5py.File(told, "a") as file:
        for number in range(2, 8):
            ends = {"startdate": "20240601", "starttime": f"12{5 * number:02}00"}
            texts(file.require_group(f"dataset{number}/what"), **ends)
    expected = reader("odim_hdf5", product="dataset1/data1")(path)
    np.testing.assert_array_equal(reader("odim_hdf5")(told), expected)


@pytest.mark.parametrize("place", ["what", "dataset1/what", "dataset1/data1/what"])
def test_odim_attributes_are_inherited_from_any_level_above(place, tmp_path):
    raw = random_bytes(1)
    write_odim(tmp_path / "a.h5", raw)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        moved = dict(file["dataset1/data1/what"].attrs)
        del file["dataset1/data1/what"]
        texts(file.require_group(place), **moved)
    frame = reader("odim_hdf5")(tmp_path / "a.h5")
    check(frame, level(raw / 2 - 32), raw != 255)


@pytest.mark.parametrize(
    ("quantity", "dtype", "attributes", "rain"),
    [
        ("DBZH", np.uint8, {}, None),
        ("TH", np.uint16, {}, None),
        ("DBZH", np.uint8, {"gain": -1.0, "offset": 60.0}, None),
        ("DBZH", np.int16, {"nodata": -1.0, "undetect": -2.0}, None),
        ("DBZH", np.float32, {"nodata": -3.4e38, "undetect": -np.inf}, None),
        ("ACRR", np.uint16, {"gain": 0.01, "offset": 0.0}, 12),
        ("RATE", np.float64, {"gain": 0.1, "offset": -1.0}, 1),
    ],
)
def test_odim_of_other_quantities_and_codings(
    quantity, dtype, attributes, rain, tmp_path
):
    coding = {"gain": 0.5, "offset": -32.0, "nodata": 255.0, "undetect": 0.0}
    coding |= attributes
    raw = np.random.default_rng(1).integers(20, 90, (9, 7)).astype(dtype)
    raw[0], raw[1] = dtype(coding["nodata"]), dtype(coding["undetect"])
    write_odim(tmp_path / "a.h5", raw, quantity)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        texts(file["dataset1/data1/what"], **coding)
    values = raw.astype(np.float64) * coding["gain"] + coding["offset"]
    levels = (
        level(values) if rain is None else level_of_rain(np.maximum(rain * values, 0))
    )
    levels[1] = 0
    valid = np.ones((9, 7))
    valid[0] = 0
    check(reader("odim_hdf5")(tmp_path / "a.h5"), levels, valid)


@pytest.mark.parametrize(
    ("folder", "radar_format", "size", "share"),
    [
        ("radar_knmi_20100826", "knmi_hdf5", (191, 175), 0.2),
        ("radar_mch_20170131", "mch_gif", (160, 177), 0.7),
        ("radar_fmi", "picture", (306, 190), 0.7),
    ],
)
def test_real_composites(folder, radar_format, size, share, request):
    if not (REAL / folder).is_dir():
        pytest.skip(f"{REAL / folder} is not there")
    if radar_format == "mch_gif":
        request.getfixturevalue("pysteps")
    paths = [one for one in sorted((REAL / folder).rglob("*")) if one.is_file()]
    pixels, valid = reader(radar_format, downsample=4)(paths[len(paths) // 2])
    assert pixels.shape == size
    assert share < valid.mean() < 1
    assert 0.01 < (SCALE.rain_mm_per_h(pixels / 255) > 0.1).mean() < 0.5


def write_geotiff(
    path, raw, crs="EPSG:3067", place=(1000, 0, 100_000, 0, -1000, 7_000_000),
    mask=None, units=None, scales=None, offsets=None, descriptions=None, **profile,
):  # fmt: skip
    """Bands `[H, W]` or `[C, H, W]`, as any program of GDAL writes them."""
    rasterio = pytest.importorskip(
        "rasterio", reason="rasterio is not installed (requirements-radar.txt)"
    )
    bands = raw.reshape(-1, *raw.shape[-2:])
    profile |= {"count": len(bands), "dtype": raw.dtype, "crs": crs}
    profile |= {"height": raw.shape[-2], "width": raw.shape[-1], "driver": "GTiff"}
    told = {"units": units, "scales": scales, "offsets": offsets}
    with (
        warnings.catch_warnings(action="ignore"),  # Of one without a place.
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", transform=rasterio.Affine(*place), **profile) as file,
    ):
        file.write(bands)
        for name, value in told.items():
            if value is not None:
                setattr(file, name, [value] * len(bands))
        if descriptions:
            file.descriptions = descriptions
        if mask is not None:
            file.write_mask(mask)


def distinct(dtype, least=0, size=(13, 11)):
    """Values of which none is twice, from `least` on."""
    values = np.random.default_rng(9).permutation(np.arange(np.prod(size)) + least)
    return values.reshape(size).astype(dtype)


DBZ, RATE = {"units": "dBZ"}, {"units": "mm/h"}
DBZ_CODED = {**DBZ, "scales": 0.5, "offsets": -32.0}
RATE_CODED = {**RATE, "scales": 0.01, "offsets": 0.0}
PER_SECOND = {"units": "kg m-2 s-1", "scales": 1e-4, "offsets": 0.0}


@pytest.mark.parametrize(
    ("raw", "how", "no_data", "unit"),
    [
        (distinct(np.uint8, 100), {}, 200, "bytes"),
        (distinct(np.uint8, 100), {"nodata": 133}, 133, "bytes"),
        (distinct(np.uint8), {"nodata": 7, **DBZ_CODED}, 7, "dBZ"),
        (distinct(np.uint8, 100), DBZ_CODED, 200, "dBZ"),
        (distinct(np.int16, -60), {"nodata": -1, **DBZ}, -1, "dBZ"),
        (distinct(np.float32, -50), {"nodata": 20, **DBZ}, 20, "dBZ"),
        (distinct(np.uint16, 300), {"nodata": 333, **RATE_CODED}, 333, "mm/h"),
        (distinct(np.float32), {"nodata": np.nan, **RATE}, None, "mm/h"),
        (distinct(np.float64), {"nodata": 9, "units": "mm"}, 9, "mm"),
        (distinct(np.int32), {"nodata": 9, **PER_SECOND}, 9, "mm/h"),
    ],
)
def test_geotiff_in_its_own_unit(raw, how, no_data, unit, tmp_path):
    values = raw * how.get("scales", 1.0) + how.get("offsets", 0.0)
    values = values * 3600 if how.get("units") == "kg m-2 s-1" else values
    known = raw != no_data
    if no_data is None:
        raw[3, 4], known[3, 4] = np.nan, False
    write_geotiff(tmp_path / "a.tif", raw, **how)
    fields = {"dbz_gain": 0.3, "dbz_offset": -20.0, "no_data_value": 200}
    wanted = RadarConfig(radar_format="geotiff", time_step_minutes=10.0, **fields)
    found, _ = read_rain(tmp_path / "a.tif", wanted)
    expected = {
        "bytes": 10 ** ((0.3 * raw - 20) / 15.3),
        "dBZ": 10 ** (values / 15.3),
        "mm/h": 223 ** (1 / 1.53) * values,
        "mm": 223 ** (1 / 1.53) * values * 6,
    }[unit]
    np.testing.assert_array_equal(np.isnan(found), ~known)
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-6)


def test_geotiff_of_the_fmi_as_pysteps_reads_it(tmp_path):
    """Its importer of GDAL: dBZ = (value − 64) / 2, and 255 is no data."""
    raw = random_bytes(1)
    write_geotiff(tmp_path / "a.tif", raw)
    for name in ("pysteps:fmi_geotiff", "geotiff", "auto"):
        frame = reader(name)(tmp_path / "a.tif")
        check(frame, level((raw - 64.0) / 2), raw != 255)


def test_geotiff_of_one_band_among_several(tmp_path):
    bands = np.stack([random_bytes(seed) for seed in (1, 2, 3)])
    path, names = tmp_path / "a.tif", ("dBZ now", "", "dBZ then")
    write_geotiff(path, bands, descriptions=names)
    held = r"has the bands 1 \('dBZ now'\), 2, 3 \('dBZ then'\): data.product must na"
    for product in ("", "4", "RATE"):
        with pytest.raises(UserError, match=held):
            reader("geotiff", product=product)(path)
    for product, band in (("2", 1), ("dBZ then", 2)):
        raw = bands[band]
        check(reader("geotiff", product=product)(path), level(raw / 2 - 32), raw != 255)
    # Beside one band there may be a mask, as one or within.
    raw, known = bands[0], bands[1] > 90
    transparent = np.stack([raw, np.where(known, 255, 0).astype(np.uint8)])
    write_geotiff(path, transparent, alpha="YES")
    check(reader("geotiff", product="RATE")(path), level(raw / 2 - 32), known)
    write_geotiff(path, raw, mask=known)
    check(reader("geotiff")(path), level(raw / 2 - 32), known)


@pytest.mark.parametrize(
    ("crs", "place", "unit"),
    [
        ("EPSG:3067", (1000, 0, 100_000, 0, -500, 7_000_000), "m"),
        ("EPSG:27700", (1000, 0, 100_000, 0, -1000, 700_000), "m"),
        ("+proj=stere +lat_0=90 +lat_ts=60 +a=6371288 +units=km",
         (2, 0, 100, 0, -2, -3000), "km"),
        ("EPSG:4326", (0.5, 0, 10, 0, -0.25, 60), "degrees"),
        ("EPSG:3067", (-1000, 0, 100_000, 0, 500, 7_000_000), "m"),  # From south-east.
    ],
)  # fmt: skip
def test_geotiff_lies_where_it_says(crs, place, unit, tmp_path):
    pyproj = pytest.importorskip("pyproj")
    raw = random_bytes(1)
    write_geotiff(tmp_path / "a.tif", raw, crs, place)
    wanted = RadarConfig(radar_format="geotiff", downsample=1, dbz_max=SCALE.dbz_max)
    frame, facts = read_composite(tmp_path / "a.tif", wanted)
    grid, turned = facts["grid"], raw[::-1, ::-1] if place[0] < 0 else raw
    check(frame, level(turned / 2 - 32), turned != 255)
    assert grid["cartesian_unit"] == unit
    width, _, x, _, height, y = place
    xs, ys = sorted([x, x + 7 * width]), sorted([y, y + 9 * height])
    found = [[grid[f"{axis}{end}"] for end in (1, 2)] for axis in "xy"]
    np.testing.assert_allclose(found, [xs, ys], rtol=1e-12)
    assert (grid["xpixelsize"], grid["ypixelsize"]) == (abs(width), abs(height))
    of_file, of_grid = (
        pyproj.Transformer.from_crs(one, "EPSG:4326", always_xy=True)
        for one in (crs, grid["projection"])
    )
    corners = np.meshgrid(xs, ys)
    np.testing.assert_allclose(
        of_grid.transform(*corners), of_file.transform(*corners), atol=1e-9
    )


def test_geotiff_without_a_projection_has_no_grid(tmp_path):
    raw = random_bytes(1)
    fields = {"downsample": 1, "source_pixel_size_km": 3.0}
    wanted = RadarConfig(radar_format="geotiff", **fields)
    for place in ((1, 0, 0, 0, -1, 9), (1, 0, 0, 0, 1, 0)):
        write_geotiff(tmp_path / "a.tif", raw, None, place)
        frame, facts = read_composite(tmp_path / "a.tif", wanted)
        assert facts["grid"] == {} and facts["pixel_size_km"] == 3
        np.testing.assert_array_equal(frame[1], raw != 255)
    write_geotiff(tmp_path / "a.tif", raw, 'LOCAL_CS["here",UNIT["metre",1]]')
    _, facts = read_composite(tmp_path / "a.tif", wanted)
    assert facts["pixel_size_km"] == 1 and "projection" not in facts["grid"]


@pytest.mark.parametrize("name", GRIDS)
def test_our_nowcast_as_geotiff_is_read_back(name, tmp_path):
    for package in ("pyproj", "rasterio", "netCDF4"):
        pytest.importorskip(package, reason="requirements-radar.txt")
    path = written(tmp_path / "nowcast_201609281800.tif", GRIDS[name])
    with pytest.raises(UserError, match=r"the bands 1 \('\+2.5 min, 2016-09-28 18:02"):
        read_rain(path, RadarConfig(radar_format="auto"))
    wanted = RadarConfig(radar_format="auto", product="+5 min, 2016-09-28 18:05:00")
    rain, grid = read_rain(path, wanted)
    np.testing.assert_allclose(rain / 223 ** (1 / 1.53), EXPECTED[1], rtol=1e-6)
    km = 1000 if GRIDS[name]["cartesian_unit"] == "km" else 1
    for side in ("x1", "x2", "y1", "y2", "xpixelsize", "ypixelsize"):
        np.testing.assert_allclose(grid[side], GRIDS[name][side] * km, rtol=1e-6)
    assert crs_of(grid).equals(crs_of(GRIDS[name]), ignore_axis_order=True)
    written(path, GRIDS[name], MEMBERS)
    with pytest.raises(UserError, match="its unit is '1': it must be 'dBZ', 'mm/h'"):
        read_rain(path, wanted.model_copy(update={"product": "4"}))


def geotiff(raw, *given, **how):
    def write(folder):
        write_geotiff(folder / "a.tif", raw, *given, **how)
        return "a.tif"

    return write


def pages(folder):
    tifffile.imwrite(folder / "a.tif", np.zeros((2, 40, 40), np.uint8))
    return "a.tif"


def colours(folder):
    picture = Image.fromarray(random_bytes(1))
    picture.putpalette(bytes(range(256)) * 3)
    picture.save(folder / "a.tif")
    return "a.tif"


def large(folder):
    tifffile.memmap(folder / "a.tif", shape=(30_000, 30_000), dtype="u1").flush()
    os.truncate(folder / "a.tif", 2000)
    return "a.tif"


BYTES, RGB = random_bytes(1), np.stack([random_bytes(1)] * 3)
LONG = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
TILE = {"tiled": True, "blockxsize": 8192, "blockysize": 8208, "compress": "deflate"}
ROTATED = (1000, 5, 0, 0, -1000, 0)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (no_hdf5, "not recognized as being in a supported file format"),
        (truncated(write_geotiff, "a.tif", 900), "band 1: .*failed"),
        (geotiff(BYTES.astype(np.float32)), "float32 and no unit: it must have"),
        (geotiff(BYTES.astype(np.uint16)), "uint16 and no unit: it must have"),
        (geotiff(BYTES.astype(np.int8)), "holds int8 and no unit: it must have"),
        (geotiff(BYTES, scales=0.5, offsets=-32.0),
         "uint8 with a scale of 0.5 and an offset of -32 and no unit: it must"),
        (geotiff(BYTES.astype(np.uint16), **RATE), "uint16 and no nodata, which it mu"),
        (geotiff(BYTES.astype(np.complex64), **RATE), "complex64: it must hold whole"),
        (geotiff(BYTES, units="m"), "its unit is 'm': it must be 'dBZ', 'mm/h' or"),
        (geotiff(BYTES, units="mm"), "over which time .* data.time_step_minutes must"),
        (geotiff(BYTES.astype(np.float32) - 9999, **RATE), "a value of -9744 mm/h"),
        (geotiff(RGB, photometric="RGB"), "the bands 1, 2, 3: data.product must name"),
        (colours, "its values are numbers of colours: they must be reflectivity or"),
        (pages, "it has 2 pages, not one"),
        (large, "claims 7,200,000,000 bytes in a frame"),
        (geotiff(BYTES, **TILE), "claims 537,919,488 bytes in a frame"),
        (geotiff(BYTES, "EPSG:3067", ROTATED), "its area is rotated: its rows must"),
        (geotiff(BYTES, "EPSG:2263"), "in 'US survey foot': they must be in metres, k"),
    ],
)  # fmt: skip
def test_geotiff_that_cannot_be_read_is_refused(write, message, tmp_path):
    pytest.importorskip("rasterio", reason="requirements-radar.txt")
    path = tmp_path / write(tmp_path)
    with pytest.raises(
        UserError, match=rf"cannot be read as geotiff .*{message}"
    ) as it:
        reader("geotiff")(path)
    assert "\n" not in str(it.value)


def test_geotiff_is_read_without_the_files_beside_it(tmp_path):
    """Which may change while a cache knows the file itself as it was."""
    raw = random_bytes(1)
    write_geotiff(tmp_path / "a.tif", raw)
    expected = reader("geotiff")(tmp_path / "a.tif")
    aux = "<PAMDataset><PAMRasterBand band='1'><NoDataValue>100</NoDataValue>"
    aux += "<UnitType>mm/h</UnitType></PAMRasterBand></PAMDataset>"
    (tmp_path / "a.tif.aux.xml").write_text(aux)
    write_geotiff(tmp_path / "a.tif.msk", np.zeros_like(raw))
    np.testing.assert_array_equal(reader("geotiff")(tmp_path / "a.tif"), expected)


def test_missing_packages_are_named_before_any_work(tmp_path, monkeypatch):
    """Before the folder is looked at, which is not even there."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for radar_format, named in (
        ("mch_gif", "pysteps"),
        ("bom_rf3", "pysteps and netCDF4"),
        ("geotiff", "rasterio"),
        ("pysteps:fmi_geotiff", "rasterio"),
    ):
        message = (
            f"^radar_format is '{radar_format}', which cannot be read without {named}: "
            r"run `pip install -r requirements-radar\.txt`$"
        )
        with pytest.raises(UserError, match=message):
            wanted = RadarConfig(radar_format=radar_format)
            find_composites(tmp_path / "none", wanted)
    for radar_format in ("picture", "odim_hdf5", "knmi_hdf5"):
        check_packages(radar_format)
