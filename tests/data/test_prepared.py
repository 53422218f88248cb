"""Prepared folders: the clips of the folder itself, whatever happens on the way."""

import json
import shutil

import numpy as np
import pytest

from convlstm_jax.data.prepared import is_prepared, read_prepared
from convlstm_jax.data.sources import SPLITS
from convlstm_jax.data.video import clips as film_clips
from convlstm_jax.data.video.config import VideoConfig
from convlstm_jax.paths import seal
from tests.data.video.film_files import (
    grey_pixels,
    refuses,
    write_folder,
    write_stack,
    write_video,
)

H, W = 6, 8


class Killed(BaseException):
    """What no part of the program expects."""


def pixels(num_frames, seed, height=H, width=W):
    return grey_pixels(num_frames, height, width, seed)


@pytest.fixture
def films(tmp_path):
    """A folder with one film of each kind, of sizes that are to be fitted."""
    folder = tmp_path / "films"
    for name in ("slow", "fast"):
        (folder / name).mkdir(parents=True)
    write_video(folder / "slow" / "a.mp4", pixels(27, 1, 32, 48), "mpeg4", "yuv420p")
    write_folder(folder / "slow" / "c", pixels(7, 3, 10, 9))
    write_stack(folder / "fast" / "d.gif", pixels(8, 4, 12, 16))
    np.save(folder / "fast" / "e.npy", pixels(13, 5))
    np.savez_compressed(folder / "fast" / "f.npz", pixels(9, 6) / np.float32(255))
    return folder


def config(path, **fields):
    return VideoConfig(
        **{"path": str(path), "height": H, "width": W, "condition": "folder"} | fields
    )


def sources(path, num_frames=4, **fields):
    return config(path, **fields).sources(num_frames=num_frames, seed=0)


def assert_same_clips(one, other):
    for name in ("conditions", "classes", "class_counts", "test_films"):
        assert getattr(one, name) == getattr(other, name)
    for split in SPLITS:
        first, second = getattr(one, split), getattr(other, split)
        assert len(first) == len(second) > 0
        for index in range(len(first)):
            a, b = first[index], second[index]
            assert a.keys() == b.keys()
            for key in a:
                np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize(
    "fields",
    [
        {"clip_stride": 1, "frame_stride": 2},
        {"test_conditions": ("slow",), "channels": 3, "height": 4, "width": 12},
        {"crop_box": (1, 2, 4, 5), "value_range": (0.2, 0.8)},
    ],
)
def test_clips_splits_and_order_are_those_of_the_folder(films, tmp_path, fields):
    out = tmp_path / "out"
    how = {name: value for name, value in fields.items() if name != "num_frames"}
    config(films, **how).prepare(out)
    expected, found = sources(films, **fields), sources(out, **fields)
    assert_same_clips(found, expected)
    assert found.description.replace(str(out), str(films)) == expected.description


def test_manifest(films, tmp_path):
    out = tmp_path / "out"
    manifest = config(films).prepare(out)
    assert is_prepared(out) and not is_prepared(films)
    settings = config(films).frame_settings.as_json()
    assert read_prepared(out, "video", settings)[0] == manifest
    assert manifest.source == str(films) and manifest.left_out == {}
    assert manifest.counts == {"items": 5, "items_left_out": 0, "frames": 64}
    assert manifest.settings == {
        "height": H, "width": W, "channels": 1, "crop_box": [], "value_range": [],
        "variable": "",
    }  # fmt: skip
    assert {item.name: item.facts["condition"] for item in manifest.items} == {
        "fast/d.gif": "fast", "fast/e.npy": "fast", "fast/f.npz": "fast",
        "slow/a.mp4": "slow", "slow/c": "slow",
    }  # fmt: skip
    assert {"numpy", "av"} <= set(manifest.versions)
    # It needs the films no more, and can lie elsewhere.
    shutil.rmtree(films)
    shutil.move(out, tmp_path / "moved")
    assert len(sources(tmp_path / "moved").train)


def stop_after(monkeypatch, count):
    """Ends the work when the `count`-th film is opened."""
    cached_film = film_clips.cached_film
    opened = []

    def stop(*args):
        if len(opened) == count:
            raise Killed
        opened.append(args[0].name)
        return cached_film(*args)

    monkeypatch.setattr(film_clips, "cached_film", stop)
    monkeypatch.setattr(film_clips, "_MAX_THREADS", 1)


def test_an_interrupted_work_goes_on(films, tmp_path, monkeypatch):
    out = tmp_path / "out"
    whole = config(films).prepare(tmp_path / "whole")
    stop_after(monkeypatch, 3)
    with pytest.raises(Killed):
        config(films).prepare(out)
    monkeypatch.undo()
    assert is_prepared(out)
    with refuses(r"out' is not prepared completely: run the same"):
        sources(out)
    done = {path: path.stat().st_mtime_ns for path in out.glob("frames/*/frames.npy")}
    assert len(done) == 3
    (out / "frames" / ".0.0.partial").mkdir(parents=True)  # Left by kill -9.
    assert config(films).prepare(out) == whole
    assert {path: path.stat().st_mtime_ns for path in done} == done  # None done again.
    assert not list(out.glob("frames/.*.partial"))
    assert config(films).prepare(out) == whole  # There is nothing to do.


