"""Folders of films: what is found, how it is split and cut, what is left out."""

import re

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.config import validated
from convlstm_jax.data.video.config import VideoConfig
from convlstm_jax.data.video.film import find_films
from tests.data.video.film_files import refuses

SPLITS = ("train", "validation", "test")


def film(number, num_frames, height=4, width=5):
    """Frames that tell which video (first pixel) and frame (second) they are."""
    frames = np.random.default_rng(number).integers(
        0, 256, (num_frames, height, width), dtype=np.uint8
    )
    frames[:, 0, 0] = number
    frames[:, 0, 1] = np.arange(num_frames)
    return frames


def write_films(folder, lengths, name="film{}.npy"):
    for number, num_frames in enumerate(lengths):
        path = folder / name.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, film(number, num_frames))


def write_pictures(folder, frames):
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")


def open_folder(path, num_frames=5, seed=0, **fields):
    size = {"height": 4, "width": 5}
    config = VideoConfig(path=str(path), **(size | fields))
    return config.sources(num_frames=num_frames, seed=seed)


def clips(sources, split):
    source = getattr(sources, split)
    return [source[index]["frames"] for index in range(len(source))]


def frames_used(sources, split):
    """The (video, frame) pairs that a split shows."""
    return {
        (int(frame[0, 0, 0]), int(frame[0, 1, 0]))
        for clip in clips(sources, split)
        for frame in clip
    }


def videos_used(sources, split):
    return {video for video, _ in frames_used(sources, split)}


# --- finding --------------------------------------------------------------------------


def test_videos_are_found_however_deep(tmp_path):
    write_films(tmp_path, [3] * 11)
    write_pictures(tmp_path / "deep" / "er" / "frames", film(20, 3))
    write_pictures(tmp_path / ".hidden", film(21, 3))
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / ".film.npy").write_text("hidden")
    (tmp_path / "empty").mkdir()
    (tmp_path / "deep" / "link").symlink_to(tmp_path, target_is_directory=True)
    names = [video.name for video in find_films(tmp_path)]
    assert names == ["deep/er/frames", *(f"film{number}.npy" for number in range(11))]
    (one,) = find_films(tmp_path / "deep" / "er" / "frames")
    assert one.name == "frames"
    (one,) = find_films(tmp_path / "film3.npy")
    assert one.name == "film3.npy"


def test_folder_that_cannot_be_read(tmp_path):
    with refuses(r"path is '.*nothing', but must be a folder"):
        open_folder(tmp_path / "nothing")
    with refuses("holds no video and no pictures"):
        open_folder(tmp_path)
    (problem,) = VideoConfig(path=str(tmp_path / "none")).check_machine()
    assert problem.startswith(f"path is '{tmp_path / 'none'}': it must be an existing")
    assert not list(VideoConfig(path=str(tmp_path)).check_machine())


# --- splitting ------------------------------------------------------------------------


def test_no_video_is_on_two_sides(tmp_path):
    write_films(tmp_path, [13] * 20)
    sources = open_folder(tmp_path, clip_stride=1, test_fraction=0.2, seed=3)
    used = {split: videos_used(sources, split) for split in SPLITS}
    assert [len(used[split]) for split in SPLITS] == [14, 2, 4]
    assert set.union(*used.values()) == set(range(20))
    assert [len(getattr(sources, split)) for split in SPLITS] == [14 * 9, 2 * 9, 4 * 9]
    assert "20 videos, split by video (14 train, 2 validation, 4 test)" in (
        sources.description
    )
    assert "126 train, 18 validation, 36 test." in sources.description
    other_seed = open_folder(tmp_path, clip_stride=1, test_fraction=0.2, seed=4)
    for split in SPLITS:
        np.testing.assert_array_equal(clips(sources, split), clips(other_seed, split))


def test_split_depends_on_names_below_the_folder_alone(tmp_path):
    write_films(tmp_path / "here", [5] * 9)
    write_films(tmp_path / "there", [5] * 9)
    here, there = open_folder(tmp_path / "here"), open_folder(tmp_path / "there")
    for split in SPLITS:
        np.testing.assert_array_equal(clips(here, split), clips(there, split))
    # Another video moves at most those on the border between two splits.
    np.save(tmp_path / "there" / "other.npy", film(30, 5))
    there = open_folder(tmp_path / "there")
    moved = [videos_used(here, split) ^ videos_used(there, split) for split in SPLITS]
    assert len(set.union(*moved) - {30}) <= 2


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_videos_than_splits_are_cut_in_time(tmp_path, count):
    write_films(tmp_path, [60] * count)
    sources = open_folder(tmp_path, clip_stride=1, test_fraction=0.3)
    used = {split: frames_used(sources, split) for split in SPLITS}
    for video in range(count):
        frames = {
            split: sorted(frame for one, frame in used[split] if one == video)
            for split in SPLITS
        }
        assert frames["train"] == list(range(36))
        assert frames["validation"] == list(range(36, 42))
        assert frames["test"] == list(range(42, 60))
    assert "each cut in time" in sources.description


def test_conditions_are_held_out(tmp_path):
    for condition in ("flow 2", "flow 10", "flow 1"):
        number = int(condition.split()[1])
        for take in range(3):
            (tmp_path / condition).mkdir(exist_ok=True)
            path = tmp_path / condition / f"take{take}.npy"
            np.save(path, film(10 * number + take, 5))
    sources = open_folder(tmp_path, condition="folder", test_conditions=("flow 2",))
    assert sources.conditions == ("flow 1", "flow 2", "flow 10")
    assert videos_used(sources, "test") == {20, 21, 22}
    learned = videos_used(sources, "train") | videos_used(sources, "validation")
    assert learned == {10, 11, 12, 100, 101, 102}
    assert "flow 1, flow 2, flow 10; held out for the test: flow 2." in (
        sources.description
    )
    for split in SPLITS:
        source = getattr(sources, split)
        for index in range(len(source)):
            clip = source[index]
            assert clip["condition"].dtype == np.int32
            name = sources.conditions[clip["condition"]]
            assert name == f"flow {clip['frames'][0, 0, 0, 0] // 10}"
    assert "condition" not in open_folder(tmp_path).train[0]


