"""Films of all kinds: every pixel in order, every bad file with a clear sentence."""

import gzip
import os
import pickle
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import tifffile
from PIL import Image

from convlstm_jax.data.video import pictures
from convlstm_jax.data.video.containers import announced_size
from convlstm_jax.data.video.film import read_last
from convlstm_jax.data.video.fit import FrameSettings, Raw, fit
from convlstm_jax.data.video.pictures import is_whole_gif
from tests.data.video.film_files import (
    HEIGHT,
    WIDTH,
    colour_pixels,
    frames_of,
    grey_pixels,
    open_film,
    refuses,
    write_folder,
    write_stack,
    write_video,
)


def same(path, expected, **settings):
    """Whether a film has these frames, also from the cache and in another process."""
    film = open_film(path, **settings)
    assert film.num_frames == len(expected) and not film.problem and not film.holes
    np.testing.assert_array_equal(film.read(0, len(expected)), expected)
    again = pickle.loads(pickle.dumps(open_film(path, **settings)))
    np.testing.assert_array_equal(again.read(1, 2, stride=2), expected[1:5:2])


# --- the same pixels ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "codec", "pixel_format", "options"),
    [
        (".mp4", "h264", "yuv420p", {"g": "7", "bf": "3", "x264-params": "open-gop=1"}),
        (".mov", "h264", "yuv420p", {"g": "250"}),
        (".mkv", "h264", "yuv420p", {"g": "5", "bf": "2"}),
        (".ts", "h264", "yuv420p", {"g": "8", "bf": "3"}),
        (".avi", "mpeg4", "yuv420p", {"g": "6", "bf": "2"}),
        (".mpg", "mpeg2video", "yuv420p", {"g": "6", "bf": "2"}),
        (".webm", "libvpx-vp9", "yuv420p", {"g": "6", "auto-alt-ref": "1"}),
    ],
)
def test_video_files_are_read_in_the_order_they_are_shown(
    tmp_path, suffix, codec, pixel_format, options
):
    # Frame k carries k in 6 bars from left (bit 0) to right.
    bits = np.arange(30)[:, None] >> np.arange(6) & 1
    bars = np.repeat(bits * 255, WIDTH // 6, axis=1).astype(np.uint8)
    path = tmp_path / f"clip{suffix}"
    pixels = np.repeat(bars[:, None], HEIGHT, axis=1)
    write_video(path, pixels, codec, pixel_format, **options)
    found = frames_of(path)[:, :, WIDTH // 12 :: WIDTH // 6].mean((1, 3))
    np.testing.assert_array_equal(found > 127, bits)


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_lossless_video_is_exact(tmp_path, suffix):
    path = tmp_path / f"grey{suffix}"
    write_video(path, grey_pixels(8), "ffv1", "gray")
    same(path, grey_pixels(8)[..., None])
    same(path, np.repeat(grey_pixels(8)[..., None], 3, axis=-1), channels=3)
    path = tmp_path / f"colour{suffix}"
    write_video(path, colour_pixels(), "ffv1", "bgr0")
    same(path, colour_pixels(), channels=3)
    grey = frames_of(path)[..., 0]
    expected = colour_pixels() @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey, expected, atol=1)


def test_limited_range_comes_back_over_the_full_range(tmp_path):
    bars = np.tile(np.repeat(np.array([0, 255], np.uint8), 24), (4, HEIGHT, 1))
    path = write_video(tmp_path / "bars.mp4", bars, "h264", "yuv420p")
    for channels in (1, 3):
        found = frames_of(path, channels=channels)
        np.testing.assert_allclose(found[..., 0], bars, atol=3)


@pytest.mark.parametrize(
    ("pixel_format", "bits"), [("gray10le", 10), ("gray16le", 16), ("gbrp12le", 12)]
)
def test_video_of_more_than_8_bits(tmp_path, pixel_format, bits):
    deep = np.random.default_rng(1).integers(0, 2**bits, (4, HEIGHT, WIDTH), np.uint16)
    if pixel_format == "gbrp12le":
        deep = np.repeat(deep[..., None], 3, axis=-1)
    path = write_video(tmp_path / "deep.mkv", deep, "ffv1", pixel_format)
    expected = deep[..., 0] if deep.ndim == 4 else deep
    found = frames_of(path)[..., 0]
    np.testing.assert_allclose(found, expected / (2**bits - 1) * 255, atol=1)
    if pixel_format == "gray16le":
        dark = write_video(tmp_path / "dark.mkv", deep >> 4, "ffv1", pixel_format)
        with refuses(r"dark.mkv' uses the values 0 .. 40\d\d of "):
            open_film(dark)
        found = frames_of(dark, value_range=(0.0, 4095.0))[..., 0]
        np.testing.assert_allclose(found, (deep >> 4) / 4095 * 255, atol=1)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".pgm.gz"])
