"""Random access to video frames: the same pixels as reading whole, bad files told."""

import gzip
import pickle
import struct
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from convlstm_jax.data import video_frames
from convlstm_jax.data.clip_files import read_clip
from convlstm_jax.data.container_frames import ContainerReader
from convlstm_jax.data.frame_cache import FrameCache
from convlstm_jax.data.video_frames import fit_frame, open_video
from convlstm_jax.errors import UserError

RNG_SEED = 11
HEIGHT, WIDTH = 32, 48
SIZE = {"height": HEIGHT, "width": WIDTH}


@pytest.fixture(autouse=True)
def fresh_cache(monkeypatch):
    """A small cache of the test's own, so that decoding happens and room runs out."""
    cache = FrameCache(max_bytes=9 * (HEIGHT * WIDTH + 256))
    monkeypatch.setattr(video_frames, "_cache", cache)
    return cache


def grey_pixels(num_frames=30, height=HEIGHT, width=WIDTH):
    rng = np.random.default_rng(RNG_SEED)
    return rng.integers(0, 256, (num_frames, height, width), dtype=np.uint8)


def colour_pixels(num_frames=8):
    rng = np.random.default_rng(RNG_SEED)
    return rng.integers(0, 256, (num_frames, HEIGHT, WIDTH, 3), dtype=np.uint8)


def write_video(path, pixels, codec, pixel_format, **options):
    flags = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=flags) as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = pixel_format
        for frame in pixels:
            kind = "gray" if frame.ndim == 2 else "rgb24"
            picture = av.VideoFrame.from_ndarray(frame, format=kind)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def write_folder(folder, pixels, suffix=".png"):
    folder.mkdir(exist_ok=True)
    for number, frame in enumerate(pixels):
        Image.fromarray(frame).save(folder / f"frame{number}{suffix}")
    return folder


def write_gif(path, pixels):
    images = [Image.fromarray(frame) for frame in pixels]
    images[0].save(path, save_all=True, append_images=images[1:], duration=100)


def whole(path, channels=1):
    """All frames as the reader of whole clips gives them, as bytes."""
    return np.rint(read_clip(path, channels=channels) * 255).astype(np.uint8)


def assert_any_order_agrees(video, expected):
    assert video.num_frames == len(expected)
    assert video.problem == "" and not video.holes
    np.testing.assert_array_equal(video.read(0, len(expected)), expected)
    order = np.random.default_rng(RNG_SEED).permutation(len(expected))
    for start in order:
        count = min(3, len(expected) - start)
        clip = video.read(int(start), count)
        np.testing.assert_array_equal(clip, expected[start : start + count])
    np.testing.assert_array_equal(video.read(1, 3, stride=2), expected[1:7:2])
    assert clip.dtype == np.uint8


# --- the same pixels in any order -----------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "codec", "pixel_format", "options"),
    [
        (".mp4", "h264", "yuv420p", {"g": "7", "bf": "3"}),
        (".mp4", "h264", "yuv420p", {"g": "7", "bf": "3", "x264-params": "open-gop=1"}),
        (".mov", "h264", "yuv420p", {"g": "250"}),
        (".mkv", "h264", "yuv420p", {"g": "5"}),
        (".avi", "h264", "yuv420p", {"g": "8", "bf": "2"}),
        (".avi", "mpeg4", "yuv420p", {"g": "6", "bf": "2"}),
        (".avi", "ffv1", "gray", {}),
        (".webm", "libvpx", "yuv420p", {"g": "6"}),
    ],
)
def test_video_files_in_any_order(tmp_path, suffix, codec, pixel_format, options):
    path = tmp_path / f"clip{suffix}"
    write_video(path, grey_pixels(), codec, pixel_format, **options)
    video = open_video(path, channels=1, **SIZE)
    assert_any_order_agrees(video, whole(path))
    copy = pickle.loads(pickle.dumps(video))
    np.testing.assert_array_equal(copy.read(20, 5), whole(path)[20:25])
    checked = open_video(path, channels=1, bad_frames="skip", **SIZE)
    assert_any_order_agrees(checked, whole(path))