def test_what_changed_since_is_refused_by_name(films, tmp_path):
    out = tmp_path / "out"
    config(films).prepare(out)
    with refuses(r"height is 6 there and 12 here, crop_box is \[\]"):
        config(films, height=12, crop_box=(0, 0, 4, 4)).prepare(out)
    with refuses(r"prepared with other settings.*: height is 6 there and 12 here$"):
        sources(out, height=12)
    shutil.copytree(films, tmp_path / "copy")
    with refuses(r"out' was started with other .*source is '.*film"):
        config(tmp_path / "copy").prepare(out)
    np.save(films / "fast" / "a.npy", pixels(5, 8))
    with refuses(r"other videos \('fast/a.npy' is new since"):
        config(films).prepare(out)
    (films / "fast" / "a.npy").unlink()
    (films / "fast" / "e.npy").rename(tmp_path / "e.npy")
    with refuses(r"other videos \('fast/e.npy' is gone since"):
        config(films).prepare(out)
    np.save(films / "fast" / "e.npy", pixels(13, 50))
    with refuses(r"other videos \('fast/e.npy' has changed since"):
        config(films).prepare(out)


def test_refusing_can_turn_into_skipping_and_back(films, tmp_path):
    out = tmp_path / "out"
    (films / "slow" / "b.avi").write_bytes(b"no video")
    film = pixels(31, 9) / np.float32(255)
    film[[4, 12, 13, 29], 0, 0] = np.nan
    np.save(films / "fast" / "z.npy", film)
    with refuses(r"(z.npy|b.avi)' cannot be read .*bad_files=skip"):
        config(films).prepare(out)
    manifest = config(films, bad_files="skip").prepare(out)
    assert manifest.counts["items_left_out"] == 1
    problems = {
        i.name: i.facts["problem"] for i in manifest.items if i.facts["problem"]
    }
    assert "b.avi' cannot be read as a video" in problems.pop("slow/b.avi")
    told = "27 of 31 frames can be read (frame 4:"
    assert problems.pop("fast/z.npy").startswith(told)
    assert not problems
    skip = {"bad_files": "skip", "clip_stride": 1}
    assert_same_clips(sources(out, **skip), sources(films, **skip))
    assert "1 video that cannot be read" in sources(out, **skip).description
    with refuses(r"(z.npy|b.avi)' cannot be read"):
        sources(out)


def test_folders_that_are_not_to_be_written_to(films, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with refuses(r"out' holds 'thesis.txt': it must be a new"):
        config(films).prepare(out)
    (out / "thesis.txt").rename(out / "progress.json")
    with refuses(r"progress.json' cannot be read"):
        config(films).prepare(out)
    (tmp_path / "file").write_text("")
    with refuses(r"file' cannot be written to \((File|Not)"):
        config(films).prepare(tmp_path / "file")


def test_damage_is_told_and_mended(films, tmp_path):
    out = tmp_path / "out"
    manifest = config(films).prepare(out)
    file = out / "frames" / manifest.items[0].entry / "frames.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with refuses(r"cannot be read \(frame 7 has changed\)"):
        assert_same_clips(sources(out, clip_stride=1), sources(films, clip_stride=1))
    file.write_bytes(content[:-1])
    with refuses(r"the frames of 'fast/d.gif', is damaged or gone"):
        sources(out)
    assert config(films).prepare(out) == manifest
    assert_same_clips(sources(out), sources(films))


def test_manifests_that_cannot_be_read(films, tmp_path):
    out = tmp_path / "out"
    config(films).prepare(out)
    text = (out / "manifest.json").read_text()
    for old, new, words in (
        (text[300:], "", r"manifest.json' cannot be read \("),
        ('"version": 4', '"version": 5', r"cannot be read \(version: "),
        ('"items": [', '"itmes": [', r"cannot be read \(items: Field required"),
        ('"name": "fast/d.gif"', '"name": 7', r"\(items.0.name: .* must be a text"),
        ('"entry": "', '"entry": "../', r"\(items.0.entry: String should match pat"),
        ("convlstm_jax frames", "convlstm_jax prepared videos", r"\(format: Input"),
    ):
        assert old in text
        changed = text.replace(old, new, 1)
        (out / "manifest.json").write_text(changed)
        with refuses("it does not match its checksum|manifest.json' cannot be read"):
            sources(out)
        if new:
            resealed = seal(json.loads(changed)["content"])
            (out / "manifest.json").write_text(json.dumps(resealed))
        with refuses(words):
            sources(out)
    (out / "manifest.json").write_text("{}")
    assert not is_prepared(out)


def test_a_folder_of_another_kind(films, tmp_path, monkeypatch):
    out = tmp_path / "out"
    config(films).prepare(out)
    with refuses(r"out' is prepared from videos: it must be from r"):
        read_prepared(out, "radar", {})
    path = out / "manifest.json"
    content = json.loads(path.read_text())["content"] | {"kind": "radar"}
    path.write_text(json.dumps(seal(content)))
    with refuses(r"out' is prepared from radar composites: it must be from videos"):
        sources(out)
    with refuses(r"out' was started with .*: kind is 'radar' there"):
        config(films).prepare(out)
