"""Films of a telephone held upright are read as players show them."""

import subprocess

import av
import numpy as np
import pytest

from convlstm_jax.data.clip_files import read_clip
from convlstm_jax.data.video_frames import open_video

imageio_ffmpeg = pytest.importorskip(
    "imageio_ffmpeg", reason="needs FFmpeg's program: pip install imageio-ffmpeg"
)
HEIGHT, WIDTH, FRAMES = 32, 48, 12


@pytest.fixture(params=[90, -90, 180])
def turned(request, tmp_path):
    """A video with a rotation in its header, and its frames as FFmpeg shows them."""
    pixels = np.random.default_rng(3).integers(
        0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8
    )
    straight, path = tmp_path / "straight.mp4", tmp_path / "turned.mp4"
    with av.open(str(straight), "w") as container:
        stream = container.add_stream("libx264rgb", rate=10, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "rgb24"
        for frame in pixels:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error"]
    turn = ["-display_rotation", str(request.param), "-i", straight, "-c", "copy"]
    subprocess.run([*program, *turn, path], check=True)
    shown = ["-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run([*program, *shown], check=True, capture_output=True).stdout
    size = (HEIGHT, WIDTH) if request.param == 180 else (WIDTH, HEIGHT)
    return path, np.frombuffer(raw, np.uint8).reshape(FRAMES, *size, 3), pixels


def test_a_turned_video_is_read_as_it_is_shown(turned):
    path, shown, pixels = turned
    clip = np.rint(read_clip(path, channels=3) * 255).astype(np.uint8)
    np.testing.assert_array_equal(clip, shown)
    height, width = shown.shape[1:3]
    video = open_video(path, height=height, width=width, channels=3)
    assert video.num_frames == FRAMES
    np.testing.assert_array_equal(video.read(5, 4), shown[5:9])
    assert not np.array_equal(shown[0], pixels[0])


def test_a_box_is_of_the_frame_that_is_shown(turned):
    path, shown, _ = turned
    video = open_video(path, height=8, width=6, channels=3, crop_box=(20, 10, 8, 6))
    np.testing.assert_array_equal(video.read(0, 2), shown[:2, 20:28, 10:16])