def test_video_without_times_is_counted(tmp_path, monkeypatch):
    path = tmp_path / "clip.mkv"
    write_video(path, grey_pixels(12), "h264", "yuv420p", g="4")
    reader = open_video(path, channels=1, **SIZE)._reader
    empty = replace(reader, times=np.empty(0, np.int64), keys=np.zeros(1, np.int64))
    numbers = {number: load() for number, load in empty.frames([5, 7])}
    assert max(numbers) == 7
    np.testing.assert_array_equal(numbers[5], whole(path)[5])

    class Unsure:
        """A packet that does not tell when it is shown."""

        pts, is_discard, is_corrupt, is_keyframe = None, False, False, True

    packets = ContainerReader._index.__globals__["_packets"]

    def unsure(container, stream):
        # The first walk, that of the index, sees packets without times.
        monkeypatch.undo()
        yield from (packet and Unsure() for packet in packets(container, stream))

    monkeypatch.setitem(ContainerReader._index.__globals__, "_packets", unsure)
    video = open_video(path, channels=1, **SIZE)
    assert not video._reader.times.size
    assert_any_order_agrees(video, whole(path))


def test_colour_video_and_its_luma(tmp_path):
    path = tmp_path / "clip.avi"
    write_video(path, colour_pixels(), "ffv1", "bgr0")
    video = open_video(path, channels=3, **SIZE)
    np.testing.assert_array_equal(video.read(2, 4), colour_pixels()[2:6])
    assert_any_order_agrees(open_video(path, channels=1, **SIZE), whole(path))


def test_gif_in_any_order(tmp_path):
    write_gif(tmp_path / "clip.gif", grey_pixels(9))
    video = open_video(tmp_path / "clip.gif", channels=1, **SIZE)
    assert_any_order_agrees(video, grey_pixels(9)[..., np.newaxis])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".pgm", ".tif", ".pgm.gz"])
def test_folder_in_natural_and_any_order(tmp_path, suffix):
    plain = suffix.removesuffix(".gz")
    folder = write_folder(tmp_path / "frames", grey_pixels(12), plain)
    (folder / "notes.txt").write_text("not a picture")
    if plain != suffix:
        for path in folder.glob("*" + plain):
            packed = path.with_name(path.name + ".gz")
            packed.write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    video = open_video(folder, channels=1, **SIZE)
    assert_any_order_agrees(video, grey_pixels(12)[..., np.newaxis])
    np.testing.assert_array_equal(whole(folder), grey_pixels(12)[..., np.newaxis])


def test_sixteen_bit_pictures_become_bytes(tmp_path):
    deep = np.random.default_rng(RNG_SEED).integers(0, 65536, (8, 9), dtype=np.uint16)
    (tmp_path / "deep").mkdir()
    Image.fromarray(deep).save(tmp_path / "deep" / "0.png")
    video = open_video(tmp_path / "deep", height=8, width=9, channels=1)
    np.testing.assert_array_equal(
        video.read(0, 1)[0, ..., 0], np.rint(deep / 65535 * 255)
    )


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_bytes_and_floats(tmp_path, order):
    path = tmp_path / "clip.npy"
    pixels = grey_pixels(9)
    np.save(path, np.asarray(pixels, order=order))
    video = open_video(path, channels=1, **SIZE)
    assert_any_order_agrees(video, pixels[..., np.newaxis])
    np.save(path, np.asarray(pixels / np.float32(255), order=order))
    video = open_video(path, channels=1, **SIZE)
    assert_any_order_agrees(video, pixels[..., np.newaxis])
    np.testing.assert_array_equal(
        open_video(path, channels=3, **SIZE).read(0, 2),
        np.repeat(pixels[:2, ..., np.newaxis], 3, axis=-1),
    )