# --- cutting --------------------------------------------------------------------------


def test_clips_show_the_frames_of_their_place(tmp_path):
    write_films(tmp_path, [31] * 4)
    sources = open_folder(tmp_path, num_frames=3, frame_stride=4, clip_stride=7)
    starts = set()
    for clip in clips(sources, "train"):
        number, start = int(clip[0, 0, 0, 0]), int(clip[0, 0, 1, 0])
        starts.add((number, start))
        expected = film(number, 31)[start : start + 9 : 4, ..., np.newaxis]
        np.testing.assert_array_equal(clip, expected)
    videos = videos_used(sources, "train")
    assert starts == {(video, s) for video in videos for s in (0, 7, 14, 21)}


def test_limits_take_the_first_clips_of_a_mixed_order(tmp_path):
    write_films(tmp_path, [50] * 8)
    all_clips = open_folder(tmp_path)
    some = open_folder(tmp_path, num_train_sequences=12, num_test_sequences=2)
    assert len(some.train) == 12 and len(some.test) == 2
    np.testing.assert_array_equal(clips(some, "train"), clips(all_clips, "train")[:12])
    assert len(videos_used(some, "train")) > 3
    with pytest.raises(IndexError, match=r"Clip 12 is out of range.*12 clips"):
        some.train[12]
    with pytest.raises(IndexError, match="Clip -1 is out of range"):
        some.train[-1]


# --- what is left out -----------------------------------------------------------------


def test_short_videos_are_left_out_and_counted(tmp_path):
    write_films(tmp_path, [5, 4, 5, 5, 3])
    sources = open_folder(tmp_path)
    assert set.union(*(videos_used(sources, split) for split in SPLITS)) == {0, 2, 3}
    assert "Left out: 2 videos without 5 frames (first: film1.npy)." in (
        sources.description
    )
    with refuses(r"No video of '.*' can be used: 5 videos without 9 frames"):
        open_folder(tmp_path, num_frames=9)


def test_bad_files_are_refused_or_left_out(tmp_path):
    write_films(tmp_path, [12] * 5)
    (tmp_path / "film1.npy").write_bytes(b"junk")
    with refuses(r"film1.npy' cannot be read"):
        open_folder(tmp_path)
    path = tmp_path / "film3.npy"
    path.write_bytes(path.read_bytes()[:-50])
    write_pictures(tmp_path / "frames", film(9, 14))
    (tmp_path / "frames" / "6.png").write_bytes(b"junk")
    sources = open_folder(
        tmp_path, bad_files="skip", validation_fraction=0.2, clip_stride=1
    )
    used = set.union(*(frames_used(sources, split) for split in SPLITS))
    assert {video for video, _ in used} == {0, 2, 3, 4, 9}
    assert {frame for video, frame in used if video == 3} == set(range(9))
    assert {frame for video, frame in used if video == 9} == set(range(14)) - {6}
    text = sources.description
    assert "1 video that cannot be read (first: '" in text
    assert "2 videos in part (first: film3.npy: 9 of 12 frames can be read" in text


def test_videos_without_a_condition(tmp_path):
    write_films(tmp_path, [5] * 3, "a/film{}.npy")
    write_films(tmp_path, [5] * 1, "stray{}.npy")
    with refuses(r"stray0.npy' has no condition: .*'folder'"):
        open_folder(tmp_path, condition="folder")
    sources = open_folder(tmp_path, condition="folder", bad_files="skip")
    assert "1 video without a condition (first: stray0.npy)" in sources.description


def test_an_empty_split_is_named(tmp_path):
    write_films(tmp_path, [12], "{}/film.npy")
    with refuses(r"The train split of .* is empty \(clips of 5 frames from 1 vi"):
        open_folder(tmp_path)
    with refuses(r"train split .* 0 train, 0 validation, 2 test"):
        open_folder(tmp_path, condition="folder", test_conditions=("0",))
    with refuses(r"test_conditions names '7', but .* conditions '0'"):
        open_folder(tmp_path, condition="folder", test_conditions=("7",))


# --- arguments ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"test_fraction": 1.0}, "test_fraction is 1.0: it must be a finite number"),
        (
            {"test_fraction": 0.5, "validation_fraction": 0.5},
            "validation_fraction is 0.5 and test_fraction 0.5: their sum must be below",
        ),
        ({"condition": "("}, r"condition is '\(', which is no regular expression"),
        ({"condition": "film"}, "condition is 'film' with 0 groups: it must"),
        ({"test_conditions": ("a",)}, r"test_conditions is \('a',\), but condition is"),
        ({"split_by": "condition"}, "'condition', but condition is '', so films have"),
        ({"crop_box": (-1, 0, 8, 8)}, r"crop_box is \(-1, 0, 8, 8\): it must be \(top"),
        ({"value_range": (9.0, 9.0)}, r"value_range is \(9.0, 9.0\): it must be two n"),
    ],
)
def test_fields_are_checked(fields, words):
    _, problems = validated(VideoConfig, {"path": "a"} | fields)
    assert len(problems) == 1 and re.search(words, problems[0])