def test_folder_in_natural_order(tmp_path, suffix):
    plain = suffix.removesuffix(".gz")
    folder = write_folder(tmp_path / "frames", grey_pixels(12), plain)
    (folder / "notes.txt").write_text("not a picture")
    (folder / f".hidden{plain}").write_bytes(b"not a picture")
    if plain != suffix:
        for path in folder.glob("f*" + plain):
            packed = path.with_name(path.name + ".gz")
            packed.write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    same(folder, grey_pixels(12)[..., None])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.gif", {}),
        ("a.png", {}),
        ("a.apng", {"format": "PNG"}),
        ("a.webp", {"lossless": True}),
        ("a.tif", {"compression": "tiff_lzw"}),
    ],
)
def test_files_of_several_pictures(tmp_path, name, options):
    same(write_stack(tmp_path / name, grey_pixels(9), **options),
         grey_pixels(9)[..., None])  # fmt: skip


def test_deep_and_palette_and_transparent_pictures(tmp_path):
    deep = np.random.default_rng(1).integers(0, 65536, (6, 7), dtype=np.uint16)
    size = {"height": 6, "width": 7}
    same_depth = np.rint(deep / 65535 * 255)
    folder = write_folder(tmp_path / "deep", [deep])
    np.testing.assert_array_equal(frames_of(folder, **size)[0, ..., 0], same_depth)
    one = frames_of(folder / "frame0.png", **size)[0, ..., 0]
    np.testing.assert_array_equal(one, same_depth)
    stack = write_stack(tmp_path / "deep.tif", [deep, deep[::-1]])
    np.testing.assert_array_equal(frames_of(stack, **size)[1, ..., 0], same_depth[::-1])
    (tmp_path / "pgm").mkdir()
    (tmp_path / "pgm" / "0.pgm").write_bytes(
        b"P5 7 6 4095\n" + (deep >> 4).astype(">u2").tobytes()
    )
    found = frames_of(tmp_path / "pgm", **size)[0, ..., 0]
    np.testing.assert_allclose(found, (deep >> 4) / 4095 * 255, atol=1)

    palette = Image.fromarray(grey_pixels(1, 6, 7)[0] % 4).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9])
    (tmp_path / "palette").mkdir()
    palette.save(tmp_path / "palette" / "0.png")
    found = frames_of(tmp_path / "palette", channels=3, **size)
    np.testing.assert_array_equal(found[0], np.asarray(palette.convert("RGB")))
    expected = np.asarray(palette.convert("RGB").convert("L"))
    found = frames_of(tmp_path / "palette", **size)
    np.testing.assert_array_equal(found[0, ..., 0], expected)

    clear = np.full((6, 7, 4), 200, np.uint8)
    clear[:2, :, 3], clear[2:, :, 3] = 0, 255
    found = frames_of(write_folder(tmp_path / "clear", [clear]), **size)
    assert (found[0, :2] == 0).all() and (found[0, 2:] == 200).all()
    Image.fromarray(np.full((6, 7), 7.0, np.float32)).save(tmp_path / "float.tif")
    with refuses(r"float.tif'.* values go from 7 to 7.*value_ran"):
        open_film(tmp_path / "float.tif", **size)
    Image.fromarray(np.full((6, 7), 1.0, np.float32)).save(tmp_path / "white.tif")
    assert (frames_of(tmp_path / "white.tif", **size) == 255).all()


