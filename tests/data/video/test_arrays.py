"""Arrays as films: npy, npz, NetCDF, Zarr; values, axes, gaps and limits."""

import importlib.util
import io
import os
import zipfile

import numpy as np
import pytest

from convlstm_jax.data.video import arrays
from convlstm_jax.data.video.config import VideoConfig
from convlstm_jax.data.video.film import find_films
from tests.data.video.film_files import frames_of as read_frames
from tests.data.video.film_files import open_film as open_any
from tests.data.video.film_files import refuses

T, H, W = 9, 6, 8
SIZE = {"height": H, "width": W}


def open_film(path, bad_files="refuse", **settings):
    return open_any(path, bad_files, **SIZE | settings)


def frames_of(path, **settings):
    return read_frames(path, **SIZE | settings)


def pixels(shape=(T, H, W), seed=5):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def refused(path, words, **settings):
    with refuses(words):
        open_film(path, **settings)
    film = open_film(path, bad_files="skip", **settings)
    assert film.num_frames == 0 and path.name in film.problem


# --- npy and npz ----------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save])
def test_bytes_and_floats(tmp_path, save, order):
    path = tmp_path / ("a.npy" if save is np.save else "a.npz")
    for film in (pixels(), pixels() / np.float32(255), pixels() / np.float64(255)):
        save(path, np.asarray(film, order=order))
        np.testing.assert_array_equal(frames_of(path)[..., 0], pixels())
    assert (frames_of(path, channels=3) == pixels()[..., None]).all()


def test_any_number_of_channels(tmp_path):
    channels = 5
    film = pixels((3, H, W, channels))
    np.save(tmp_path / "a.npy", film)
    found = frames_of(tmp_path / "a.npy", channels=channels)
    np.testing.assert_array_equal(found, film)
    half = frames_of(tmp_path / "a.npy", channels=channels, height=3, width=4)
    means = film.reshape(3, 3, 2, 4, 2, channels).mean((2, 4))
    np.testing.assert_allclose(half, means, atol=1)
    refused(tmp_path / "a.npy", f", has {channels} channels: config.data.channels is 1")


def test_npz_by_name(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(
        path, other=pixels((3, H, W), 1), film=pixels(), last=np.arange(3)
    )
    np.testing.assert_array_equal(frames_of(path, variable="film")[..., 0], pixels())
    refused(path, r"it holds other, film, last: config.data.variable must name one")
    refused(path, r"variable is 'c', but it holds other, film", variable="c")
    refused(path, r"a.npz' .*shape \(3,\): it must be \[T, H, W\]", variable="last",
            value_range=(0.0, 9.0))  # fmt: skip
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, r"a.npz' cannot be read as a .npz film", variable="film")


def test_npz_damaged_in_its_middle(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, pixels((400, H, W)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    monkeypatch.setattr(arrays, "_BLOCK_VALUES", 10 * H * W)
    film = open_film(path, bad_files="skip")
    assert 0 < film.num_frames < 400
    assert f"{film.num_frames} of 400 frames can be read" in film.problem
    with refuses(r"a.npz' cannot be read whole"):
        open_film(path)


def test_cut_and_strange_arrays(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, pixels())
    path.write_bytes(path.read_bytes()[: -2 * H * W - 1])
    with refuses(r"a.npy' cannot be read.*cut short: \d+ of"):
        open_film(path)
    film = open_film(path, bad_files="skip")
    assert film.problem.startswith("6 of 9 frames can be read (the file is cut short")
    np.testing.assert_array_equal(film.read(0, 6)[..., 0], pixels()[:6])
    for array, words in (
        (np.zeros((2, 3, 4), np.uint16), "type uint16: config.data.value_range must"),
        (np.zeros((2, 3, 4), "U3"), "type <U3: it must hold integers or floats"),
        (np.array([{}]), "type object: it must hold integers or floats"),
        (np.zeros((2, 3), np.uint8), r"shape \(2, 3\): it must be \[T, H, W\]"),
        (np.zeros((0, 4, 4), np.uint8), r"shape \(0, 4, 4\): it must be"),
        (np.full((2, H, W), 1.5), r"values go from 1.5 to 1.5: without .*value_range"),
        (np.full((2, H, W), np.nan), "48 of 48 values are not finite .*fill the"),
    ):
        np.save(path, array, allow_pickle=True)
        refused(path, words)
    path.write_bytes(b"no array")
    refused(path, r"a.npy' cannot be read as a .npy film")


def write_head(path, shape, dtype="|u1"):
    """An array of which there is a head alone."""
    with path.open("wb") as file:
        head = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, head)
        file.write(bytes(999))


def test_files_that_claim_too_much(tmp_path):
    write_head(tmp_path / "a.npy", (10**12, 1, 1))
    refused(tmp_path / "a.npy", r"a.npy' claims 1,000,000,000,000 frames: it must")
    write_head(tmp_path / "a.npy", (1, 10**6, 10**6))
    with refuses(r"a.npy' .*cut short"):
        open_film(tmp_path / "a.npy")
    content = io.BytesIO()
    head = {"descr": "<f8", "fortran_order": False, "shape": (2, 10**5, 10**5)}
    np.lib.format.write_array_header_1_0(content, head)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content.getvalue() + bytes(10**7))
    refused(tmp_path / "a.npz", r"a.npz' claims 80,000,000,000 bytes in a frame")


