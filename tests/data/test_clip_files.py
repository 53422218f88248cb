"""Reading clips: every kind of file exactly, every bad one with a clear sentence."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from convlstm_jax.data.clip_files import read_clip
from convlstm_jax.data.container_size import announced_size, is_whole_gif
from convlstm_jax.data.pictures import natural_order
from convlstm_jax.errors import UserError

RNG_SEED = 7


def grey_pixels(num_frames=5, height=18, width=22):
    rng = np.random.default_rng(RNG_SEED)
    return rng.integers(0, 256, (num_frames, height, width), dtype=np.uint8)


def colour_pixels(num_frames=4, height=18, width=22):
    rng = np.random.default_rng(RNG_SEED)
    return rng.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def unit(pixels):
    return pixels.astype(np.float32) / np.float32(255)


def write_video(path, pixels, codec, pixel_format):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = pixel_format
        for frame in pixels:
            kind = "gray" if frame.ndim == 2 else "rgb24"
            picture = av.VideoFrame.from_ndarray(frame, format=kind)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def luma(pixels):
    weights = np.array([0.299, 0.587, 0.114])
    return (unit(pixels).astype(np.float64) @ weights)[..., np.newaxis]


# --- .npy -----------------------------------------------------------------------------


def test_npy_bytes_are_divided_by_255(tmp_path):
    pixels = grey_pixels()
    np.save(tmp_path / "clip.npy", pixels)
    clip = read_clip(tmp_path / "clip.npy")
    assert clip.dtype == np.float32
    np.testing.assert_array_equal(clip, unit(pixels)[..., np.newaxis])


@pytest.mark.parametrize("channels_held", [1, 2, 3, 16])
def test_npy_floats_are_read_as_they_are(tmp_path, channels_held):
    rng = np.random.default_rng(RNG_SEED)
    frames = rng.random((3, 4, 5, channels_held)).astype(np.float32)
    np.save(tmp_path / "clip.npy", frames)
    np.testing.assert_array_equal(read_clip(tmp_path / "clip.npy"), frames)
    np.testing.assert_array_equal(
        read_clip(tmp_path / "clip.npy", channels=channels_held), frames
    )


def test_npy_changes_between_grey_and_colour(tmp_path):
    pixels = colour_pixels()
    np.save(tmp_path / "colour.npy", pixels)
    np.testing.assert_allclose(
        read_clip(tmp_path / "colour.npy", channels=1), luma(pixels), atol=1e-6
    )
    grey = np.repeat(grey_pixels()[..., np.newaxis], 3, axis=-1)
    np.save(tmp_path / "grey.npy", grey)
    exact = read_clip(tmp_path / "grey.npy", channels=1)
    np.testing.assert_array_equal(exact, unit(grey[..., :1]))
    np.save(tmp_path / "one.npy", grey[..., 0])
    np.testing.assert_array_equal(
        read_clip(tmp_path / "one.npy", channels=3), unit(grey)
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \(4, 4\).*\[T, H, W\]"),
        (np.zeros((0, 4, 4), np.uint8), r"shape \(0, 4, 4\).*no empty axis"),
        (np.zeros((2, 4, 4), np.int32), "type int32.*uint8 or floats"),
        (np.full((2, 4, 4), 1.5), r"values from 1.5 to 1.5 in frame 0.*\[0, 1\]"),
        (np.full((2, 4, 4), -0.1), r"values from -0.1 to -0.1"),
        (np.full((2, 4, 4), np.nan), r"values from nan to nan"),
        (np.full((2, 4, 4), np.inf), r"values from inf to inf"),
    ],
)
def test_npy_of_other_arrays_is_refused(tmp_path, array, message):
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(UserError, match=rf"bad.npy' has (the )?{message}"):
        read_clip(tmp_path / "bad.npy")


def test_npy_of_another_number_of_channels_is_refused(tmp_path):
    np.save(tmp_path / "two.npy", np.zeros((2, 4, 4, 2), np.uint8))
    with pytest.raises(UserError, match=r"has 2 channels: it must have 1 or 3"):
        read_clip(tmp_path / "two.npy", channels=3)


def test_damaged_npy_names_the_file(tmp_path):
    path = tmp_path / "cut.npy"
    np.save(path, grey_pixels())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"cut.npy' cannot be read as a .npy array"):
        read_clip(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"cut.npy' cannot be read as a .npy array"):
        read_clip(path)
    np.save(path, np.array([{"an": "object"}]), allow_pickle=True)
    with pytest.raises(UserError, match=r"cut.npy' cannot be read as a .npy array"):
        read_clip(path)


# --- folders of pictures --------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".pgm", ".tif"])
def test_folder_of_grey_pictures_is_exact_and_in_natural_order(tmp_path, suffix):
    pixels = grey_pixels(num_frames=11)
    for index, frame in enumerate(pixels):
        Image.fromarray(frame).save(tmp_path / f"frame{index}{suffix}")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / f".hidden{suffix}").write_bytes(b"not a picture")
    clip = read_clip(tmp_path)
    np.testing.assert_array_equal(clip, unit(pixels)[..., np.newaxis])
    np.testing.assert_array_equal(read_clip(tmp_path, channels=1), clip)
    np.testing.assert_array_equal(
        read_clip(tmp_path, channels=3), np.repeat(clip, 3, axis=-1)
    )
    np.testing.assert_array_equal(read_clip(tmp_path, max_frames=2), clip[:2])


def test_folder_of_colour_pictures(tmp_path):
    pixels = colour_pixels()
    for index, frame in enumerate(pixels):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    np.testing.assert_array_equal(read_clip(tmp_path), unit(pixels))
    np.testing.assert_allclose(
        read_clip(tmp_path, channels=1), luma(pixels), atol=0.51 / 255
    )


def test_jpeg_pictures_come_close(tmp_path):
    ramp = np.tile(np.arange(0, 240, 10, dtype=np.uint8), (16, 1))
    Image.fromarray(ramp).save(tmp_path / "0.jpg", quality=95)
    clip = read_clip(tmp_path)
    np.testing.assert_allclose(clip[0, ..., 0], unit(ramp), atol=4 / 255)


def test_sixteen_bit_and_palette_and_transparent_pictures(tmp_path):
    rng = np.random.default_rng(RNG_SEED)
    deep = rng.integers(0, 65536, (6, 7), dtype=np.uint16)
    (tmp_path / "deep").mkdir()
    Image.fromarray(deep).save(tmp_path / "deep" / "0.png")
    np.testing.assert_allclose(
        read_clip(tmp_path / "deep")[0, ..., 0], deep / 65535, atol=1e-6
    )

    palette = Image.fromarray(grey_pixels(1)[0] % 4).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9])
    (tmp_path / "palette").mkdir()
    palette.save(tmp_path / "palette" / "0.png")
    np.testing.assert_array_equal(
        read_clip(tmp_path / "palette")[0], unit(np.asarray(palette.convert("RGB")))
    )
    expected = np.asarray(palette.convert("RGB").convert("L"))
    np.testing.assert_array_equal(
        read_clip(tmp_path / "palette", channels=1)[0, ..., 0], unit(expected)
    )

    clear = np.full((4, 4, 4), 200, np.uint8)
    clear[:2, :, 3], clear[2:, :, 3] = 0, 255
    (tmp_path / "clear").mkdir()
    Image.fromarray(clear).save(tmp_path / "clear" / "0.png")
    clip = read_clip(tmp_path / "clear")
    np.testing.assert_array_equal(clip[0, :2], 0)
    np.testing.assert_array_equal(clip[0, 2:], np.float32(200) / np.float32(255))


def test_folder_errors_name_the_file(tmp_path):
    with pytest.raises(UserError, match="holds no picture"):
        read_clip(tmp_path)
    Image.fromarray(grey_pixels()[0]).save(tmp_path / "0.png")
    Image.fromarray(grey_pixels()[0, :5, :4]).save(tmp_path / "1.png")
    with pytest.raises(UserError, match=r"1.png' is 4x5 pixels.*'0.png' is 22x18"):
        read_clip(tmp_path)
    content = (tmp_path / "0.png").read_bytes()
    (tmp_path / "1.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"1.png' cannot be read as a picture"):
        read_clip(tmp_path)
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"1.png' cannot be read as a picture"):
        read_clip(tmp_path)


def test_float_picture_out_of_range_is_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 7.0, np.float32)).save(tmp_path / "0.tif")
    with pytest.raises(UserError, match=r"0.tif'.*outside 8 bits, 16 bits"):
        read_clip(tmp_path)


def test_natural_order_counts():
    names = ["a10.png", "a9.png", "B1.png", "a09b.png", "1.png", "02.png"]
    assert sorted(names, key=natural_order) == [
        "1.png",
        "02.png",
        "a9.png",
        "a09b.png",
        "a10.png",
        "B1.png",
    ]


# --- GIF and video --------------------------------------------------------------------


def save_gif(path, pixels):
    images = [Image.fromarray(frame) for frame in pixels]
    images[0].save(path, save_all=True, append_images=images[1:], duration=100)


def test_gif_of_pillow_is_exact(tmp_path):
    pixels = grey_pixels()
    save_gif(tmp_path / "clip.gif", pixels)
    clip = read_clip(tmp_path / "clip.gif")
    np.testing.assert_array_equal(clip, unit(pixels)[..., np.newaxis])
    np.testing.assert_array_equal(read_clip(tmp_path / "clip.gif", channels=1), clip)
    assert read_clip(tmp_path / "clip.gif", channels=3).shape == (5, 18, 22, 3)
    assert read_clip(tmp_path / "clip.gif", max_frames=2).shape[0] == 2


def test_cut_gif_is_refused_wherever_it_is_cut(tmp_path):
    save_gif(tmp_path / "clip.gif", grey_pixels(3, 6, 6))
    content = (tmp_path / "clip.gif").read_bytes()
    assert is_whole_gif(content) and is_whole_gif(content + b"trailing junk")
    assert not is_whole_gif(b"GIF89a" + bytes(40))
    for length in [0, 5, 12, *range(20, len(content), 97), len(content) - 1]:
        (tmp_path / "cut.gif").write_bytes(content[:length])
        with pytest.raises(UserError, match=r"cut.gif' cannot be read as a GIF"):
            read_clip(tmp_path / "cut.gif")


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_lossless_video_is_exact(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    pixels = grey_pixels()
    write_video(path, pixels, "ffv1", "gray")
    clip = read_clip(path)
    np.testing.assert_array_equal(clip, unit(pixels)[..., np.newaxis])
    np.testing.assert_array_equal(read_clip(path, channels=1), clip)
    pixels = colour_pixels()
    write_video(path, pixels, "ffv1", "bgr0")
    np.testing.assert_array_equal(read_clip(path), unit(pixels))
    np.testing.assert_array_equal(read_clip(path, max_frames=1), unit(pixels[:1]))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_limited_range_comes_back_over_the_full_range(tmp_path, suffix):
    bars = np.repeat(np.array([0, 255], np.uint8), 16)
    pixels = np.tile(bars, (4, 32, 1))
    path = tmp_path / f"bars{suffix}"
    write_video(path, pixels, "h264", "yuv420p")
    for channels in (None, 1):
        clip = read_clip(path, channels=channels)
        assert clip.shape == (4, 32, 32, 1)
        np.testing.assert_allclose(clip[..., 0], unit(pixels), atol=3 / 255)


@pytest.mark.parametrize(
    ("suffix", "codec", "pixel_format"),
    [
        (".mp4", "h264", "yuv420p"),
        (".avi", "ffv1", "gray"),
        (".mkv", "h264", "yuv420p"),
        (".webm", "libvpx", "yuv420p"),
    ],
)
def test_cut_video_is_refused(tmp_path, suffix, codec, pixel_format):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    write_video(whole, grey_pixels(8, 32, 32), codec, pixel_format)
    content = whole.read_bytes()
    assert announced_size(whole) == len(content)
    assert len(read_clip(whole)) == 8
    for share in (0.0, 0.01, 0.3, 0.6, 0.9, 0.99):
        cut.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match=r"cut\.\w+' cannot be read as a video"):
            read_clip(cut)


def test_container_size_of_unusual_files(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"no container at all")
    assert announced_size(path) is None
    path.write_bytes(b"RIFF" + struct.pack("<I", 0) + b"AVI LIST")
    assert announced_size(path) is None
    ftyp = struct.pack(">I", 16) + b"ftypisom\0\0\0\0"
    path.write_bytes(ftyp + struct.pack(">I", 0) + b"mdat" + bytes(9))
    assert announced_size(path) is None  # the last box reaches to the end
    path.write_bytes(ftyp + struct.pack(">I4sQ", 1, b"mdat", 1000))
    assert announced_size(path) == 1016  # a size of 64 bits
    path.write_bytes(ftyp + b"\0\0")
    assert announced_size(path) == 24
    path.write_bytes(bytes.fromhex("1A45DFA3 80 18538067 01FFFFFFFFFFFFFF"))
    assert announced_size(path) is None  # a live recording
    path.write_bytes(bytes.fromhex("1A45DFA3 80 18538067 85 0102030405"))
    assert announced_size(path) == 15


def test_video_file_without_video_is_refused(tmp_path):
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 800), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UserError, match=r"sound.mkv'.*no video stream"):
        read_clip(path)


def test_video_of_changing_size_is_refused(tmp_path):
    path = tmp_path / "two_sizes.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuvj420p"
        for index, size in enumerate((32, 48)):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.height, encoder.width, encoder.pix_fmt = size, size, "yuvj420p"
            encoder.time_base = Fraction(1, 10)
            frame = av.VideoFrame.from_ndarray(
                np.zeros((size, size), np.uint8), format="gray"
            ).reformat(format="yuvj420p")
            frame.pts = index
            for packet in [*encoder.encode(frame), *encoder.encode(None)]:
                packet.stream = stream
                container.mux(packet)
    with pytest.raises(UserError, match=r"two_sizes.avi'.*frame size changes"):
        read_clip(path)


def test_video_without_frames_is_refused(tmp_path):
    path = tmp_path / "empty.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("h264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16), np.uint8), "gray")
        container.mux(stream.encode(picture))
        container.mux(stream.encode())
    # The index promises a frame, but the box of the data, the last one, is empty.
    content = path.read_bytes()
    start = content.index(b"mdat") - 4
    path.write_bytes(content[:start] + struct.pack(">I", 8) + b"mdat")
    with pytest.raises(UserError, match=r"empty.mp4' holds no frame"):
        read_clip(path)


def test_unreadable_folder_is_refused(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        read_clip(tmp_path)


# --- paths and arguments --------------------------------------------------------------


def test_missing_and_unknown_paths(tmp_path):
    with pytest.raises(UserError, match=r"no clip at '.*nothing.gif'.*folder"):
        read_clip(tmp_path / "nothing.gif")
    (tmp_path / "clip.xyz").write_text("")
    with pytest.raises(UserError, match=r"clip.xyz' is of the kind '.xyz'.*\.npy"):
        read_clip(tmp_path / "clip.xyz")


def test_arguments_are_checked(tmp_path):
    save_gif(tmp_path / "clip.gif", grey_pixels())
    with pytest.raises(UserError, match="channels is 0"):
        read_clip(tmp_path / "clip.gif", channels=0)
    with pytest.raises(UserError, match=r"channels is 2.*clip.gif"):
        read_clip(tmp_path / "clip.gif", channels=2)
    with pytest.raises(UserError, match="max_frames is 0"):
        read_clip(tmp_path / "clip.gif", max_frames=0)
