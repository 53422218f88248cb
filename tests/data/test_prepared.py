"""Prepared folders: the clips of the folder itself, whatever happens on the way."""

import json
import pickle
import re
import shutil
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image

from convlstm_jax.data import prepared, preparing
from convlstm_jax.data.prepared import is_prepared
from convlstm_jax.data.preparing_videos import prepare_videos
from convlstm_jax.data.shard_writer import refused
from convlstm_jax.data.source_files import content_of
from convlstm_jax.data.video_folder import video_folder_sources
from convlstm_jax.errors import UserError
from tests.data.prepared_folders import (
    SPLITS,
    Killed,
    assert_same_clips,
    contents_of,
    no_report,
    shards_of,
    stop_after,
)

H, W = 6, 8
SETTINGS = {
    "height": H, "width": W, "channels": 1, "crop_box": (), "value_range": (),
    "variable": "", "bad_files": "refuse",
}  # fmt: skip
SHARD_FRAMES = 10


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(preparing, "SHARD_BYTES", SHARD_FRAMES * H * W)


def pixels(num_frames, seed, height=H, width=W):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_frames, height, width), dtype=np.uint8)


def write_video(path, film):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, options={"g": "4", "bf": "2"})
        stream.height, stream.width = film.shape[1:]
        stream.pix_fmt = "yuv420p"
        for frame in film:
            picture = av.VideoFrame.from_ndarray(frame, format="gray")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def write_pictures(folder, film):
    folder.mkdir(parents=True)
    for number, frame in enumerate(film):
        Image.fromarray(frame).save(folder / f"{number}.png")


@pytest.fixture
def films(tmp_path):
    """A folder with one video of each kind, of sizes that are to be fitted."""
    folder = tmp_path / "films"
    for name in ("slow", "fast"):
        (folder / name).mkdir(parents=True)
    write_video(folder / "slow" / "a.mp4", pixels(27, 1, 32, 48))
    write_video(folder / "slow" / "b.avi", pixels(6, 2, 32, 48))
    write_pictures(folder / "slow" / "c", pixels(7, 3, 10, 9))
    images = [Image.fromarray(frame) for frame in pixels(8, 4, 12, 16)]
    images[0].save(folder / "fast" / "d.gif", save_all=True, append_images=images[1:])
    np.save(folder / "fast" / "e.npy", pixels(13, 5))
    np.savez_compressed(folder / "fast" / "f.npz", pixels(9, 6) / np.float32(255))
    return folder


def prepare(folder, output, report=no_report, **fields):
    condition = fields.pop("condition", "folder")
    settings = {**SETTINGS, **fields}
    return prepare_videos(
        str(folder), output, settings=settings, condition=condition, report=report
    )


def open_folder(path, num_frames=4, **fields):
    limits = {f"num_{split}_sequences": 999 for split in SPLITS}
    return video_folder_sources(
        **{"path": str(path), "num_frames": num_frames, "condition": "folder"}
        | {**SETTINGS, **limits, **fields}
    )


# --- the same clips -------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"clip_stride": 1, "frame_stride": 2},
        {"split_by": "time", "num_frames": 2},
        {"test_conditions": ("slow",)},
        {"channels": 3, "height": 4, "width": 12},
        {"crop_box": (1, 2, 4, 5), "value_range": (0.2, 0.8)},
    ],
)
@pytest.mark.parametrize("bad_files", ["refuse", "skip"])
def test_clips_splits_and_order_are_those_of_the_folder(
    films, tmp_path, fields, bad_files
):
    how = {name: value for name, value in fields.items() if name in SETTINGS}
    prepare(films, tmp_path / "out", **how, bad_files=bad_files)
    fields = {**fields, "bad_files": bad_files}
    expected, found = (
        open_folder(films, **fields),
        open_folder(tmp_path / "out", **fields),
    )
    assert_same_clips(found, expected)
    told = found.description.replace(f"{tmp_path / 'out'}", f"{films}")
    if bad_files == "refuse":  # The folder itself is not looked through then.
        told = re.sub(r" Nothing is to be seen in .*\)\.", "", told)
    assert told == expected.description
    copy = pickle.loads(pickle.dumps(found.train))
    np.testing.assert_array_equal(copy[1]["frames"], found.train[1]["frames"])