@pytest.mark.parametrize("how", ["png", "tif"])
def test_colours_of_16_bits(tmp_path, how):
    deep = np.random.default_rng(2).integers(0, 4096, (2, 6, 7, 3), dtype=np.uint16)
    path = tmp_path / "deep"
    if how == "png":
        path.mkdir()
        encoder = av.CodecContext.create("png", "w")
        encoder.width, encoder.height, encoder.pix_fmt = 7, 6, "rgb48be"
        encoder.time_base = Fraction(1, 10)
        picture = av.VideoFrame.from_ndarray(deep[0], format="rgb48le")
        packets = [*encoder.encode(picture.reformat(format="rgb48be")),
                   *encoder.encode(None)]  # fmt: skip
        (path / "0.png").write_bytes(bytes(packets[0]))
        deep = deep[:1]
    else:
        path = tmp_path / "deep.tif"
        tifffile.imwrite(path, deep, photometric="rgb")
    size = {"height": 6, "width": 7, "channels": 3}
    with refuses(r"deep.*' uses the values 0 .. 4\d\d\d of 16"):
        open_film(path, **size)
    found = frames_of(path, value_range=(0.0, 4095.0), **size)
    np.testing.assert_allclose(found, deep / 4095 * 255, atol=1)


def test_stacks_that_are_no_series_of_times(tmp_path):
    stack = np.zeros((6, 2, 8, 9), np.uint16)
    for kind in ({"imagej": True}, {"ome": True}):
        tifffile.imwrite(tmp_path / "a.tif", stack, **kind, metadata={"axes": "TCYX"})
        with refuses(r"a.tif' .*hyperstack \(T: 6, C: 2\): save each channel"):
            open_film(tmp_path / "a.tif")


# --- upright --------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path, orientation):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8], upright[:8, 8:] = 250, 120
    turns = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1], 5: lambda a: a.T, 6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].T, 8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    values = np.ascontiguousarray(turns[orientation](upright))
    picture = Image.fromarray(values)
    for suffix in (".jpg", ".png", ".tif"):
        folder = tmp_path / suffix[1:]
        folder.mkdir()
        picture.save(folder / f"0{suffix}", exif=exif, quality=95)
    stack, deep = tmp_path / "stack.tif", tmp_path / "deep.tif"
    picture.save(stack, save_all=True, append_images=[picture], exif=exif)
    colours = np.repeat(values[..., np.newaxis], 3, -1) * np.uint16(257)
    tag = [(0x0112, "H", 1, orientation, True)]
    tifffile.imwrite(deep, colours, photometric="rgb", extratags=tag)
    for path in (*(tmp_path / name for name in ("jpg", "png", "tif")), stack, deep):
        found = frames_of(path, height=16, width=24)[-1, ..., 0]
        np.testing.assert_allclose(found.astype(int), upright, atol=6)


@pytest.mark.parametrize(
    ("dtype", "photometric", "expected"),
    [("u2", "miniswhite", 255), ("u4", "minisblack", 0), ("i1", "minisblack", 0)],
)
def test_tiff_of_unusual_values(tmp_path, dtype, photometric, expected):
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    values = np.full((2, 6, 7), low, dtype)
    values[:, 3:] = high
    tifffile.imwrite(tmp_path / "a.tif", values, photometric=photometric)
    found = frames_of(tmp_path / "a.tif", value_range=(low, high), height=6, width=7)
    assert (found[:, :3] == expected).all() and (found[:, 3:] == 255 - expected).all()