# --- values and gaps ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.int16, np.float16, np.uint8])
def test_values_are_scaled_and_clipped(tmp_path, dtype):
    low = 0 if np.dtype(dtype).kind == "u" else -50
    film = np.random.default_rng(4).integers(low, 120, (T, H, W)).astype(dtype)
    np.save(tmp_path / "a.npy", film)
    found = frames_of(tmp_path / "a.npy", value_range=(20.0, 90.0))[..., 0]
    expected = np.rint(np.clip((film.astype(float) - 20) / 70, 0, 1) * 255)
    np.testing.assert_array_equal(found, expected)
    assert expected.min() == 0 and expected.max() == 255


@pytest.mark.parametrize(
    ("strange", "value_range", "number"), [(np.nan, (), 0), (np.inf, (-1.0, 2.0), 3)]
)
def test_values_that_are_not_finite(tmp_path, strange, value_range, number):
    film = pixels() / np.float32(255)
    film[number, 0, :2] = strange
    path = tmp_path / "a.npy"
    np.save(path, film)
    words = rf"a.npy' cannot be read whole: 8 of 9 .*frame {number}: 2 of 48 .*NaN"
    with refuses(words):
        open_film(path, value_range=value_range)
    found = open_film(path, value_range=value_range, bad_files="skip")
    assert found.holes == {number} and found.num_frames == T and not found.masked
    assert "8 of 9 frames can be read" in found.problem and "NaN" in found.problem


@pytest.mark.parametrize(("value_range", "channels"), [((), 1), ((0.0, 0.5), 3)])
def test_pixels_without_data_in_any_frame_are_masked(tmp_path, value_range, channels):
    film = pixels((T, H, W, channels)) / np.float32(255)
    film[:, 2:4, 5] = np.nan
    film[1] = np.nan
    np.save(tmp_path / "a.npy", film)
    settings = {"value_range": value_range, "channels": channels}
    with refuses(r"frame 1: .* fill the others"):
        open_film(tmp_path / "a.npy", **settings)
    found = open_film(tmp_path / "a.npy", bad_files="skip", **settings)
    assert found.masked and found.holes == {1}
    mask = found.frames.read_mask(4)[0, ..., 0]
    assert mask.sum() == 46 and not mask[2:4, 5].any()
    scaled = np.clip(film[4] / (0.5 if value_range else 1), 0, 1)
    expected = np.where(np.isnan(scaled), 0, np.rint(scaled * 255))
    np.testing.assert_allclose(found.read(4, 1)[0], expected, atol=1)
    # A pixel that is made of one without data has none.
    half = open_film(tmp_path / "a.npy", "skip", **settings | {"height": 3, "width": 4})
    assert half.frames.read_mask(4)[0, ..., 0].sum() == 11
    assert half.read(4, 1)[0, 1, 2].tolist() == [0] * channels


# --- NetCDF and Zarr ------------------------------------------------------------------