def test_array_channels(tmp_path):
    path = tmp_path / "clip.npy"
    np.save(path, colour_pixels())
    expected = np.rint(colour_pixels() @ np.array([0.299, 0.587, 0.114]))
    grey = open_video(path, channels=1, **SIZE).read(0, 8)[..., 0]
    np.testing.assert_allclose(grey, expected, atol=1)
    five = np.random.default_rng(RNG_SEED).integers(0, 256, (3, 32, 48, 5), np.uint8)
    np.save(path, five)
    np.testing.assert_array_equal(open_video(path, channels=5, **SIZE).read(0, 3), five)
    half = open_video(path, height=16, width=24, channels=5).read(0, 3)
    means = five.reshape(3, 16, 2, 24, 2, 5).mean((2, 4))
    np.testing.assert_allclose(half, means, atol=1)
    with pytest.raises(UserError, match=r"clip.npy' .*has 5 channels, not 1 or 3"):
        open_video(path, channels=1, **SIZE)


# --- sizes ----------------------------------------------------------------------------


def test_shrinking_takes_means_and_growing_interpolates():
    frame = grey_pixels(1, 12, 8)[0][..., np.newaxis]
    means = frame.reshape(4, 3, 4, 2).mean((1, 3))
    np.testing.assert_allclose(fit_frame(frame, 4, 4)[..., 0], means, atol=1)
    ramp = np.array([[0, 100]], np.uint8)[..., np.newaxis]
    np.testing.assert_array_equal(fit_frame(ramp, 1, 4)[0, :, 0], [0, 25, 75, 100])
    colour = colour_pixels(1)[0]
    assert fit_frame(colour, 64, 24).shape == (64, 24, 3)
    assert fit_frame(colour, HEIGHT, WIDTH) is colour
    np.testing.assert_array_equal(
        fit_frame(colour, 16, 16)[..., 1], fit_frame(colour[..., 1:2], 16, 16)[..., 0]
    )


def test_every_kind_is_resized_alike(tmp_path):
    pixels = grey_pixels(4)
    write_folder(tmp_path / "frames", pixels)
    write_gif(tmp_path / "a.gif", pixels)
    np.save(tmp_path / "a.npy", pixels)
    write_video(tmp_path / "a.avi", pixels, "ffv1", "gray")
    expected = np.stack([fit_frame(f[..., np.newaxis], 8, 12) for f in pixels])
    for name in ("frames", "a.gif", "a.npy", "a.avi"):
        video = open_video(tmp_path / name, height=8, width=12, channels=1)
        np.testing.assert_array_equal(video.read(0, 4), expected)


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
@pytest.mark.parametrize("share", [0.35, 0.6, 0.93])
def test_cut_video(tmp_path, suffix, codec, pixel_format, total_known, share):
    path, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    write_video(path, grey_pixels(), codec, pixel_format, g="5")
    content = path.read_bytes()
    cut.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"cut\.\w+' cannot be read.*file is cut short"):
        open_video(cut, channels=1, **SIZE)
    video = open_video(cut, channels=1, bad_frames="skip", **SIZE)
    assert 0.5 * share * 30 < video.num_frames < min(30, share * 30 + 3)
    total = " of 30" if total_known else ""
    assert video.problem == (
        f"the file ends early: {video.num_frames}{total} frames can be read"
    )
    np.testing.assert_array_equal(
        video.read(0, video.num_frames), whole(path)[: video.num_frames]
    )
    with pytest.raises(UserError, match=rf"cut\.\w+', of which {video.num_frames} "):
        video.read(0, video.num_frames + 1)


def damage_frame(path, first_bytes, number):
    """Wipes out the beginning of a frame's data."""
    content = bytearray(path.read_bytes())
    start = -1
    for _ in range(number + 1):
        start = content.index(first_bytes, start + 1)
    content[start : start + 60] = bytes(60)
    path.write_bytes(content)