def test_manifest(films, tmp_path):
    done = []
    manifest = prepare(films, tmp_path / "out", lambda *told: done.append(told))
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == {
        **manifest,
        "settings": {**SETTINGS, "crop_box": [], "value_range": []},
    }
    assert manifest["format"] == "convlstm_jax prepared videos"
    assert (manifest["source"], manifest["left_out"]) == (str(films), {})
    assert manifest["counts"] == {
        "videos": 6, "videos_left_out": 0, "videos_in_part": 0,
        "other_files_left_out": 0, "frames": 70, "frames_left_out": 0,
        "frames_blank": 0, "videos_all_blank": 0,
    }  # fmt: skip
    assert [shard["records"] for shard in manifest["shards"]] == [10] * 7
    for shard in manifest["shards"]:
        assert (tmp_path / "out" / shard["file"]).stat().st_size == shard["bytes"]
    videos = {video["name"]: video for video in manifest["videos"]}
    assert list(videos) == [
        "fast/d.gif", "fast/e.npy", "fast/f.npz", "slow/a.mp4", "slow/b.avi", "slow/c",
    ]  # fmt: skip
    for name, video in videos.items():
        assert video["condition"] == name.split("/")[0]
        assert (video["problem"], video["blank"], video["frames_left_out"]) == (
            "", [], 0,
        )  # fmt: skip
        assert {key: video[key] for key in ("sha256", "bytes")} == content_of(
            films / name
        )
    assert videos["slow/a.mp4"]["frames"] == 27
    assert videos["slow/a.mp4"]["pieces"] == [[3, 0, 0, 10], [4, 0, 10, 10],
                                              [5, 0, 20, 7]]  # fmt: skip
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"manifest.json", *(shard["file"] for shard in manifest["shards"])}
    # The bar of the progress never goes back and ends at its end.
    assert done == sorted(done) and done[-1] == (6.0, 6)
    assert any(told % 1 for told, _ in done)


def test_the_hash_tells_every_change(films, monkeypatch):
    before = {name: content_of(films / name) for name in ("slow/c", "fast/e.npy")}
    assert before["slow/c"] == content_of(films / "slow" / "c")
    (films / "slow" / "c" / "notes.txt").write_text("no picture")
    assert before["slow/c"] == content_of(films / "slow" / "c")
    (films / "slow" / "c" / "3.png").rename(films / "slow" / "c" / "30.png")
    assert before["slow/c"]["sha256"] != content_of(films / "slow" / "c")["sha256"]
    with pytest.raises(UserError, match=r"none.npy' cannot be read \(No such"):
        monkeypatch.setattr(type(films), "is_file", lambda self: True)
        content_of(films / "none.npy")
    monkeypatch.undo()
    np.save(films / "fast" / "e.npy", pixels(13, 50))
    assert before["fast/e.npy"] != content_of(films / "fast" / "e.npy")


def test_a_single_video_and_one_without_conditions(tmp_path):
    np.save(tmp_path / "film.npy", pixels(40, 1))
    manifest = prepare(tmp_path / "film.npy", tmp_path / "out", condition="")
    assert manifest["videos"][0]["condition"] == ""
    told = []
    np.save(tmp_path / "long.npy", pixels(430, 2))
    preparing.SHARD_BYTES = 2**20  # As undone by the fixture.
    prepare(
        tmp_path / "long.npy",
        tmp_path / "long",
        lambda *t: told.append(t[0]),
        condition="",
    )
    assert told == [100 / 430, 200 / 430, 300 / 430, 400 / 430, 1.0]
    assert_same_clips(
        open_folder(tmp_path / "out", condition=""),
        open_folder(tmp_path / "film.npy", condition=""),
    )
    with pytest.raises(UserError, match="holds no video and no pictures"):
        prepare(tmp_path / "out", tmp_path / "out2")


# --- going on -------------------------------------------------------------------------