def save(path, data, dims=("time", "y", "x", "band"), encoding=None, **more):
    xarray = pytest.importorskip("xarray", reason="needs requirements-xarray.txt")
    fields = {"film": data} | more
    fields = {name: (dims[: v.ndim], v) for name, v in fields.items()}
    data = xarray.Dataset(fields)
    if path.suffix == ".zarr":
        data.to_zarr(path, mode="w", consolidated=False)
    else:
        engine = "scipy" if path.suffix == ".cdf" else "h5netcdf"
        data.to_netcdf(path, engine=engine, encoding={"film": encoding or {}})
    return path


@pytest.mark.parametrize("suffix", [".nc4", ".zarr"])
def test_xarray(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(arrays, "_BLOCK_VALUES", 4 * H * W)
    path = save(tmp_path / f"a{suffix}", pixels())
    np.testing.assert_array_equal(frames_of(path)[..., 0], pixels())
    save(path, pixels((T, H, W, 3)))
    np.testing.assert_array_equal(frames_of(path, channels=3), pixels((T, H, W, 3)))
    save(path, pixels(), other=pixels(seed=2), height=np.arange(T * 1.0))
    np.testing.assert_array_equal(frames_of(path, variable="film")[..., 0], pixels())
    refused(path, rf"a{suffix}' .*film, other: config")
    refused(path, "variable is 'no', but it holds film, height, other", variable="no")
    assert [film.name for film in find_films(tmp_path)] == [path.name]
    assert [film.name for film in find_films(path)] == [path.name]


def test_classic_netcdf(tmp_path):
    path = save(tmp_path / "a.cdf", pixels() / np.float32(255))
    np.testing.assert_array_equal(frames_of(path)[..., 0], pixels())


@pytest.mark.parametrize(
    ("dims", "order"),
    [
        (("time", "lat", "lon"), (0, 1, 2)),
        (("lon", "lat", "time"), (2, 1, 0)),
        (("y", "x", "valid_time"), (2, 0, 1)),
        (("latitude", "step", "longitude"), (1, 0, 2)),
        (("dim_0", "dim_1", "dim_2"), (0, 1, 2)),
        (("nx", "ny", "n"), (2, 1, 0)),
        (("time", "projection_x_coordinate", "y0"), (0, 2, 1)),
        (("time", "width", "height"), (0, 2, 1)),
    ],
)
def test_axes_are_put_into_order_by_name(tmp_path, dims, order):
    film = pixels().transpose(np.argsort(order))
    path = save(tmp_path / "a.nc", film, dims)
    np.testing.assert_array_equal(frames_of(path)[..., 0], pixels())
    path = save(tmp_path / "b.nc", film[None], ("member", *dims))
    np.testing.assert_array_equal(frames_of(path)[..., 0], pixels())


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        (("time", "level", "y", "x"), r"time \(9\), level \(2\), y .*one of level"),
        (("time", "step", "y", "x"), r"keep one of (step|time)"),
        (("time", "foo", "y", "x"), "keep one of foo"),
        (("level", "y", "x"), "keep one of level"),
    ],
)
def test_axes_that_cannot_be_frames_are_refused(tmp_path, dims, words):
    shape = [{"y": H, "x": W, "time": T}.get(name, 2) for name in dims]
    refused(save(tmp_path / "a.nc", pixels(shape), dims), words)


def test_time_that_goes_backwards_is_refused(tmp_path):
    path = save(tmp_path / "a.nc", pixels(), time=np.arange(T, 0, -1, np.uint8))
    refused(path, "its time goes backwards: sort it")


def test_fill_values_and_packed_values(tmp_path):
    film = pixels() // 2
    path = save(tmp_path / "a.nc", film, encoding={"_FillValue": 255})
    np.testing.assert_array_equal(frames_of(path)[..., 0], film)
    film[:, 1, 1] = 255
    found = open_film(save(path, film, encoding={"_FillValue": 255}))
    assert found.masked and found.read(0, 1)[0, 1, 1, 0] == 0
    film[3, 2, 2] = 255
    path = save(path, film, encoding={"_FillValue": 255})
    with refuses(r"frame 3: 1 of 48 values are not finite"):
        open_film(path)
    packed = {"dtype": "int16", "scale_factor": 0.5, "add_offset": -32.0,
              "_FillValue": -999}  # fmt: skip
    dbz = np.random.default_rng(3).integers(-64, 120, (T, H, W)) / 2
    path = save(tmp_path / "b.nc", dbz, encoding=packed)
    found = frames_of(path, value_range=(-10.0, 60.0))[..., 0]
    np.testing.assert_allclose(found, np.clip((dbz + 10) / 70, 0, 1) * 255, atol=1)
    refused(path, "values go from .* to .*: without config.data.value_range")