def write_png_film(path, num_frames):
    """A film whose frames, PNG pictures, can be told apart in the file."""
    write_video(path, grey_pixels(num_frames), "png", "gray")


def test_video_damaged_in_its_midst(tmp_path):
    path = tmp_path / "clip.mov"
    write_png_film(path, 30)
    expected = whole(path)
    damage_frame(path, b"\x89PNG", 13)
    video = open_video(path, channels=1, **SIZE)
    np.testing.assert_array_equal(video.read(0, 13), expected[:13])
    with pytest.raises(UserError, match=r"clip.mov'.*frame 13 of 30 cannot be decoded"):
        video.read(12, 3)
    video = open_video(path, channels=1, bad_frames="skip", **SIZE)
    assert video.num_frames == 30 and video.holes == {13}
    assert video.problem == "29 of 30 frames can be read"
    assert video.can_read(0, 13) and not video.can_read(0, 14)
    np.testing.assert_array_equal(video.read(12, 2, stride=2), expected[[12, 14]])
    with pytest.raises(UserError, match=r"30 frames can be read but for 1 in between"):
        video.read(13, 1)


def test_last_frame_damaged_is_found_at_once(tmp_path):
    path = tmp_path / "clip.mov"
    write_png_film(path, 6)
    damage_frame(path, b"\x89PNG", 5)
    with pytest.raises(UserError, match=r"clip.mov'.*frame 5 of 6 cannot be decoded"):
        open_video(path, channels=1, **SIZE)


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
    with pytest.raises(UserError, match=r"clip.avi'.*frame size changes"):
        open_video(path, channels=1, **SIZE).read(0, 3)
    video = open_video(path, channels=1, bad_frames="skip", **SIZE)
    assert video.num_frames == 2
    assert "2 of 3 frames can be read (" in video.problem
    assert "size changes" in video.problem


def test_video_without_frames_or_without_video(tmp_path):
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
        open_video(path, channels=1, **SIZE)
    path = tmp_path / "none.mp4"
    write_video(path, grey_pixels(1), "h264", "yuv420p")
    # The index promises a frame, but the box of the data, the last one, is empty.
    content = path.read_bytes()
    start = content.index(b"mdat") - 4
    path.write_bytes(content[:start] + struct.pack(">I", 8) + b"mdat")
    with pytest.raises(UserError, match=r"none.mp4' holds no frame"):
        open_video(path, channels=1, **SIZE)


def test_cut_gif(tmp_path):
    pixels = grey_pixels(6)
    write_gif(tmp_path / "whole.gif", pixels)
    content = (tmp_path / "whole.gif").read_bytes()
    path = tmp_path / "cut.gif"
    for length in (*range(900, len(content) - 1, 977), len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"cut.gif' cannot be read.*cut short"):
            open_video(path, channels=1, **SIZE)
        video = open_video(path, channels=1, bad_frames="skip", **SIZE)
        count = video.num_frames
        assert int(6 * length / len(content)) - 1 <= count <= 6
        if count:
            assert "the file ends early: " in video.problem
            assert f"{count} " in video.problem
            np.testing.assert_array_equal(video.read(0, count)[..., 0], pixels[:count])


def test_cut_array(tmp_path):
    path = tmp_path / "clip.npy"
    np.save(path, grey_pixels(6))
    path.write_bytes(path.read_bytes()[: -2 * HEIGHT * WIDTH - 1])
    with pytest.raises(UserError, match=r"clip.npy' cannot be read.*cut short: \d+ of"):
        open_video(path, channels=1, **SIZE)
    video = open_video(path, channels=1, bad_frames="skip", **SIZE)
    assert video.problem == "the file ends early: 3 of 6 frames can be read"
    np.testing.assert_array_equal(video.read(0, 3)[..., 0], grey_pixels(3))