@pytest.mark.parametrize("stop", range(1, 12))
@pytest.mark.parametrize("bad_files", ["refuse", "skip"])
def test_an_interrupted_work_goes_on(films, tmp_path, stop, bad_files):
    if bad_files == "skip":
        (films / "fast" / "a.mp4").write_bytes(b"no video")
        film = pixels(31, 9) / np.float32(255)
        film[[4, 12, 13, 29], 0, 0] = np.nan
        np.save(films / "fast" / "z.npy", film)
    whole = prepare(films, tmp_path / "whole", bad_files=bad_files)
    out = tmp_path / "out"
    with pytest.raises(Killed):
        prepare(films, out, stop_after(stop), bad_files=bad_files)
    assert is_prepared(out)
    with pytest.raises(UserError, match=r"out' is not prepared to its end: run the sa"):
        open_folder(out, bad_files=bad_files)
    before = shards_of(out)
    (out / ".shard-00003.array_record.partial").write_bytes(b"left by kill -9")
    # Killed between a shard and its line, and in the midst of a line.
    (out / f"shard-{len(before):05d}.array_record").write_bytes(b"of no line")
    with (out / "progress.jsonl").open("a") as file:
        file.write('{"shard": {"fi')
    manifest = prepare(films, out, bad_files=bad_files)
    assert manifest == whole
    after = shards_of(out)
    assert {name: after[name] for name in before} == before  # None was done again.
    assert contents_of(out) == contents_of(tmp_path / "whole")
    assert_same_clips(
        open_folder(out, bad_files=bad_files), open_folder(films, bad_files=bad_files)
    )
    # And once more: there is nothing to do.
    assert prepare(films, out, stop_after(1), bad_files=bad_files) == manifest
    assert shards_of(out) == after


def test_what_changed_since_is_refused_by_name(films, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Killed):
        prepare(films, out, stop_after(6))
    with pytest.raises(UserError, match=r"height is 6 there and 12 here, crop_box is"):
        prepare(films, out, height=12, crop_box=(0, 0, 4, 4))
    copy = tmp_path / "copy"
    shutil.copytree(films, copy)
    with pytest.raises(
        UserError, match=r"out' was begun with other .*source is '.*fil"
    ):
        prepare(copy, out)
    np.save(films / "fast" / "a.npy", pixels(5, 8))
    with pytest.raises(UserError, match=r"other videos \('fast/a.npy' is new"):
        prepare(films, out)
    (films / "fast" / "a.npy").unlink()
    write_video(films / "slow" / "a.mp4", pixels(27, 99, 32, 48))
    with pytest.raises(UserError, match=r"slow/a.mp4' has changed since its first fr"):
        prepare(films, out)
    shutil.rmtree(out)
    prepare(films, out)
    np.save(films / "fast" / "a.npy", pixels(5, 8))
    with pytest.raises(UserError, match=r"other videos \('fast/a.npy' is new"):
        prepare(films, out)
    (films / "fast" / "a.npy").unlink()
    (films / "slow" / "b.avi").unlink()
    with pytest.raises(UserError, match=r"other videos \('slow/b.avi' is gone since"):
        prepare(films, out)
    with pytest.raises(UserError, match=r"width is 8 there and 4 here"):
        prepare(films, out, width=4)


def test_refusing_can_turn_into_skipping(films, tmp_path):
    out = tmp_path / "out"
    (films / "slow" / "b.avi").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"b.avi' cannot be read as a video"):
        prepare(films, out)
    before = shards_of(out)
    assert before
    manifest = prepare(films, out, bad_files="skip")
    assert {name: shards_of(out)[name] for name in before} == before
    assert manifest["settings"]["bad_files"] == "skip"
    with pytest.raises(UserError, match=r"bad_files is 'skip' there and 'refuse' here"):
        prepare(films, out)


def test_folders_that_are_not_to_be_written_to(films, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"out' holds 'thesis.txt', but must be a new"):
        prepare(films, out)
    (out / "thesis.txt").rename(out / "progress.jsonl")
    with pytest.raises(UserError, match=r"progress.jsonl' cannot be read"):
        prepare(films, out)
    (out / "progress.jsonl").write_text('{"source": ""}\n')
    with pytest.raises(UserError, match=r"progress.jsonl' cannot be read \(no 'sett"):
        prepare(films, out)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file' cannot be written to \((File|Not)"):
        prepare(films, tmp_path / "file")