def test_hdf5_that_reads_other_files_or_claims_too_much(tmp_path):
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("h5netcdf")
    save(tmp_path / "a.nc", pixels())
    with h5py.File(tmp_path / "link.nc", "w") as file:
        file["film"] = h5py.ExternalLink(str(tmp_path / "a.nc"), "/film")
    refused(tmp_path / "link.nc", "'film' is a link to another file")
    with h5py.File(tmp_path / "out.nc", "w") as file:
        file.create_dataset(
            "film", (1, H, W), "u1", external=[("/etc/passwd", 0, H * W)]
        )
    refused(tmp_path / "out.nc", "the values of 'film' lie in another file")
    with h5py.File(tmp_path / "huge.nc", "w") as file:
        file.create_dataset("film", (4, 10**6, 10**6), "u1", chunks=(1, 99, 99))
    refused(tmp_path / "huge.nc", r"huge.nc' claims 1,000,000,000,000 bytes in a frame")
    (tmp_path / "a.nc").write_bytes((tmp_path / "a.nc").read_bytes()[:-200])
    refused(tmp_path / "a.nc", r"a.nc' cannot be read as a .nc film")


@pytest.mark.parametrize("bad_files", ["refuse", "skip"])
def test_without_xarray_it_is_said_what_to_install(tmp_path, monkeypatch, bad_files):
    (tmp_path / "a.nc").write_bytes(b"\x89HDF")
    (tmp_path / "a.zarr").mkdir()
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name in ("xarray", "zarr") else find_spec(name),
    )
    with refuses(r"a.zarr' .*without xarray and zarr: run"):
        open_film(tmp_path / "a.zarr", bad_files)
    with refuses(r"a.nc' .*xarray.*requirements-xarray.txt"):
        open_film(tmp_path / "a.nc", bad_files)


# --- folders --------------------------------------------------------------------------


def open_folder(path, **fields):
    config = VideoConfig(path=str(path), **(SIZE | {"channels": 1} | fields))
    return config.sources(num_frames=3, seed=0)


def all_clips(sources):
    for split in (sources.train, sources.validation, sources.test):
        yield from (split[index] for index in range(len(split)))


def test_gaps_are_masked_in_every_clip_and_told(tmp_path):
    for number in range(4):
        film = pixels(seed=number) / np.float32(255)
        film[:, 0, 0] = np.nan if number == 2 else 0.5
        np.save(tmp_path / f"film{number}.npy", film)
    sources = open_folder(tmp_path)
    assert "Some pixels of 1 video have no data in any frame (first: film2.npy" in (
        sources.description
    )
    for clip in all_clips(sources):
        assert clip["mask"].shape == (3, H, W, 1) and clip["mask"].dtype == np.uint8
        assert ((clip["frames"][:, 0, 0] == 0) == (clip["mask"][:, 0, 0] == 0)).all()
        assert clip["mask"].sum() in (3 * H * W, 3 * H * W - 3)


def test_folders_without_permission(tmp_path, monkeypatch):
    for number in range(4):
        np.save(tmp_path / f"film{number}.npy", pixels(seed=number))
    (tmp_path / "locked").mkdir()

    def without_permission(call):
        def checked(folder):
            if str(folder).endswith("locked"):
                raise PermissionError(13, "Permission denied")
            return call(folder)

        return checked

    monkeypatch.setattr(os, "scandir", without_permission(os.scandir))
    kind = type(tmp_path)
    monkeypatch.setattr(kind, "iterdir", without_permission(kind.iterdir))
    with refuses(r"folder '.*locked' cannot be read \(Permissi"):
        open_folder(tmp_path)
    sources = open_folder(tmp_path, bad_files="skip")
    assert "1 video that cannot be read (first: The folder '" in sources.description
