"""Files that were made to do harm: each ends in a sentence, at once."""

import gzip
import os
import socket
import struct
import subprocess

import h5py
import numpy as np
import pytest

from convlstm_jax.data.radar.config import RadarConfig
from convlstm_jax.data.radar.formats import read_rain
from convlstm_jax.data.synthetic import digits
from convlstm_jax.data.video.config import VideoConfig
from convlstm_jax.data.video.cvat import read_cvat
from convlstm_jax.data.video.film import find_films
from convlstm_jax.errors import UserError
from tests.data.radar_files import random_bytes, write_odim
from tests.data.video.film_files import grey_pixels, write_stack, write_video


def read_folder(folder):
    config = VideoConfig(path=str(folder), height=8, width=8)
    return config.sources(num_frames=2, seed=0)


def refused(folder, message):
    with pytest.raises(UserError, match=message):
        read_folder(folder)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.npy", "a.nc", "frame.png"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_not_read(name, kind, tmp_path):
    """Reading from a pipe waits for ever, and /dev/zero has no end."""
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/dev/zero")
    message = "must be a regular file|holds no picture|none of its frames can"
    refused(tmp_path, message)


def test_annotations_and_digits_in_pipes(tmp_path):
    write_stack(tmp_path / "a.gif", grey_pixels(8, 8, 8))
    os.mkfifo(tmp_path / "a.xml")
    with pytest.raises(UserError, match=r"a\.xml' cannot be read: it must be a reg"):
        read_cvat(tmp_path / "a.xml")
    os.mkfifo(tmp_path / "train-images-idx3-ubyte")
    with pytest.raises(UserError, match="must be a regular file"):
        digits.read_idx_images(tmp_path / "train-images-idx3-ubyte")


def test_postscript_named_png_starts_no_program(tmp_path, monkeypatch):
    """Pillow would hand it to Ghostscript, `gs`."""
    marker = tmp_path / "started"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "gs"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "films").mkdir()
    for name in ("a.png", "b.gif", "c.tif"):
        text = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
        (tmp_path / "films" / name).write_text(text)
    refused(tmp_path / "films", "cannot be read|cannot identify")
    assert not marker.exists()


@pytest.mark.parametrize("content", ["video", "playlist"])
def test_no_name_or_playlist_opens_the_network(content, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if content == "video":
            write_video(tmp_path / "a.mp4", grey_pixels(8, 16, 16), "mpeg4", "yuv420p")
            (tmp_path / "a.mp4").rename(tmp_path / f"tcp:{address}?x=.mp4")
            assert len(read_folder(tmp_path).train)
        else:
            text = f"#EXTM3U\n#EXTINF:1,\nhttp://{address}/a.ts\n"
            (tmp_path / "a.mp4").write_text(text)
            refused(tmp_path, "a.mp4' cannot be read as a video")
        with pytest.raises(TimeoutError):
            server.accept()


def test_folders_however_deep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    frames = grey_pixels(4, 8, 8)
    np.save("a.npy", frames)
    with open("201609281445.pgm", "wb") as file:
        file.write(b"P5 8 8 255\n" + frames[0].tobytes())
    os.chdir(tmp_path)
    names = [film.name for film in find_films(tmp_path)]
    assert names == ["/".join("d" * 1500), "/".join(["d"] * 1500 + ["a.npy"])]
    config = RadarConfig(path=str(tmp_path), radar_format="picture")
    with pytest.raises(UserError, match="is empty"):  # One composite makes no clip.
        config.sources(num_frames=2, seed=0)
    # Python's own way, which pytest takes, is recursive.
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)


@pytest.mark.parametrize("kind", ["external link", "soft link", "external storage"])
def test_odim_that_reads_another_file(kind, tmp_path):
    secret, path = tmp_path / "secret", tmp_path / "201609281445.h5"
    raw = random_bytes(1)
    write_odim(path, raw)
    with h5py.File(secret, "w") as file:
        file["data"] = raw
    with h5py.File(path, "a") as file:
        group = file["dataset1/data1"]
        del group["data"]
        if kind == "external link":
            group["data"] = h5py.ExternalLink(str(secret), "/data")
        elif kind == "soft link":
            file["elsewhere"] = raw
            group["data"] = h5py.SoftLink("/elsewhere")
        else:
            place = [(str(secret), 0, raw.nbytes)]
            group.create_dataset("data", raw.shape, raw.dtype, external=place)
    with pytest.raises(UserError, match="in the file itself"):
        read_rain(path, RadarConfig(radar_format="odim_hdf5"))


def test_digits_that_are_unpacked_without_end(tmp_path, monkeypatch):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    images = np.zeros((500, 28, 28), np.uint8)
    content = struct.pack(">4I", 2051, *images.shape) + images.tobytes()
    path.write_bytes(gzip.compress(content))
    assert path.stat().st_size < 1000
    monkeypatch.setattr(digits, "_MAX_BYTES", 100_000)
    with pytest.raises(UserError, match="has more than 100,000 bytes, the most allo"):
        digits.read_idx_images(path)


def test_a_picture_that_is_unpacked_without_end(tmp_path):
    header = b"P5 100000 100000 255\n"
    (tmp_path / "a.pgm.gz").write_bytes(gzip.compress(header + bytes(10**6)))
    refused(tmp_path, r"claims 30,000,000,000 bytes in a frame|exceeds limit")


def test_what_libraries_raise_on_damaged_headers(tmp_path):
    """A `KeyError` of Pillow (no such compression), an `AttributeError` of PyAV."""
    pixels = grey_pixels(8, 16, 16)
    tiff, video = tmp_path / "tiff" / "a.tif", tmp_path / "video" / "a.mp4"
    for path in (tiff, video):
        path.parent.mkdir()
    content = write_stack(tiff, pixels).read_bytes()
    compression = b"\x03\x01\x03\x00\x01\x00\x00\x00"
    before, found, after = content.rpartition(compression)
    assert found
    tiff.write_bytes(before + found + b"\0" + after[1:])
    refused(tiff.parent, r"a.tif' cannot be read as a picture")
    content = write_video(video, pixels, "mpeg4", "yuv420p").read_bytes()
    for codec in (b"mp4v", b"esds"):
        assert codec in content
        content = content.replace(codec, b"zzzz")
    video.write_bytes(content)
    refused(video.parent, "a.mp4' cannot be read as a video")