@pytest.mark.parametrize("num_videos", [0, 3])
def test_a_full_disk_loses_nothing(films, tmp_path, num_videos):
    """After so many videos no file may grow further, as on a disk that is full."""
    out = tmp_path / "out"
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from convlstm_jax.data import preparing\n"
        "from convlstm_jax.data.preparing_videos import prepare_videos\n"
        f"preparing.SHARD_BYTES = {SHARD_FRAMES * H * W}\n"
        "def fill_the_disk(done, total=0):\n"
        "    if done >= float(sys.argv[3]):\n"
        "        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))\n"
        "fill_the_disk(0)\n"
        "try:\n"
        "    prepare_videos(sys.argv[1], Path(sys.argv[2]), "
        f"settings={SETTINGS}, condition='folder', report=fill_the_disk)\n"
        "except preparing.UserError as error:\n"
        "    sys.exit(f'error: {error}')\n"
    )
    command = [sys.executable, "-B", "-c", script, str(films), str(out)]
    done = subprocess.run([*command, str(num_videos)], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: '.*out' cannot be written to \(File too large\): the shards written "
        r"so far are kept, so make room and run the same command again, .*\n",
        done.stderr,
    )
    assert not [path for path in out.iterdir() if "partial" in path.name]
    before = shards_of(out)
    assert bool(before) == bool(num_videos)
    done = subprocess.run([*command, "inf"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {name: shards_of(out)[name] for name in before} == before
    assert_same_clips(open_folder(out), open_folder(films))


def test_a_folder_that_cannot_be_made_needs_no_room(tmp_path):
    error = refused(tmp_path / "gone", OSError(20, "Not a directory"))
    assert str(error).endswith("(Not a directory): choose another folder.")


# --- bad data -------------------------------------------------------------------------


def bad_folder(tmp_path):
    """Good films, and one with each fault there is."""
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(4):
        np.save(folder / f"good{number}.npy", pixels(8, number))
    write_video(folder / "cut.mp4", pixels(30, 10, 32, 48))
    content = (folder / "cut.mp4").read_bytes()
    with av.open(str(folder / "cut.avi"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "gray"
        for frame in pixels(30, 10, 32, 48):
            picture = av.VideoFrame.from_ndarray(frame, format="gray")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    (folder / "cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    content = (folder / "cut.avi").read_bytes()
    (folder / "cut.avi").write_bytes(content[: len(content) * 2 // 3])
    write_pictures(folder / "sizes", pixels(9, 11))
    Image.fromarray(pixels(1, 12, 5, 5)[0]).save(folder / "sizes" / "4.png")
    film = pixels(11, 13) / np.float32(255)
    film[6, 1, 1] = np.nan
    np.save(folder / "nan.npy", film)
    np.save(folder / "black.npy", np.zeros((8, H, W), np.uint8))
    (folder / "empty.mkv").write_bytes(b"")
    return folder


def test_bad_data_is_named_counted_and_skipped(tmp_path):
    folder = bad_folder(tmp_path)
    manifest = prepare(folder, tmp_path / "out", bad_files="skip", condition="")
    problems = {
        video["name"]: (video["problem"], video["frames_left_out"])
        for video in manifest["videos"]
        if video["problem"]
    }
    assert set(problems) == {"cut.mp4", "cut.avi", "sizes", "nan.npy", "empty.mkv"}
    assert "cut.mp4' cannot be read as a video" in problems["cut.mp4"][0]
    assert re.fullmatch(
        r"the file ends early: \d+ of 30 frames can be read", problems["cut.avi"][0]
    )
    assert re.fullmatch(
        r"8 of 9 frames can be read \('.*4.png' is 5x5 pixels, but .*\)",
        problems["sizes"][0],
    )
    assert problems["sizes"][1] == 1
    assert re.fullmatch(
        r"10 of 11 frames can be read \('.*nan.npy' has 1 of 48 values in frame 6 .*\)",
        problems["nan.npy"][0],
    )
    assert "empty.mkv' cannot be read" in problems["empty.mkv"][0]
    black = next(v for v in manifest["videos"] if v["name"] == "black.npy")
    assert (black["problem"], black["blank"]) == ("", [[0, 8]])
    left_out = problems["cut.avi"][1]
    assert manifest["counts"] == {
        "videos": 10, "videos_left_out": 2, "videos_in_part": 3,
        "other_files_left_out": 0, "frames": 4 * 8 + 30 - left_out + 8 + 10 + 8,
        "frames_left_out": left_out + 2, "frames_blank": 8, "videos_all_blank": 1,
    }  # fmt: skip
    fields = {"condition": "", "bad_files": "skip", "clip_stride": 1}
    expected = open_folder(folder, **fields)
    found = open_folder(tmp_path / "out", **fields)
    assert_same_clips(found, expected)
    assert found.description == expected.description.replace(
        f"'{folder}'", f"'{tmp_path / 'out'}'"
    )
    assert "Nothing is to be seen in 5 clips (first: black.npy)" in found.description
    assert "2 videos that cannot be read (first: '" in found.description
    assert "3 videos in part (first: cut.avi: the file ends early" in found.description


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("cut.mp4", r"cut.mp4' cannot be read as a video"),
        ("cut.avi", r"cut.avi' cannot be read as a video"),
        ("sizes", r"4.png' is 5x5 pixels, but all frames"),
        ("nan.npy", r"nan.npy' cannot be read whole \(frame 6: '.*NaN or infinite\)"),
        ("empty.mkv", r"empty.mkv' cannot be read"),
    ],
)
def test_bad_data_is_refused(tmp_path, bad, words):
    folder = bad_folder(tmp_path)
    for path in folder.iterdir():
        if not path.name.startswith(("good", bad)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=words):
        prepare(folder, tmp_path / "out", condition="")


def test_files_without_permission(films, tmp_path, monkeypatch):
    opened = open
    forbidden = [str(films / name) for name in ("slow/c/3.png", "fast/e.npy")]

    def refuse(path, *args, **kwargs):
        if str(path) in forbidden:
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr("io.open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UserError, match=r"e.npy' cannot be read .*Permission denied"):
        prepare(films, tmp_path / "out")
    manifest = prepare(films, tmp_path / "out", bad_files="skip")
    problems = {v["name"]: v["problem"] for v in manifest["videos"] if v["problem"]}
    assert set(problems) == {"fast/e.npy", "slow/c"}
    assert re.match(r"6 of 7 frames .*3.png' .*Permission denied", problems["slow/c"])
    assert_same_clips(
        open_folder(tmp_path / "out", bad_files="skip", num_frames=3),
        open_folder(films, bad_files="skip", num_frames=3),
    )


def test_videos_without_a_condition(films, tmp_path):
    np.save(films / "stray.npy", pixels(5, 8))
    with pytest.raises(UserError, match=r"stray.npy' has no condition"):
        prepare(films, tmp_path / "out")
    prepare(films, tmp_path / "out", bad_files="skip")
    found = open_folder(tmp_path / "out", bad_files="skip")
    assert "1 video without a condition (first: stray.npy)" in found.description


# --- damaged or foreign folders -------------------------------------------------------


def test_settings_that_differ_are_named(films, tmp_path):
    prepare(films, tmp_path / "out")
    with pytest.raises(
        UserError,
        match=r"out' was prepared with other settings.*: height is 6 there and 12 "
        r"here, channels is 1 there and 3 here, bad_files is 'refuse' there and 'skip'",
    ):
        open_folder(tmp_path / "out", height=12, channels=3, bad_files="skip")


def test_damage_is_told(films, tmp_path):
    out = tmp_path / "out"
    manifest = prepare(films, out)
    prepared._opened.cache_clear()
    shard = out / manifest["shards"][0]["file"]
    content = bytearray(shard.read_bytes())
    place = content.rfind(b"(r", 0, 70_000)
    damaged = content.copy()
    first = np.flatnonzero(np.frombuffer(bytes(content[:60_000]), np.uint8))[-1]
    for position in range(first - 300, first):
        damaged[position] ^= 0x5A
    shard.write_bytes(bytes(damaged))
    sources = open_folder(out)
    with pytest.raises(UserError, match=r"shard-00000.* cannot be read \(.*: prepare"):
        for split in SPLITS:
            for index in range(len(getattr(sources, split))):
                getattr(sources, split)[index]
    shard.write_bytes(bytes(content[:place]))
    with pytest.raises(UserError, match=r"shard-00000.* bytes, but by the manifest"):
        open_folder(out)
    shard.unlink()
    with pytest.raises(UserError, match=r"shard-00000.* has 0 bytes, but by the"):
        open_folder(out)


def test_manifests_that_cannot_be_read(films, tmp_path):
    out = tmp_path / "out"
    prepare(films, out)
    text = (out / "manifest.json").read_text()
    for changed, words in (
        (text[:300], r"manifest.json' cannot be read \("),
        (text.replace('"version": 2', '"version": 1'), r"its version is 1, but this"),
        (text.replace('"shards"', '"shreds"'), r"cannot be read \(no 'shards'\)"),
    ):
        (out / "manifest.json").write_text(changed)
        with pytest.raises(UserError, match=words):
            open_folder(out)
    (out / "manifest.json").write_text("{}")
    assert not is_prepared(out)
