"""Writing clips: round trips, whole or not at all, clear refusals."""

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.viz.clip_writer import validate_output_path, write_clip
from tests.read_clip import read_clip


def ring(num_frames=6, height=48, width=64, channels=1):
    """A soft ring that moves to the right, [T, H, W, C]."""
    y, x = np.mgrid[:height, :width]
    clip = np.stack(
        [
            np.clip(3 - np.abs(np.hypot(y - 24, x - 16 - 5 * t) - 9), 0, 1)
            for t in range(num_frames)
        ]
    )
    colours = np.array([[1.0], [0.9, 0.5, 0.2]][channels == 3])
    return (clip[..., None] * colours).astype(np.float32)


def test_npy_is_exact_and_not_clipped(tmp_path):
    clip = np.random.default_rng(0).normal(size=(3, 4, 5, 1)).astype(np.float32)
    write_clip(tmp_path / "clip.npy", clip)
    np.testing.assert_array_equal(np.load(tmp_path / "clip.npy"), clip)
    assert np.load(tmp_path / "clip.npy").dtype == np.float32


@pytest.mark.parametrize("channels", [1, 3])
def test_gif_round_trip_is_exact_to_eight_bits(tmp_path, channels):
    clip = ring(channels=channels)
    clip[2] = clip[1]  # a frame like the one before is a frame, too
    write_clip(tmp_path / "clip.gif", clip)
    back = read_clip(tmp_path / "clip.gif")
    assert back.shape == clip.shape
    np.testing.assert_allclose(back, clip, atol=0.5 / 255 + 1e-6)
    write_clip(tmp_path / "again.gif", back)
    np.testing.assert_array_equal(read_clip(tmp_path / "again.gif"), back)


@pytest.mark.parametrize(("channels", "tolerance"), [(1, 1 / 255), (3, 3 / 255)])
def test_mp4_comes_close(tmp_path, channels, tolerance):
    clip = ring(channels=channels)
    write_clip(tmp_path / "clip.mp4", clip, frames_per_second=12.5)
    back = read_clip(tmp_path / "clip.mp4")
    assert back.shape == clip.shape
    assert np.abs(back - clip).mean() < tolerance


def test_mp4_pads_odd_sizes_with_their_edge(tmp_path):
    clip = np.zeros((3, 15, 17), np.float32)
    clip[:, :, -1] = 1
    write_clip(tmp_path / "odd.mp4", clip)
    back = read_clip(tmp_path / "odd.mp4")
    assert back.shape == (3, 16, 18, 1)
    assert back[:, :, -2:].min() > 0.9
    assert back[:, :, :-3].max() < 0.1
    write_clip(tmp_path / "tiny.mp4", clip[:, :1, :1])
    assert read_clip(tmp_path / "tiny.mp4").shape == (3, 2, 2, 1)


def test_png_is_a_strip_of_all_frames(tmp_path):
    clip = np.linspace(0, 1, 12)[:, None, None] * np.ones((12, 16, 16))
    write_clip(tmp_path / "strip.png", clip)
    with Image.open(tmp_path / "strip.png") as picture:
        # 16 pixels times 7; ten columns and two rows; gaps 6, margins 16, labels 22.
        assert picture.size == (10 * 118 - 6 + 32, 2 * (118 + 22) - 6 + 32)
        levels = np.asarray(picture.convert("L"))
    assert levels[16 + 22 + 50, 16 + 9 * 118 + 50] == round(255 * 9 / 11)
    assert levels[16 + 140 + 22 + 50, 16 + 118 + 50] == 255


def test_folders_are_made_and_old_files_replaced(tmp_path):
    path = tmp_path / "new" / "folder" / "clip.gif"
    write_clip(path, ring(2))
    write_clip(path, ring(3))
    assert len(read_clip(path)) == 3
    assert [name.name for name in path.parent.iterdir()] == ["clip.gif"]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with (
        pytest.raises(UserError, match=r"file.txt' cannot be written \(No space"),
        atomic_file(path) as partial,
    ):
        partial.write_text("half")
        raise OSError(28, "No space left on device")
    with pytest.raises(RuntimeError, match="a bug"), atomic_file(path) as partial:
        partial.write_text("half")
        raise RuntimeError("a bug")
    assert path.read_text() == "old"
    assert [name.name for name in tmp_path.iterdir()] == ["file.txt"]


def test_paths_are_checked_before_work(tmp_path):
    path = tmp_path / "not" / "yet" / "clip.gif"
    assert validate_output_path(str(path)) == path
    assert not (tmp_path / "not").exists()
    with pytest.raises(UserError, match=r"suffix '.webp'.*\.npy, \.gif, \.mp4, \.png"):
        validate_output_path(tmp_path / "clip.webp")
    with pytest.raises(UserError, match=r"suffix ''"):
        write_clip(tmp_path / "clip", ring())
    (tmp_path / "folder.gif").mkdir()
    with pytest.raises(UserError, match=r"folder.gif' is a folder"):
        validate_output_path(tmp_path / "folder.gif")
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"clip.gif' cannot be written because '.*file'"
    ):
        validate_output_path(tmp_path / "file" / "below" / "clip.gif")


@pytest.mark.parametrize("suffix", [".npy", ".gif", ".mp4", ".png"])
def test_bad_arguments(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    with pytest.raises(UserError, match=r"shape \(48, 64\)"):
        write_clip(path, ring()[0, ..., 0])
    assert not path.exists()


def test_too_large_a_video_is_told(tmp_path):
    clip = np.zeros((1, 1, 20_000), np.float32)
    with pytest.raises(
        UserError, match=r"clip.mp4' cannot be encoded as H.264 at 20000x"
    ):
        write_clip(tmp_path / "clip.mp4", clip)
    assert list(tmp_path.iterdir()) == []
