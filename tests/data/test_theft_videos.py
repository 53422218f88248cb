"""The drawn theft videos: what happens in them, and that they are written whole."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from convlstm_jax.data import theft_videos
from convlstm_jax.data.cvat import event_intervals
from convlstm_jax.data.cvat_reading import read_cvat
from convlstm_jax.data.shop_film import make_film
from convlstm_jax.data.theft_videos import theft_videos_sources, write_theft_videos
from convlstm_jax.data.video_frames import open_video
from convlstm_jax.errors import UserError

DEEDS = ("theft", "restock", "touch", "pass")


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("size", [(32, 32), (40, 33), (32, 140)])
def test_films(deed, size):
    for seed in range(4):
        film = make_film(deed, seed, *size)
        assert film.frames.dtype == np.uint8
        assert 60 <= len(film.frames) <= 90
        assert film.frames.shape[1:] == (*size, 3)
        labels = [track.label for track in film.tracks]
        assert ("theft" in labels) == (deed == "theft")
        assert ("hand" in labels) == (deed != "pass")
        assert labels.count("person") in (1, 2)


@pytest.mark.parametrize("deed", DEEDS)
def test_what_changes_on_the_shelf(deed):
    for seed in range(6):
        film = make_film(deed, seed, 64, 64)
        shelf = slice(0, 25)  # The boards, above all heads.
        before, after = film.frames[0, shelf], film.frames[-1, shelf]
        changed = (before != after).any(-1)
        if deed in ("touch", "pass"):
            assert not changed.any()
        else:  # One thing of 7 pixels.
            rows, columns = np.nonzero(changed)
            assert 4 <= np.ptp(columns) + 1 <= 9 and np.ptp(rows) + 1 <= 9
            # Where the thing is, there is colour; the wall behind it is pale.
            with_thing = before if deed == "theft" else after
            colourful = np.ptp(with_thing[changed].astype(int), axis=-1).max()
            assert colourful > 100


def test_the_interval_of_a_theft_is_when_the_thing_moves():
    for seed in range(6):
        film = make_film("theft", seed, 64, 64)
        (theft,) = (track for track in film.tracks if track.label == "theft")
        first, end = theft.shapes[0].frame, theft.shapes[-1].frame
        assert end - first == 14 and theft.shapes[-1].outside
        shelf = film.frames[:, :20].astype(int)
        # The place of the thing: what differs between the empty shop before and after.
        place = (shelf[0] != shelf[-1]).any(-1)
        still_there = (shelf[:, place] == shelf[0, place]).all((-1, -2))
        assert still_there[0] and not still_there[first:].any()
        (left, top), (right, bottom) = theft.shapes[0].points
        assert 0 <= left < right <= 64 and 0 <= top < bottom <= 64


def test_the_same_seed_gives_the_same_film():
    one, again, other = (make_film("touch", seed, 32, 32) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.frames, again.frames)
    assert one.tracks == again.tracks
    assert one.frames.shape != other.frames.shape or (one.frames != other.frames).any()


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_hold_the_films(tmp_path):
    folder = write_theft_videos(tmp_path / "shop", height=32, width=48, num_videos=3)
    assert folder == tmp_path / "shop"
    assert len(files(folder)) == 7
    assert list(tmp_path.iterdir()) == [folder]  # Nothing is left beside it.
    for number, deed in enumerate(("theft", "restock", "theft")):
        film = make_film(deed, number, 32, 48)
        path = folder / f"shop_{number:02d}.avi"
        video = open_video(path, height=32, width=48, channels=3)
        assert video.num_frames == len(film.frames)
        np.testing.assert_array_equal(video.read(0, len(film.frames)), film.frames)
        annotations = read_cvat(path.with_suffix(".xml"))
        assert annotations.tracks == film.tracks
        assert annotations.source == path.name
        assert annotations.size == len(film.frames)
        assert bool(event_intervals(annotations, ["theft"])) == (deed == "theft")


SMALL = {"height": 32, "width": 32, "num_videos": 2}


def test_writing_again_changes_nothing(tmp_path):
    folder = write_theft_videos(tmp_path / "a", **SMALL)
    before = {path: os.stat(path).st_mtime_ns for path in folder.iterdir()}
    write_theft_videos(tmp_path / "a", **SMALL)
    assert {path: os.stat(path).st_mtime_ns for path in folder.iterdir()} == before
    assert files(write_theft_videos(tmp_path / "b", **SMALL)) == files(folder)


def damage_missing(folder):
    (folder / "shop_01.avi").unlink()


def damage_changed(folder):
    path = folder / "shop_00.xml"
    path.write_text(path.read_text().replace("theft", "thift"))


def damage_no_manifest(folder):
    (folder / "manifest.json").unlink()


def damage_torn_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:-20])


def damage_other_version(folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 0}))


def damage_everything(folder):
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        damage_missing,
        damage_changed,
        damage_no_manifest,
        damage_torn_manifest,
        damage_other_version,
        damage_everything,
    ],
)
def test_an_incomplete_folder_is_written_anew(tmp_path, damage):
    folder = write_theft_videos(tmp_path / "a", **SMALL)
    whole = files(folder)
    damage(folder)
    assert files(folder) != whole
    write_theft_videos(folder, **SMALL)
    assert files(folder) == whole
    assert list(tmp_path.iterdir()) == [folder]


def test_other_files_are_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no videos of theft_videos, but other"):
        write_theft_videos(tmp_path, **SMALL)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"shop' cannot be written \((Not a dir|File ex)"
    ):
        write_theft_videos(tmp_path / "file" / "shop", **SMALL)


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(theft_videos, "write_cvat", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device"):
        write_theft_videos(tmp_path / "a", **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_another_process_was_faster(tmp_path, monkeypatch):
    rename = Path.rename

    def late(partial, folder):
        monkeypatch.setattr(Path, "rename", rename)
        write_theft_videos(folder, **SMALL)
        return rename(partial, folder)

    monkeypatch.setattr(Path, "rename", late)
    folder = write_theft_videos(tmp_path / "a", **SMALL)
    assert len(files(folder)) == 5
    assert list(tmp_path.iterdir()) == [folder]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(theft_videos, "NUM_VIDEOS", 6)
    monkeypatch.setattr(theft_videos.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return str(
        write_theft_videos(tmp_path_factory.mktemp("a") / "b", height=32, width=32)
    )


def test_splits(whole):
    sources = theft_videos_sources(
        num_frames=9, seed=0, height=32, width=32, clip_stride=3, folder=whole
    )
    assert sources.classes == ("normal", "theft")
    assert sources.description.startswith(
        "Surveillance videos drawn by the program: 120 videos"
    )
    assert (sources.height, sources.width, sources.channels) == (32, 32, 3)
    for source in (sources.train, sources.validation, sources.test):
        labels = [int(source[index]["label"]) for index in range(0, len(source), 5)]
        assert 2 <= sum(labels) < len(labels) / 3
        assert source[0]["frames"].shape == (9, 32, 32, 3)
    assert sum(sources.class_counts) == len(sources.train)
    again = pickle.loads(pickle.dumps(sources.test))
    np.testing.assert_array_equal(again[3]["frames"], sources.test[3]["frames"])


def cache_of(home, **fields):
    sources = theft_videos_sources(
        num_frames=9,
        seed=0,
        height=32,
        width=40,
        clip_stride=2,
        **fields,
    )
    return sources.description


def test_the_cache_is_in_the_home_folder(home):
    description = cache_of(home)
    folder = home / ".cache" / "convlstm_jax" / "theft_videos" / "1-32x40"
    assert str(folder) in description
    assert (folder / "manifest.json").is_file()


def test_without_a_home_the_cache_is_in_the_temporary_folder(home):
    (home / ".cache").write_text("no folder")
    assert f"{home.parent}/convlstm_jax-" in cache_of(home)


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (64, 40)])
def test_sizes_too_small_to_draw(size):
    height, width = size
    with pytest.raises(
        UserError, match=f"height and width are {height} and {width}, b"
    ):
        theft_videos_sources(num_frames=9, seed=0, height=height, width=width)
