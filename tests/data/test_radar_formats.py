"""Composites of weather services: ODIM, KNMI, MeteoSwiss and BoM."""

import importlib.util
from pathlib import Path

import h5py
import numpy as np
import pytest

from convlstm_jax.data.radar.composites import find_composites
from convlstm_jax.data.radar.config import RadarConfig
from convlstm_jax.data.radar.formats import RADAR_FORMATS, check_packages
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
        (odim(forecasts_alone), "holds DBZH in dataset2/data1, dataset3/data1: it"),
        (TWICE, "holds DBZH in dataset1/data1, dataset1/data2: it must hold it once"),
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
        pixels, valid = reader("odim_hdf5")(path)
        np.testing.assert_array_equal(valid[:, 0], [1] * 16 + [0] * 4, path.name)
        expected = np.where(np.arange(20) < 8, level(np.array(32.0)), 0)
        np.testing.assert_array_equal(pixels, np.tile(expected[:, None], 24), path.name)


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


def test_missing_packages_are_named_before_any_work(tmp_path, monkeypatch):
    """Before the folder is looked at, which is not even there."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for radar_format, named in (
        ("mch_gif", "pysteps"),
        ("bom_rf3", "pysteps and netCDF4"),
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