def test_array_values_types_and_shapes(tmp_path):
    path = tmp_path / "clip.npy"
    pixels = grey_pixels(5) / np.float32(255)
    pixels[3, 0, 0] = np.nan
    np.save(path, pixels)
    with pytest.raises(UserError, match=r"clip.npy' has 1 of 1536 val.* frame 3 .*NaN"):
        open_video(path, channels=1, **SIZE).read(2, 3)
    video = open_video(path, channels=1, bad_frames="skip", **SIZE)
    assert video.holes == {3}
    assert video.problem.startswith("4 of 5 frames can be read (")
    np.save(path, np.zeros((2, 3, 4), np.int32))
    with pytest.raises(UserError, match=r"clip.npy'.*type int32, not uint8 or floats"):
        open_video(path, channels=1, **SIZE)
    np.save(path, np.zeros((2, 3), np.uint8))
    with pytest.raises(UserError, match=r"clip.npy'.*shape \(2, 3\), not \[T, H, W\]"):
        open_video(path, channels=1, **SIZE)
    path.write_bytes(b"no array")
    with pytest.raises(UserError, match=r"clip.npy' cannot be read as a .npy video"):
        open_video(path, channels=1, **SIZE)


def test_folder_with_bad_pictures(tmp_path):
    pixels = grey_pixels(6)
    folder = write_folder(tmp_path / "frames", pixels)
    Image.fromarray(pixels[2, :5, :4]).save(folder / "frame2.png")
    with pytest.raises(UserError, match=r"frame2.png' is 4x5 pixels.*are 48x32"):
        open_video(folder, channels=1, **SIZE)
    content = (folder / "frame5.png").read_bytes()
    (folder / "frame5.png").write_bytes(content[: len(content) // 2])
    video = open_video(folder, channels=1, bad_frames="skip", **SIZE)
    assert video.num_frames == 5 and video.holes == {2}
    assert video.problem.startswith("4 of 6 frames can be read ('")
    assert "frame2.png' is 4x5" in video.problem
    np.testing.assert_array_equal(video.read(3, 2)[..., 0], pixels[3:5])
    (folder / "frame2.png").unlink()
    with pytest.raises(UserError, match=r"frame5.png' cannot be read as a picture"):
        open_video(folder, channels=1, **SIZE).read(0, 5)
    (folder / "frame0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"frame0.png' cannot be read as a picture"):
        open_video(folder, channels=1, **SIZE)


def test_what_cannot_be_read_at_all(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 50)
    (tmp_path / "junk.gif").write_bytes(b"junk")
    write_folder(tmp_path / "bad", grey_pixels(2))
    for number in range(2):
        (tmp_path / "bad" / f"frame{number}.png").write_bytes(b"junk")
    for name, words in (
        ("empty", "holds no picture"),
        ("junk.mp4", "cannot be read as a video"),
        ("junk.gif", "cannot be read as a GIF"),
        ("bad", "frame0.png' cannot be read as a picture"),
    ):
        with pytest.raises(UserError, match=words):
            open_video(tmp_path / name, channels=1, **SIZE)
        video = open_video(tmp_path / name, channels=1, bad_frames="skip", **SIZE)
        assert video.num_frames == 0 and words in video.problem
        with pytest.raises(UserError, match="of which 0 frames can be read"):
            video.read(0, 1)


@pytest.mark.parametrize("name", ["clip.npy", "clip.avi", "clip.gif"])
def test_file_that_may_not_be_opened(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"something")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(UserError, match=rf"{name}' cannot be.*\(Permission denied\)"):
        open_video(tmp_path / name, channels=1, **SIZE)
    video = open_video(tmp_path / name, channels=1, bad_frames="skip", **SIZE)
    assert "Permission denied" in video.problem


def test_videos_that_vanish_while_in_use(tmp_path):
    write_video(tmp_path / "a.avi", grey_pixels(3), "ffv1", "gray")
    write_gif(tmp_path / "a.gif", grey_pixels(3))
    np.save(tmp_path / "a.npy", grey_pixels(3))
    write_folder(tmp_path / "a", grey_pixels(3))
    for name in ("a.avi", "a.gif", "a.npy", "a"):
        path = tmp_path / name
        video = open_video(path, channels=1, **SIZE)
        path.rename(tmp_path / "elsewhere")
        with pytest.raises(UserError, match=rf"{name}.* cannot be read"):
            video.read(0, 2)
        (tmp_path / "elsewhere").rename(path)


def test_paths_and_arguments(tmp_path):
    with pytest.raises(UserError, match=r"no video at '.*nothing.mp4'"):
        open_video(tmp_path / "nothing.mp4", channels=1, **SIZE)
    (tmp_path / "clip.xyz").write_text("")
    with pytest.raises(UserError, match=r"clip.xyz' is of the kind '.xyz'"):
        open_video(tmp_path / "clip.xyz", channels=1, **SIZE)
    write_gif(tmp_path / "clip.gif", grey_pixels(3))
    with pytest.raises(UserError, match=r"channels is 2.*clip.gif"):
        open_video(tmp_path / "clip.gif", channels=2, **SIZE)
    with pytest.raises(UserError, match="height is 0"):
        open_video(tmp_path / "clip.gif", channels=1, height=0, width=1)
    with pytest.raises(UserError, match="bad_frames is 'drop'"):
        open_video(tmp_path / "clip.gif", channels=1, bad_frames="drop", **SIZE)
    video = open_video(tmp_path / "clip.gif", channels=1, **SIZE)
    for start, count, stride in (
        (-1, 1, 1),
        (0, 4, 1),
        (0, 2, 3),
        (0, 0, 1),
        (0, 1, 0),
    ):
        with pytest.raises(
            UserError, match=r"asked of '.*clip.gif', of which 3 frames"
        ):
            video.read(start, count, stride)


# --- the cache ------------------------------------------------------------------------


def test_cached_frames_are_not_decoded_again(tmp_path, fresh_cache):
    path = tmp_path / "clip.mkv"
    write_video(path, grey_pixels(8), "h264", "yuv420p", g="8")
    video = open_video(path, channels=1, **SIZE)
    expected = whole(path)
    np.testing.assert_array_equal(video.read(6, 2), expected[6:])
    path.unlink()
    # Frames 0 to 5 were passed on the way and kept, as there was room.
    np.testing.assert_array_equal(video.read(0, 8), expected)
    clip = video.read(0, 2)
    clip[:] = 0  # the caller's own
    np.testing.assert_array_equal(video.read(0, 2), expected[:2])


def test_large_videos_stay_within_the_budget(tmp_path, fresh_cache):
    path = tmp_path / "clip.npy"
    np.save(path, grey_pixels(30))
    video = open_video(path, channels=1, **SIZE)
    video.read(0, 30)
    assert fresh_cache.num_bytes <= 9 * (HEIGHT * WIDTH + 256)
    assert fresh_cache.get(video._token, 29) is not None
    assert fresh_cache.get(video._token, 20) is None


def test_cache_drops_what_was_used_least_lately():
    cache = FrameCache(max_bytes=2 * (10 + 256))
    frames = [np.full(10, value, np.uint8) for value in range(3)]
    assert cache.has_room("a", 0, 10)
    cache.put("a", 0, frames[0])
    assert cache.has_room("a", 1, 10) and not cache.has_room("a", 1, 11)
    assert not cache.has_room("a", 0, 10)  # It is here already.
    cache.put("a", 1, frames[1])
    assert not cache.has_room("b", 0, 10)
    assert cache.get("a", 0) is frames[0]
    cache.put("b", 0, frames[2])
    assert cache.get("a", 1) is None
    assert cache.get("a", 0) is frames[0] and cache.get("b", 0) is frames[2]
    cache.put("b", 0, frames[1])
    assert cache.get("b", 0) is frames[1] and cache.num_bytes == 2 * (10 + 256)
    cache.put("c", 0, np.zeros(1000, np.uint8))
    assert cache.num_bytes == 0 and cache.get("c", 0) is None