@pytest.mark.parametrize(
    "matrix",
    [(0, 1, -1, 0), (0, -1, 1, 0), (-1, 0, 0, -1), (-1, 0, 0, 1), (0, -1, -1, 0)],
)
def test_videos_are_turned_and_mirrored_as_they_are_shown(tmp_path, matrix):
    pixels = grey_pixels(3)
    path = tmp_path / "clip.mov"
    write_video(path, pixels, "png", "gray")
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    height, width = (WIDTH, HEIGHT) if matrix[0] == 0 else (HEIGHT, WIDTH)
    # A pixel of (x, y) is shown at (a x + c y, b x + d y).
    rows = range(height)[::-1] if matrix[1] + matrix[3] < 0 else range(height)
    columns = range(width)[::-1] if matrix[0] + matrix[2] < 0 else range(width)
    source = pixels if matrix[0] else pixels.swapaxes(1, 2)
    expected = source[:, list(rows)][:, :, list(columns)]
    found = frames_of(path, height=height, width=width)[..., 0]
    np.testing.assert_array_equal(found, expected)
    part = frames_of(path, height=8, width=6, crop_box=(20, 10, 8, 6))[..., 0]
    np.testing.assert_array_equal(part, expected[:, 20:28, 10:16])


# --- sizes ----------------------------------------------------------------------------


def fitted(frame, height, width, **more):
    settings = FrameSettings(height, width, frame.shape[-1], **more)
    return fit(Raw(frame), settings)[0]


def test_shrinking_takes_means_and_growing_interpolates():
    frame = grey_pixels(1, 12, 8)[0][..., None]
    means = frame.reshape(4, 3, 4, 2).mean((1, 3))
    np.testing.assert_allclose(fitted(frame, 4, 4)[..., 0], means, atol=1)
    ramp = np.array([[0, 100]], np.uint8)[..., None]
    np.testing.assert_array_equal(fitted(ramp, 1, 4)[0, :, 0], [0, 25, 75, 100])
    colour = colour_pixels(1)[0]
    assert fitted(colour, 64, 24).shape == (64, 24, 3)
    np.testing.assert_array_equal(
        fitted(colour, 16, 16)[..., 1], fitted(colour[..., 1:2], 16, 16)[..., 0]
    )


