"""Small files as weather services write them, and what is to be read out of them."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from convlstm_jax.data.radar.composites import read_composite
from convlstm_jax.data.radar.config import RadarConfig
from convlstm_jax.rain import RainScale

# Where real data lie, on machines that have some.
REAL = Path(__file__).resolve().parents[3] / "shared" / "data"

# Of a top at which no value written below falls between two levels.
SCALE = RainScale(0.0, 60.1, 223.0, 1.53)


def reader(radar_format="picture", **fields):
    """What reads a file as a data set of some fields does."""
    fields = {"downsample": 1, "dbz_max": SCALE.dbz_max, **fields}
    config = RadarConfig(radar_format=radar_format, **fields)
    return lambda path: read_composite(path, config)[0]


def level(dbz):
    with np.errstate(invalid="ignore"):
        return np.rint(255 * np.clip(dbz / 60.1, 0, 1))


def level_of_rain(rain_mm_per_h):
    with np.errstate(divide="ignore"):
        return level(10 * np.log10(223 * np.asarray(rain_mm_per_h) ** 1.53))


def random_bytes(seed, size=(9, 7), least=0):
    raw = np.random.default_rng(seed).integers(least, 180, size, np.uint8)
    raw[0, :3] = 255  # No data.
    raw[1, :3] = 0  # No echo.
    return raw


def texts(group, **attributes):
    """Attributes as ODIM and KNMI want texts: of a fixed length."""
    for name, value in attributes.items():
        group.attrs[name] = np.bytes_(value) if isinstance(value, str) else value


def write_odim(path, raw, quantity="DBZH", gain=0.5, offset=-32.0):
    """ODIM 2.3, one composite: 255 is no data, 0 no echo."""
    with h5py.File(path, "w") as file:
        texts(file, Conventions="ODIM_H5/V2_3")
        what = {"object": "COMP", "version": "H5rad 2.3", "source": "ORG:247"}
        texts(file.create_group("what"), date="20160928", time="144500", **what)
        texts(
            file.create_group("where"),
            projdef="+proj=laea +lat_0=55 +lon_0=10 +units=m +ellps=WGS84",
            xsize=raw.shape[1], ysize=raw.shape[0], xscale=2000.0, yscale=2000.0,
        )  # fmt: skip
        texts(
            file.create_group("dataset1/what"), product="COMP", startdate="20160928",
            starttime="144500", enddate="20160928", endtime="145000",
        )  # fmt: skip
        texts(
            file.create_group("dataset1/data1/what"), quantity=quantity, gain=gain,
            offset=offset, nodata=255.0, undetect=0.0,
        )  # fmt: skip
        file["dataset1/data1"].create_dataset("data", data=raw, compression="gzip")


def write_knmi(path, raw, parameter, pixel_size_y=-1.0, calibration=None):
    """KNMI's own HDF5 of one image, rain gathered in 5 minutes."""
    if calibration is None:
        formula = "GEO=0.01*PV+0.0" if "[MM]" in parameter else "GEO=0.5*PV-32.0"
        largest = np.array([np.iinfo(raw.dtype).max], np.int32)
        missing = {
            f"calibration_{x}": largest for x in ("missing_data", "out_of_image")
        }
        calibration = {"calibration_formulas": formula, **missing}
    with h5py.File(path, "w") as file:
        texts(
            file.create_group("overview"),
            product_datetime_start="28-SEP-2016;14:40:00.000",
            product_datetime_end="28-SEP-2016;14:45:00.000",
        )
        texts(
            file.create_group("geographic"),
            geo_pixel_size_x=np.array([1.0], np.float32),
            geo_pixel_size_y=np.array([pixel_size_y], np.float32),
        )
        texts(file.create_group("image1"), image_geo_parameter=parameter)
        texts(file.create_group("image1/calibration"), **calibration)
        file["image1"].create_dataset("image_data", data=raw, compression="gzip")


def write_bom(path, rain_mm, minutes=6, units="mm"):
    """Rainfields 3, with rain packed in two bytes, −1 for no data."""
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(path, "w") as file:
        names = ("n", "y", "x")[-rain_mm.ndim :]
        for name, length in zip(names, rain_mm.shape, strict=True):
            file.createDimension(name, length)
        for name in ("x", "y"):
            axis = file.createVariable(name, "f4", (name,))
            axis.units = "km"
            axis[:] = np.arange(len(file.dimensions[name]))
        projection = file.createVariable("proj", "i4")
        projection.grid_mapping_name = "albers_conical_equal_area"
        projection.longitude_of_central_meridian = 144.752
        projection.latitude_of_projection_origin = -37.852
        projection.standard_parallel = [-18.0, -36.0]
        for name, seconds in (("start_time", 0), ("valid_time", 60 * minutes)):
            if minutes:
                time = file.createVariable(name, "i8")
                time.units = "seconds since 1970-01-01 00:00:00 UTC"
                time[...] = 1_529_150_400 + seconds
        rain = file.createVariable("precipitation", "i2", names, fill_value=-1)
        rain.scale_factor = 0.05
        if units:
            rain.units = units
        rain[:] = np.ma.masked_array(np.nan_to_num(rain_mm), np.isnan(rain_mm))


def write_gif(path, raw, palette):
    picture = Image.fromarray(raw)
    picture.putpalette(palette.astype(np.uint8).tobytes())
    picture.save(path, optimize=False)  # Which would number the colours anew.
