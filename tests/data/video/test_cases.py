"""Small files of every kind that were once read wrongly, with what is right."""

from pathlib import Path

import numpy as np
import pytest

from tests.data.video.film_files import open_film, refuses

CASES = Path(__file__).parent.parent / "cases"
DROPPED = {7, 8, 20, 33}


def film_of(name, tmp_path, height=48, width=64, **settings):
    path = CASES / name
    link = tmp_path / path.name  # The cache lies beside it.
    link.symlink_to(path, target_is_directory=path.is_dir())
    return open_film(link, height=height, width=width, **settings)


def numbers(frames):
    """The number in the bars of each frame."""
    half, eighth = frames.shape[1] // 2, frames.shape[2] / 8
    bars = [
        frames[:, :half, round(n * eighth) + 2 : round((n + 1) * eighth) - 2]
        for n in range(8)
    ]
    return sum(
        (bar.mean((1, 2, 3)) > 127).astype(int) << n for n, bar in enumerate(bars)
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("base.mp4", range(40)),
        ("h264_bf.avi", range(40)),
        ("xvid_packed.avi", [*range(37), 39]),  # As FFmpeg decodes.
        ("vp8_hidden_frames.mkv", range(120)),
        ("mjpeg_dropframes.avi", [n for n in range(40) if n not in DROPPED]),
        ("cover_first.mkv", range(40)),
        ("h264_10bit.mp4", range(40)),
        ("odd.mp4", range(40)),
    ],
)
def test_videos(tmp_path, name, expected):
    film = film_of(f"video/{name}", tmp_path)
    assert film.size == ((47, 63) if name == "odd.mp4" else (48, 64))
    assert not film.problem and not film.masked
    found = film.read(0, film.num_frames)
    assert list(numbers(found)) == list(expected)
    assert found.min() < 30 and found.max() > 220


def test_a_mirrored_video(tmp_path):
    straight = film_of("video/base.mp4", tmp_path).read(0, 40)
    mirrored = film_of("video/mirrored.mp4", tmp_path).read(0, 40)
    np.testing.assert_array_equal(mirrored, straight[:, :, ::-1])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("pictures/exif6", {}),
        ("pictures/bits12", {"value_range": (0.0, 4095.0)}),
        ("netcdf/plain.nc", {}),
        ("netcdf/dims_latlon_validtime.nc", {}),
        ("netcdf/dims_t_x_y.nc", {}),
        ("netcdf/level1.nc", {}),
        ("netcdf/u8_fill.nc", {}),
        ("netcdf/missing.nc", {}),
    ],
)
def test_pictures_and_netcdf(tmp_path, name, settings):
    if name.endswith(".nc"):
        for library in ("xarray", "h5netcdf"):
            pytest.importorskip(library, reason="needs requirements-xarray.txt")
    film = film_of(name, tmp_path, **settings)
    assert film.size == (48, 64) and film.num_frames == 12 and not film.problem
    found = film.read(0, 12)
    assert abs(int(found.max()) - 230) < 9
    hidden = 1 if film.masked else 0  # The gap lies in the bar of bit 0.
    np.testing.assert_array_equal(numbers(found) | hidden, np.arange(12) | hidden)
    assert film.masked == (name == "netcdf/missing.nc")
    if film.masked:
        assert (
            film.frames.read_mask(0, 12)[..., 0].sum((1, 2)).tolist() == [48 * 59] * 12
        )
        assert (found[film.frames.read_mask(0, 12) == 0] == 0).all()


def test_a_stack(tmp_path):
    film = film_of("pictures/stack/cell0.tif", tmp_path)
    assert film.num_frames == 12
    assert list(numbers(film.read(0, 12))) == list(range(12))


def test_12_bits_in_16_are_never_black(tmp_path):
    words = r"bits12' uses the values 0 .. \d+ of 16 bits: .*value_range .* as 0,4095"
    with refuses(words):
        film_of("pictures/bits12", tmp_path)
