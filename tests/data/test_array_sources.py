"""Arrays as videos: npz, NetCDF, Zarr; crops, ranges of values, NaN, black clips."""

import importlib.util
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.data import video_frames, xarray_frames
from convlstm_jax.data.frame_cache import FrameCache
from convlstm_jax.data.video_folder import video_folder_sources
from convlstm_jax.data.video_frames import fit_frame, open_video
from convlstm_jax.data.video_search import find_videos
from convlstm_jax.errors import UserError

T, H, W = 9, 6, 8
SIZE = {"height": H, "width": W, "channels": 1}


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch):
    monkeypatch.setattr(video_frames, "_cache", FrameCache(max_bytes=4 * (H * W + 256)))


def pixels(shape=(T, H, W), seed=5):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def assert_any_order_agrees(video, expected):
    assert video.num_frames == len(expected) and not video.problem
    np.testing.assert_array_equal(video.read(0, len(expected)), expected)
    for start in np.random.default_rng(1).permutation(len(expected) - 2):
        clip = video.read(int(start), 3)
        np.testing.assert_array_equal(clip, expected[start : start + 3])
    np.testing.assert_array_equal(video.read(1, 3, stride=3), expected[1:8:3])


# --- npz ------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("bad_frames", ["refuse", "skip"])
def test_npz_in_any_order(tmp_path, save, bad_frames):
    path = tmp_path / "clip.npz"
    save(path, other=pixels((3, H, W), 1), film=pixels(), last=np.arange(3))
    video = open_video(path, variable="film", bad_frames=bad_frames, **SIZE)
    assert_any_order_agrees(video, pixels()[..., None])
    copy = pickle.loads(pickle.dumps(video))
    np.testing.assert_array_equal(copy.read(4, 3), pixels()[4:7, ..., None])
    save(path, pixels((T, H, W, 3)) / np.float32(255))
    colour = open_video(path, height=H, width=W, channels=3)
    assert_any_order_agrees(colour, pixels((T, H, W, 3)))


def test_npz_that_is_mapped_may_be_in_fortran_order(tmp_path):
    film = np.asfortranarray(pixels())
    np.savez(tmp_path / "a.npz", film)
    assert_any_order_agrees(open_video(tmp_path / "a.npz", **SIZE), film[..., None])
    np.savez_compressed(tmp_path / "b.npz", film)
    with pytest.raises(UserError, match=r"b.npz' cannot be read .*Fortran order"):
        open_video(tmp_path / "b.npz", **SIZE)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_that_is_refused(tmp_path, save):
    path = tmp_path / "clip.npz"
    save(path, a=pixels(), b=pixels())
    with pytest.raises(UserError, match=r"it holds a, b: variable must name one"):
        open_video(path, **SIZE)
    with pytest.raises(UserError, match=r"variable is 'c', but it holds a, b"):
        open_video(path, variable="c", **SIZE)
    save(path, a=np.arange(5))
    with pytest.raises(UserError, match=r"clip.npz' .*type int64, not uint8 or floats"):
        open_video(path, **SIZE)
    with pytest.raises(UserError, match=r"clip.npz' .*shape \(5,\), not \[T, H, W\]"):
        open_video(path, value_range=(0, 9), **SIZE)
    save(path, a=pixels())
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(UserError, match=r"clip.npz' cannot be read as a .npz video"):
        open_video(path, **SIZE)
    video = open_video(path, bad_frames="skip", **SIZE)
    assert video.num_frames == 0 and "clip.npz" in video.problem