# --- bad files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "codec", "pixel_format", "total_known"),
    [
        (".mp4", "h264", "yuv420p", True),
        (".avi", "ffv1", "gray", True),
        (".mkv", "h264", "yuv420p", False),
        (".webm", "libvpx", "yuv420p", False),
    ],
)
@pytest.mark.parametrize("share", [0.35, 0.93])
def test_cut_video(tmp_path, suffix, codec, pixel_format, total_known, share):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    write_video(whole, grey_pixels(), codec, pixel_format, g="5")
    content = whole.read_bytes()
    assert announced_size(whole) == len(content)
    cut.write_bytes(content[: int(share * len(content))])
    with refuses(r"cut\.\w+' cannot be read.*file is cut short.*"
                       r"bad_files=skip"):  # fmt: skip
        open_film(cut)
    film = open_film(cut, bad_files="skip")
    assert 0.5 * share * 30 < film.num_frames < min(30, share * 30 + 3)
    total = 30 if total_known else film.num_frames
    told = f"{film.num_frames} of {total} frames can be read (the file is cut short"
    assert film.problem.startswith(told)
    found = film.read(0, film.num_frames)
    # The last frame may be damaged, but not those before.
    np.testing.assert_array_equal(found[:-1], frames_of(whole)[: len(found) - 1])
    cut.write_bytes(content[: len(content) // 100])
    with refuses(r"cut\.\w+' cannot be read as a video"):
        open_film(cut)


def test_container_size_of_unusual_files(tmp_path):
    path = tmp_path / "file"
    ftyp = struct.pack(">I", 16) + b"ftypisom\0\0\0\0"
    for content, size in (
        (b"no container at all", None),
        (b"RIFF" + struct.pack("<I", 0) + b"AVI LIST", None),
        # The last box reaches to the end.
        (ftyp + struct.pack(">I", 0) + b"mdat" + bytes(9), None),
        (ftyp + struct.pack(">I4sQ", 1, b"mdat", 1000), 1016),  # A size of 64 bits.
        (ftyp + b"\0\0", 24),
        # A live recording.
        (bytes.fromhex("1A45DFA3 80 18538067 01FFFFFFFFFFFFFF"), None),
        (bytes.fromhex("1A45DFA3 80 18538067 85 0102030405"), 15),
    ):
        path.write_bytes(content)
        assert announced_size(path) == size


def damage_frame(path, first_bytes, number):
    """Wipes out the beginning of a frame's data."""
    content = bytearray(path.read_bytes())
    start = -1
    for _ in range(number + 1):
        start = content.index(first_bytes, start + 1)
    content[start : start + 60] = bytes(60)
    path.write_bytes(content)


@pytest.mark.parametrize("number", [13, 29])
def test_video_with_a_damaged_frame(tmp_path, number):
    # Frames that are PNG pictures can be told apart in the file.
    path = write_video(tmp_path / "clip.mov", grey_pixels(), "png", "gray")
    damage_frame(path, b"\x89PNG", number)
    words = rf"clip.mov' cannot be read whole: .*frame {number}: it cannot be decoded"
    with refuses(words + ".*bad_files=skip"):
        open_film(path)
    film = open_film(path, bad_files="skip")
    assert film.num_frames == (29 if number == 29 else 30)
    assert film.holes == ({number} if number < 29 else set())
    assert film.problem.startswith("29 of 30 frames can be read (frame ")
    keep = [n for n in range(film.num_frames) if n != number]
    found = np.concatenate([film.read(n, 1) for n in keep])
    np.testing.assert_array_equal(found[..., 0], grey_pixels()[keep])
    if number == 13:
        assert film.can_read(0, 13) and not film.can_read(0, 14)


def test_video_of_changing_size(tmp_path):
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuvj420p"
        for index, size in enumerate((32, 32, 48)):
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
    with refuses(r"clip.avi'.*frame size changes"):
        open_film(path)
    film = open_film(path, bad_files="skip")
    assert film.num_frames == 2
    assert "2 of 3 frames can be read (" in film.problem


def test_cut_gif(tmp_path):
    pixels = grey_pixels(6)
    content = write_stack(tmp_path / "whole.gif", pixels).read_bytes()
    assert is_whole_gif(content) and is_whole_gif(content + b"trailing junk")
    assert not is_whole_gif(b"GIF89a" + bytes(40))
    path = tmp_path / "cut.gif"
    for length in (0, 12, *range(900, len(content) - 1, 2977), len(content) - 1):
        path.write_bytes(content[:length])
        with refuses(r"cut.gif' cannot be read"):
            open_film(path)
        film = open_film(path, bad_files="skip")
        count = film.num_frames
        assert int(6 * length / len(content)) - 1 <= count <= 6 and film.problem
        if count:
            assert "frames can be read (" in film.problem
            np.testing.assert_array_equal(film.read(0, count)[..., 0], pixels[:count])


def test_folder_with_bad_pictures(tmp_path):
    pixels = grey_pixels(6)
    folder = write_folder(tmp_path / "frames", pixels)
    Image.fromarray(pixels[2, :5, :4]).save(folder / "frame2.png")
    with refuses(r"frame2.png' .* is 4x5 pixels, but those before are 48x32"):
        open_film(folder)
    content = (folder / "frame5.png").read_bytes()
    (folder / "frame5.png").write_bytes(content[: len(content) // 2])
    film = open_film(folder, bad_files="skip")
    assert film.num_frames == 5 and film.holes == {2}
    assert film.problem.startswith("4 of 6 frames can be read (frame 2: '")
    np.testing.assert_array_equal(film.read(3, 2)[..., 0], pixels[3:5])
    for name in ("frame2.png", "frame0.png"):
        (folder / name).write_bytes(b"")
        with refuses(rf"{name}' cannot be read as a picture"):
            open_film(folder)
    write_stack(folder / "frame2.png", pixels[:3])
    with refuses(r"frame2.png' .*it holds 3 frames and must lie in another"):
        (folder / "frame0.png").unlink()
        open_film(folder)


def test_what_cannot_be_read_at_all(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 50)
    (tmp_path / "list.mp4").write_bytes(b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n")
    (tmp_path / "junk.gif").write_bytes(b"junk")
    (tmp_path / "script.tif").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox:")
    write_folder(tmp_path / "bad", [])
    for number in range(2):
        (tmp_path / "bad" / f"frame{number}.png").write_bytes(b"junk")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.gif").symlink_to("/dev/zero")
    for name, words in (
        ("empty", "holds no picture"),
        ("junk.mp4", "cannot be read as a video"),
        ("list.mp4", "cannot be read as a video"),
        ("junk.gif", "cannot be read as a GIF"),
        ("script.tif", "cannot be read as a TIF"),
        ("bad", "frame0.png' cannot be read as a picture"),
        ("pipe.mp4", "must be a regular file"),
        ("zero.gif", "must be a regular file"),
    ):
        with refuses(words):
            open_film(tmp_path / name)
        film = open_film(tmp_path / name, bad_files="skip")
        assert film.num_frames == 0 and words in film.problem


def test_a_picture_that_is_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_FRAME_BYTES", 99_999)
    (tmp_path / "a").mkdir()
    bomb = b"P5 20000 20000 255\n" + bytes(10**6)
    (tmp_path / "a" / "0.pgm.gz").write_bytes(gzip.compress(bomb, 1))
    with refuses(r"0\.pgm\.gz' has more than 99,999 bytes, the most allowed"):
        open_film(tmp_path / "a")


def test_names_that_are_no_text_or_protocols(tmp_path, monkeypatch):
    for name in (os.fsdecode(b"caf\xe9.avi"), "take:2.avi", "concat:a|b.avi"):
        path = write_video(tmp_path / "film.avi", grey_pixels(3), "ffv1", "gray")
        path = path.rename(tmp_path / name)
        np.testing.assert_array_equal(frames_of(path)[..., 0], grey_pixels(3))
        monkeypatch.chdir(tmp_path)
        found = frames_of(type(path)(name))[..., 0]
        np.testing.assert_array_equal(found, grey_pixels(3))


def test_paths_and_channels(tmp_path):
    with refuses(r"no film at '.*nothing.mp4'"):
        open_film(tmp_path / "nothing.mp4")
    (tmp_path / "clip.xyz").write_text("")
    with refuses(r"clip.xyz' is of the kind '.xyz'"):
        open_film(tmp_path / "clip.xyz")
    path = write_stack(tmp_path / "clip.gif", grey_pixels(3))
    for bad_files in ("refuse", "skip"):
        with refuses(r"channels is 2: .*clip.gif"):
            open_film(path, bad_files, channels=2)
    with refuses(r"clip.gif' has frames of 32x48 .*exceeds"):
        open_film(path, crop_box=(20, 0, 13, 10))


# --- the last frames ------------------------------------------------------------------


def test_the_last_frames_are_those_that_training_reads(tmp_path):
    path = write_video(tmp_path / "clip.avi", colour_pixels(), "ffv1", "bgr0")
    settings = FrameSettings(8, 12, 1, crop_box=(2, 3, 16, 24))
    whole = frames_of(path, height=8, width=12, crop_box=(2, 3, 16, 24))
    for stride, expected in ((1, whole[5:]), (3, whole[1::3])):
        frames, mask, _ = read_last(path, settings, 3, stride)
        np.testing.assert_array_equal(frames, expected)
        assert mask is None
    words = r"clip.avi' ends with 8 frames .* at least 9 are needed with frame_stride 4"
    with refuses(words):
        read_last(path, settings, 3, 4)
    with refuses(r"frames of 32×48 pixels .*: they must be 8×12"):
        read_last(path, settings, 3, resize=False)
    film = write_folder(tmp_path / "frames", grey_pixels(9))
    (film / "frame4.png").write_bytes(b"junk")
    with refuses(r"frames' cannot be read whole: 8 of 9 .*\(frame 4"):
        read_last(film, settings, 3)
    assert len(read_last(film, settings, 4, 1, "skip")[0]) == 4
    with refuses(r"frames' ends with 4 frames that can be read"):
        read_last(film, settings, 5, 1, "skip")
