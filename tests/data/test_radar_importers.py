"""ODIM, KNMI, MeteoSwiss and BoM files: written here, read through pysteps."""

import h5py
import numpy as np
import pytest

from convlstm_jax.data.radar_formats import RADAR_FORMATS
from convlstm_jax.errors import UserError
from tests.data.radar_files import (
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

LOOKUP = "io/mch_lut_8bit_Metranet_v103.txt"


def check(frame, levels, valid):
    """Every pixel, and rain as it was put in, to half a level."""
    np.testing.assert_array_equal(frame[1], valid)
    np.testing.assert_array_equal(frame[0], np.where(valid, levels, 0))


def test_odim_reflectivity(tmp_path, pysteps):
    raw = random_bytes(1)
    write_odim(tmp_path / "a.h5", raw)
    frame = reader("odim_hdf5").read(tmp_path / "a.h5")
    check(frame, level(raw / 2 - 32), raw != 255)
    assert not frame[0, 1, :3].any() and frame[1, 1, :3].all()


def test_odim_rain_rate_comes_back_as_it_was(tmp_path, pysteps):
    raw = random_bytes(2, least=4)
    write_odim(tmp_path / "a.hdf", raw, "RATE", gain=0.1, offset=0.0)
    pixels, valid = reader("odim_hdf5").read(tmp_path / "a.hdf")
    check((pixels, valid), level_of_rain(raw / 10), raw != 255)
    known = (raw > 4) & (raw < 255)
    rain = SCALE.rain_mm_per_h(pixels / 255)
    np.testing.assert_allclose(rain[known], raw[known] / 10, rtol=0.02)
    assert not rain[raw == 0].any()


def test_blocks_are_averaged_as_z_of_the_files_own_values(tmp_path, pysteps):
    raw = np.full((2, 6), 255, np.uint8)
    raw[:, :2] = [[104, 124], [255, 104]]
    raw[:, 2:4] = [[104, 255], [255, 84]]  # Half: just enough data.
    raw[0, 4] = 104
    write_odim(tmp_path / "a.h5", raw)
    pixels, valid = reader("odim_hdf5", downsample=2).read(tmp_path / "a.h5")
    np.testing.assert_array_equal(valid, [[1, 1, 0]])
    means = np.array([400, 55])  # Of 100, 1000 and 100; of 100 and 10.
    np.testing.assert_array_equal(pixels, [[*level(10 * np.log10(means)), 0]])


def test_knmi_reflectivity(tmp_path, pysteps):
    raw = random_bytes(3)
    write_knmi(tmp_path / "a.h5", raw, "REFLECTIVITY_[DBZ]")
    frame = reader("knmi_hdf5").read(tmp_path / "a.h5")
    check(frame, level(raw / 2 - 32), raw != 255)


@pytest.mark.parametrize("minutes", [5.0, 60.0])
def test_knmi_rain_was_gathered_in_a_time_step(minutes, tmp_path, pysteps):
    raw = np.random.default_rng(4).integers(1, 300, (6, 5)).astype(np.uint16)
    raw[0, :4] = [0, 255, 65534, 65535]
    write_knmi(tmp_path / "a.h5", raw, "PRECIP_[MM]")
    frame = reader("knmi_hdf5", time_step_minutes=minutes).read(tmp_path / "a.h5")
    check(frame, level_of_rain(raw / 100 * 60 / minutes), raw < 65534)


def test_the_northern_row_comes_first(tmp_path, pysteps):
    raw = random_bytes(5)
    write_knmi(tmp_path / "a.h5", raw, "REFLECTIVITY_[DBZ]", pixel_size_y=1.0)
    frame = reader("knmi_hdf5").read(tmp_path / "a.h5")
    check(frame, level(raw[::-1] / 2 - 32), raw[::-1] != 255)


def test_mch_gif_of_rain_gathered(tmp_path, pysteps):
    """AQC: values from 2 to 250 are (value − 71.5)/2 in dB of 316 R^1.5, R in mm."""
    raw = np.random.default_rng(6).integers(2, 100, (8, 6), np.uint8)
    raw[0, :4] = [0, 1, 251, 255]
    palette = np.random.default_rng(7).integers(0, 256, (256, 3))
    write_gif(tmp_path / "AQC162721445F_00005.801.gif", raw, palette)
    rain = 12 * (10 ** ((raw - 71.5) / 20) / 316) ** (1 / 1.5)
    rain[(raw < 2) | (raw > 250)] = 0
    frame = reader("mch_gif").read(tmp_path / "AQC162721445F_00005.801.gif")
    check(frame, level_of_rain(rain), raw != 255)


def test_mch_gif_of_rain_rate(tmp_path, pysteps):
    """RZC: colours stand for mm/h, by a table that comes with pysteps."""
    lookup = next(iter(pysteps.__path__)) + "/" + LOOKUP
    table = np.genfromtxt(lookup, skip_header=1)
    rows = table[(table[:, -1] > 0.1) & (table[:, -1] < 100)][::7]
    _, distinct = np.unique(rows[:, 1:4], axis=0, return_index=True)
    rows = rows[sorted(distinct)]
    assert len(rows) > 9
    palette = np.zeros((256, 3))
    palette[: len(rows)] = rows[:, 1:4]
    palette[len(rows)] = [1, 2, 3]  # Stands for nothing.
    raw = np.arange(len(rows) + 1, dtype=np.uint8)[np.newaxis]
    write_gif(tmp_path / "RZC162721445VL.801.gif", raw, palette)
    frame = reader("mch_gif").read(tmp_path / "RZC162721445VL.801.gif")
    valid = raw < len(rows)
    check(frame, level_of_rain(np.append(rows[:, -1], 0.0))[np.newaxis], valid)


def test_bom_netcdf_says_how_long_rain_was_gathered(tmp_path, pysteps):
    rain = np.random.default_rng(8).integers(1, 60, (6, 5)) * 0.05
    rain[0, :2] = [np.nan, 0.0]
    write_bom(tmp_path / "a.nc", rain)
    frame = reader("bom_rf3", time_step_minutes=99.0).read(tmp_path / "a.nc")
    check(frame, level_of_rain(10 * np.nan_to_num(rain)), ~np.isnan(rain))


def test_a_composite_without_any_data(tmp_path, pysteps):
    write_odim(tmp_path / "a.h5", np.full((4, 4), 255, np.uint8))
    assert not reader("odim_hdf5").read(tmp_path / "a.h5").any()


def truncated_odim(folder):
    write_odim(folder / "a.h5", random_bytes(1, (64, 64)))
    (folder / "a.h5").write_bytes((folder / "a.h5").read_bytes()[:-2000])
    return "a.h5"


def no_hdf5(folder):
    (folder / "a.h5").write_bytes(b"P5 1 1 255\n ")
    return "a.h5"


def odim_of_gathered_rain(folder):
    write_odim(folder / "a.h5", random_bytes(1), "ACRR")
    return "a.h5"


def odim_of_one_radar(folder):
    write_odim(folder / "a.h5", random_bytes(1))
    with h5py.File(folder / "a.h5", "a") as file:
        texts(file["what"], object="PVOL")
    return "a.h5"


def odim_of_one_sweep(folder):
    odim_of_one_radar(folder)
    with h5py.File(folder / "a.h5", "a") as file:
        file["what"].attrs["object"] = np.array([b"scan\0\0"])
    return "a.h5"


def odim_without_projection(folder):
    write_odim(folder / "a.h5", random_bytes(1))
    with h5py.File(folder / "a.h5", "a") as file:
        del file["where"].attrs["projdef"]
    return "a.h5"


def knmi_of_heights(folder):
    write_knmi(folder / "a.h5", random_bytes(1), "HEIGHT_[KM]")
    return "a.h5"


def gif_without_product(folder):
    write_gif(folder / "a.gif", random_bytes(1), np.zeros((256, 3)))
    return "a.gif"


def truncated_gif(folder):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    write_gif(folder / "AQC.gif", noise, np.zeros((256, 3)))
    (folder / "AQC.gif").write_bytes((folder / "AQC.gif").read_bytes()[:-1500])
    return "AQC.gif"


def bom(**fields):
    def write(folder):
        write_bom(folder / "a.nc", np.ones(fields.pop("size", (4, 4))), **fields)
        return "a.nc"

    return write


@pytest.mark.parametrize(
    ("radar_format", "write", "message"),
    [
        ("odim_hdf5", truncated_odim, r"truncated"),
        ("odim_hdf5", no_hdf5, "signature not found"),
        ("odim_hdf5", odim_of_gathered_rain, "holds neither of .* DBZH and RATE"),
        ("odim_hdf5", odim_of_one_radar, "is a 'PVOL' of one radar, by angle and dist"),
        ("odim_hdf5", odim_of_one_sweep, "is a 'SCAN' of one radar, by angle and dis"),
        ("odim_hdf5", odim_without_projection, "'projdef'"),
        ("odim_hdf5", knmi_of_heights, "holds neither of .* DBZH and RATE"),
        ("knmi_hdf5", truncated_odim, r"truncated"),
        ("knmi_hdf5", odim_of_gathered_rain, r"\(Unable to .*'image1' doesn't"),
        ("knmi_hdf5", knmi_of_heights, r"is 'HEIGHT_\[KM\]', but must end in \[DBZ\]"),
        ("mch_gif", gif_without_product, "name must begin with .* AQC, CPC, AZC, RZC"),
        ("mch_gif", truncated_gif, "truncated"),
        ("bom_rf3", no_hdf5, "cannot be read as bom_rf3"),
        ("bom_rf3", bom(units=""), "unit is None, but must be 'dBZ', 'mm/h' or 'mm'"),
        ("bom_rf3", bom(minutes=0), "not say in which time its rain was gathered"),
        ("bom_rf3", bom(size=(2, 4, 4)), "has 3 dimensions, but must have two"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(
    radar_format, write, message, tmp_path, pysteps
):
    path = tmp_path / write(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        reader(radar_format).read(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"'{path}' cannot be read as {radar_format} (")
    assert sentence.endswith(").") and "\n" not in sentence


@pytest.mark.parametrize("radar_format", sorted(set(RADAR_FORMATS) - {"picture"}))
def test_files_that_are_not_there(radar_format, tmp_path, pysteps):
    path = tmp_path / "AQC"
    with pytest.raises(UserError) as caught:
        reader(radar_format).read(path)
    assert str(caught.value) == (
        f"'{path}' cannot be read as {radar_format} (No such file or directory)."
    )


@pytest.mark.parametrize("radar_format", sorted(set(RADAR_FORMATS) - {"picture"}))
def test_each_format_is_named_as_its_importer(radar_format, pysteps):
    from pysteps.io import importers

    assert callable(getattr(importers, f"import_{radar_format}"))