def test_npz_damaged_in_its_midst(tmp_path):
    path = tmp_path / "clip.npz"
    np.savez_compressed(path, pixels((400, H, W)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    video = open_video(path, bad_frames="skip", **SIZE)
    assert 0 < video.num_frames < 400
    assert f"{video.num_frames} of 400 frames can be read" in video.problem
    with pytest.raises(UserError, match=r"clip.npz' cannot be read as a .npz video"):
        open_video(path, **SIZE).read(0, 400)


# --- NetCDF and Zarr ------------------------------------------------------------------


def save_xarray(path, **fields):
    xarray = pytest.importorskip("xarray", reason="needs requirements-xarray.txt")
    engine = {".nc": "h5netcdf", ".zarr": "zarr"}[path.suffix]
    pytest.importorskip(engine, reason="needs requirements-xarray.txt")
    data = xarray.Dataset(
        {name: (("time", "y", "x", "band")[: v.ndim], v) for name, v in fields.items()}
    )
    if path.suffix == ".nc":
        data.to_netcdf(path, engine=engine)
    else:
        chunks = {name: {"chunks": (4, H, W)} for name in ("film",)}
        data.to_zarr(path, mode="w", encoding=chunks, consolidated=False)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_xarray_in_any_order(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    save_xarray(path, film=pixels())
    assert_any_order_agrees(open_video(path, **SIZE), pixels()[..., None])
    save_xarray(path, film=pixels(), other=pixels(seed=2), height=np.arange(T * 1.0))
    for bad_frames in ("refuse", "skip"):
        video = open_video(path, variable="film", bad_frames=bad_frames, **SIZE)
        assert_any_order_agrees(video, pixels()[..., None])
    copy = pickle.loads(pickle.dumps(video))
    np.testing.assert_array_equal(copy.read(4, 3), pixels()[4:7, ..., None])
    with pytest.raises(UserError, match=rf"{suffix}' .*film, other of three or four"):
        open_video(path, **SIZE)
    with pytest.raises(UserError, match=r"variable is 'no', but it holds film, height"):
        open_video(path, variable="no", **SIZE)
    assert [video.name for video in find_videos(tmp_path)] == [path.name]
    assert [video.name for video in find_videos(path)] == [path.name]


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_xarray_values(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"clip{suffix}"
    dbz = np.random.default_rng(3).uniform(-40, 80, (T, H, W)).astype(np.float32)
    dbz[5, 2, 3] = np.nan
    save_xarray(path, film=dbz)
    monkeypatch.setattr(xarray_frames, "_BLOCK_VALUES", 3 * H * W)
    ranged = {"value_range": (-10.0, 60.0), **SIZE}
    with pytest.raises(UserError, match=r"has 1 of 48 values in frame 5 .*NaN"):
        open_video(path, **ranged).read(0, T)
    video = open_video(path, bad_frames="skip", **ranged)
    assert video.holes == {5} and "8 of 9 frames" in video.problem
    expected = np.rint(np.clip((dbz[:5] + 10) / 70, 0, 1) * 255)
    np.testing.assert_allclose(video.read(0, 5)[..., 0], expected, atol=1)
    with pytest.raises(UserError, match=r"values from .* in frame 0, but floats must"):
        open_video(path, **SIZE).read(0, 1)


def test_xarray_files_that_are_refused(tmp_path):
    path = tmp_path / "clip.nc"
    save_xarray(path, film=pixels())
    import xarray

    turned = xarray.Dataset({"film": (("y", "x", "time"), pixels())})
    turned.to_netcdf(tmp_path / "turned.nc", engine="h5netcdf")
    with pytest.raises(UserError, match=r"turned.nc' .*y, x, time, but time must be"):
        open_video(tmp_path / "turned.nc", **SIZE)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"clip.nc' cannot be read as a .nc video"):
        open_video(path, **SIZE)
    assert open_video(path, bad_frames="skip", **SIZE).num_frames == 0


@pytest.mark.parametrize("bad_frames", ["refuse", "skip"])
def test_without_xarray_it_is_said_what_to_install(tmp_path, monkeypatch, bad_frames):
    (tmp_path / "clip.nc").write_bytes(b"\x89HDF")
    (tmp_path / "clip.zarr").mkdir()
    find_spec = importlib.util.find_spec
    absent = ("xarray", "zarr")
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: None if name in absent else find_spec(name),
    )
    with pytest.raises(UserError, match=r"clip.zarr' .*without xarray and zarr: run"):
        open_video(tmp_path / "clip.zarr", bad_frames=bad_frames, **SIZE)
    with pytest.raises(UserError, match=r"clip.nc' .*xarray.*requirements-xarray.txt"):
        open_video(tmp_path / "clip.nc", bad_frames=bad_frames, **SIZE)


def test_xarray_is_not_imported_for_other_videos(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)  # An import would fail.
    np.save(tmp_path / "clip.npy", pixels())
    assert open_video(tmp_path / "clip.npy", **SIZE).read(0, 2).shape == (2, H, W, 1)


# --- crop and range of values ---------------------------------------------------------


def test_a_box_is_cut_out_before_resizing(tmp_path):
    film = pixels((4, 12, 14))
    np.save(tmp_path / "a.npy", film)
    (tmp_path / "b").mkdir()
    for number, frame in enumerate(film):
        Image.fromarray(frame).save(tmp_path / "b" / f"{number}.png")
    images = [Image.fromarray(frame) for frame in film]
    images[0].save(tmp_path / "c.gif", save_all=True, append_images=images[1:])
    part = film[:, 1:9, 3:13, None]
    smaller = np.stack([fit_frame(frame, 4, 5) for frame in part])
    np.testing.assert_allclose(
        smaller, part.reshape(4, 4, 2, 5, 2, 1).mean((2, 4)), atol=1
    )
    for name in ("a.npy", "b", "c.gif"):
        same = open_video(
            tmp_path / name, height=8, width=10, channels=1, crop_box=(1, 3, 8, 10)
        )
        np.testing.assert_array_equal(same.read(0, 4), part)
        half = open_video(
            tmp_path / name, height=4, width=5, channels=1, crop_box=(1, 3, 8, 10)
        )
        np.testing.assert_array_equal(half.read(0, 4), smaller)
        with pytest.raises(UserError, match=rf"{name}' has frames of 12x14 .*reaches"):
            open_video(tmp_path / name, crop_box=(5, 0, 8, 10), **SIZE)
        left_out = open_video(
            tmp_path / name, crop_box=(0, 5, 8, 10), bad_frames="skip", **SIZE
        )
        assert left_out.num_frames == 0 and "reaches out" in left_out.problem
    with pytest.raises(UserError, match=r"crop_box is \(-1, 0, 8, 8\), but must be"):
        open_video(tmp_path / "a.npy", crop_box=(-1, 0, 8, 8), **SIZE)


def test_a_cut_out_frame_does_not_keep_the_whole_one_alive(tmp_path):
    np.save(tmp_path / "a.npy", pixels((2, 50, W)))
    video = open_video(tmp_path / "a.npy", crop_box=(3, 0, H, W), **SIZE)
    video.read(0, 2)
    frame = video_frames._cache.get(video._token, 1)
    assert frame.base is None or frame.base.nbytes == frame.nbytes


@pytest.mark.parametrize("dtype", [np.int16, np.float64, np.float16, np.uint8])
def test_values_are_scaled_and_clipped(tmp_path, dtype):
    low = 0 if dtype == np.uint8 else -50
    film = np.random.default_rng(4).integers(low, 120, (T, H, W)).astype(dtype)
    np.save(tmp_path / "a.npy", film)
    video = open_video(tmp_path / "a.npy", value_range=(20.0, 90.0), **SIZE)
    expected = np.rint(np.clip((film.astype(float) - 20) / 70, 0, 1) * 255)
    np.testing.assert_array_equal(video.read(0, T)[..., 0], expected)
    assert expected.min() == 0 and expected.max() == 255
    with pytest.raises(UserError, match=r"value_range is \(9, 9\), but must be two"):
        open_video(tmp_path / "a.npy", value_range=(9, 9), **SIZE)


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("value_range", [(), (-1.0, 2.0)])
def test_values_that_are_not_finite(tmp_path, strange, value_range):
    film = pixels() / np.float32(255)
    film[3, 0, :2] = strange
    np.save(tmp_path / "a.npy", film)
    with pytest.raises(UserError, match=r"a.npy' has 2 of 48 values in frame 3 .*NaN"):
        open_video(tmp_path / "a.npy", value_range=value_range, **SIZE).read(0, T)
    video = open_video(
        tmp_path / "a.npy", value_range=value_range, bad_frames="skip", **SIZE
    )
    assert video.holes == {3} and video.num_frames == T
    assert "8 of 9 frames can be read" in video.problem and "NaN" in video.problem


# --- folders --------------------------------------------------------------------------


def open_folder(path, **fields):
    limits = {
        f"num_{split}_sequences": 999 for split in ("train", "validation", "test")
    }
    return video_folder_sources(
        **{"path": str(path), "num_frames": 3, **SIZE, **limits, **fields}
    )


def test_a_folder_of_arrays_of_all_kinds(tmp_path):
    dbz = {name: pixels(seed=n) / np.float32(4) for n, name in enumerate("abcd")}
    np.save(tmp_path / "a.npy", dbz["a"])
    np.savez(tmp_path / "b.npz", rain=dbz["b"], other=np.zeros(3))
    np.savez_compressed(tmp_path / "c.npz", rain=dbz["c"])
    np.savez_compressed(tmp_path / "d.npz", snow=dbz["d"])
    fields = {"value_range": (0.0, 60.0), "variable": "rain", "crop_box": (1, 1, 4, 4)}
    with pytest.raises(UserError, match=r"d.npz' .*variable is 'rain', but it holds s"):
        open_folder(tmp_path, **fields)
    sources = open_folder(tmp_path, bad_files="skip", **fields)
    assert "3 videos, split by video" in sources.description
    assert "1 video that cannot be read (first: '" in sources.description
    shown = set()
    for split in (sources.train, sources.validation, sources.test):
        for index in range(len(split)):
            shown.add(split[index]["frames"].tobytes())
    scaled = [np.clip(dbz[name][:, 1:5, 1:5] / 60, 0, 1)[..., None] for name in "abc"]
    expected = [np.stack([fit_frame(f, H, W) for f in film]) for film in scaled]
    assert shown == {
        film[start : start + 3].tobytes() for film in expected for start in (0, 3, 6)
    }


def test_black_clips_are_named_counted_and_kept(tmp_path):
    for number in range(6):
        film = pixels(seed=number)
        film[:, 0, 0] = number
        if number == 2:
            film[2:7] = 0  # One clip is black, two are in part.
        if number == 4:
            film[:] = 77
        np.save(tmp_path / f"film{number}.npy", film)
    sources = open_folder(tmp_path, bad_files="skip")
    assert "Nothing is to be seen in 4 clips (first: film" in sources.description
    assert "Left out" not in sources.description
    sizes = [len(s) for s in (sources.train, sources.validation, sources.test)]
    assert sum(sizes) == 18
    one = open_folder(tmp_path, bad_files="skip", frame_stride=2, clip_stride=2)
    # Of film2 the frames 2, 4, 6; of film4 those from 0, 2, 4 on.
    assert "Nothing is to be seen in 4 clips" in one.description


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_a_file_without_permission(tmp_path, monkeypatch, kind):
    for number in range(4):
        film = pixels(seed=number)
        if kind == "npy":
            np.save(tmp_path / f"film{number}.npy", film)
        else:
            np.savez(tmp_path / f"film{number}.npz", film)
    opened = open
    forbidden = str(tmp_path / f"film2.{kind}")

    def refuse(path, *args, **kwargs):
        if str(path) == forbidden:
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr("io.open", refuse)
    with pytest.raises(UserError, match=rf"film2.{kind}' cannot .*\(Permission denied"):
        open_folder(tmp_path)
    sources = open_folder(tmp_path, bad_files="skip")
    assert "1 video that cannot be read (first: '" in sources.description
    assert "film2" in sources.description


def test_a_folder_below_without_permission(tmp_path, monkeypatch):
    for number in range(4):
        np.save(tmp_path / f"film{number}.npy", pixels(seed=number))
    (tmp_path / "locked").mkdir()
    iterdir = type(tmp_path).iterdir

    def refuse(self):
        if self.name == "locked":
            raise PermissionError(13, "Permission denied")
        return iterdir(self)

    monkeypatch.setattr(type(tmp_path), "iterdir", refuse)
    with pytest.raises(UserError, match=r"folder '.*locked' cannot be read \(Permissi"):
        open_folder(tmp_path)
    sources = open_folder(tmp_path, bad_files="skip")
    assert "1 video that cannot be read (first: The folder '" in sources.description


# --- splitting ------------------------------------------------------------------------


def frames_of(split):
    """(video, frame) pairs of a split, as the first two pixels tell them."""
    clips = [split[index]["frames"] for index in range(len(split))]
    return {(int(f[0, 0, 0]), int(f[0, 1, 0])) for clip in clips for f in clip}


def write_films(folder, groups, takes, num_frames=T):
    number = 0
    for group in groups:
        (folder / group).mkdir()
        for take in range(takes):
            film = pixels((num_frames, H, W), seed=number)
            film[:, 0, 0], film[:, 0, 1] = number, np.arange(num_frames)
            np.save(folder / group / f"take{take}.npy", film)
            number += 1


def test_whole_conditions_stay_on_one_side(tmp_path):
    write_films(tmp_path, [f"flow{n}" for n in range(10)], 3)
    sources = open_folder(
        tmp_path, condition="folder", split_by="condition", test_fraction=0.2
    )
    assert "split by condition" in sources.description
    sides = [
        {video // 3 for video, _ in frames_of(split)}
        for split in (sources.train, sources.validation, sources.test)
    ]
    assert [len(side) for side in sides] == [7, 1, 2]
    assert set.union(*sides) == set(range(10))
    held = open_folder(
        tmp_path, condition="folder", split_by="condition", test_conditions=("flow4",)
    )
    assert {video // 3 for video, _ in frames_of(held.test)} == {4}
    validation = {video // 3 for video, _ in frames_of(held.validation)}
    assert len(validation) == 1 and 4 not in validation
    assert validation.isdisjoint(video // 3 for video, _ in frames_of(held.train))


def test_too_few_conditions_to_split_by(tmp_path):
    write_films(tmp_path, ["a", "b"], 5)
    with pytest.raises(UserError, match=r"split_by is 'condition', but of the 2 cond"):
        open_folder(tmp_path, condition="folder", split_by="condition")
    with pytest.raises(UserError, match=r"'condition', but condition is '', which"):
        open_folder(tmp_path, split_by="condition")
    with pytest.raises(UserError, match=r"split_by is 'name', but must be one of"):
        open_folder(tmp_path, split_by="name")


def test_every_video_is_cut_in_time(tmp_path):
    write_films(tmp_path, ["a", "b"], 3, num_frames=40)
    sources = open_folder(
        tmp_path, split_by="time", clip_stride=1, test_fraction=0.25, num_frames=5
    )
    assert "each cut in time" in sources.description
    train, validation, test = (
        frames_of(split) for split in (sources.train, sources.validation, sources.test)
    )
    assert train == {(video, frame) for video in range(6) for frame in range(25)}
    assert validation == {(v, frame) for v in range(6) for frame in range(25, 30)}
    assert test == {(video, frame) for video in range(6) for frame in range(30, 40)}
