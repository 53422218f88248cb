"""Prepared folders of annotated videos: the clips and labels of the folder itself."""

import json
import re

import av
import numpy as np
import pytest
from PIL import Image

from convlstm_jax.data import preparing
from convlstm_jax.data.cvat import (
    Annotations,
    Shape,
    Track,
    check_frames,
    event_intervals,
    write_cvat,
)
from convlstm_jax.data.labelled_clips import labelled_clips_sources
from convlstm_jax.data.pipeline import train_batches
from convlstm_jax.data.prepared import kind_of
from convlstm_jax.data.prepared_annotations import annotation_facts, annotations_of
from convlstm_jax.data.preparing_annotations import prepare_annotated_videos
from convlstm_jax.data.preparing_videos import prepare_videos
from convlstm_jax.data.source_files import content_of
from convlstm_jax.data.video_folder import video_folder_sources
from convlstm_jax.errors import UserError
from tests.data.prepared_folders import (
    Killed,
    assert_same_clips,
    contents_of,
    no_report,
    shards_of,
    stop_after,
)

H, W = 6, 8
SETTINGS = {
    "height": H, "width": W, "channels": 1, "crop_box": (), "bad_files": "refuse",
}  # fmt: skip


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(preparing, "SHARD_BYTES", 25 * H * W)


def pixels(num_frames, seed, height=H, width=W):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_frames, height, width), dtype=np.uint8)


def track(label, *intervals):
    """A track that is seen in frames first .. end − 1 of each, boxed in all of them."""
    box = ((0.0, 0.0), (1.0, 1.0))
    shapes = []
    for first, end in intervals:
        shapes += [Shape("box", frame, False, box) for frame in range(first, end)]
        shapes.append(Shape("box", end, True, box))
    return Track(label, tuple(shapes))


def write_xml(path, *tracks, length=20, source=""):
    write_cvat(path, Annotations(source, length, 0, length - 1, W, H, tracks))


def write_avi(path, film):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width = film.shape[1:]
        stream.pix_fmt, stream.gop_size = "gray", 1
        for frame in film:
            picture = av.VideoFrame.from_ndarray(frame, format="gray")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


@pytest.fixture
def shop(tmp_path):
    """Eight videos of 20 frames, some of other kinds and sizes; four have a theft."""
    folder = tmp_path / "shop"
    for number in range(6):
        place = folder / f"day {number // 2}"
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"{number}.npy", pixels(20, number))
        tracks = [track("theft", (8, 14), (17, 19))] if number % 2 else []
        write_xml(place / f"{number}.xml", track("person", (2, 6)), *tracks)
    write_avi(folder / "day 1" / "z.avi", pixels(20, 6, 32, 48))
    write_xml(
        folder / "day 1" / "annotations.xml", track("theft", (0, 20)), source="z.avi"
    )
    (folder / "pictures").mkdir()
    for number, frame in enumerate(pixels(20, 7, 10, 12)):
        Image.fromarray(frame).save(folder / "pictures" / f"{number}.png")
    write_xml(folder / "pictures.xml", track("robbery", (3, 12)))
    return folder


def prepare(folder, output, report=no_report, **fields):
    settings = {**SETTINGS, **fields}
    return prepare_annotated_videos(
        str(folder), output, settings=settings, report=report
    )


def open_folder(path, **fields):
    defaults = {
        "event_labels": ("theft",), "num_frames": 4, "seed": 0,
        "validation_fraction": 0.3, "test_fraction": 0.3,
    }  # fmt: skip
    return labelled_clips_sources(path=str(path), **(SETTINGS | defaults | fields))


# --- the same clips and labels --------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"clip_stride": 1, "frame_stride": 2, "event_labels": ("person",)},
        {"event_labels": ("theft", "robbery"), "num_train_sequences": 7},
        {"channels": 3, "height": 4, "width": 12, "clip_stride": 3},
        {"crop_box": (1, 2, 4, 5)},
    ],
)
@pytest.mark.parametrize("bad_files", ["refuse", "skip"])
def test_clips_labels_and_splits_are_those_of_the_folder(
    shop, tmp_path, fields, bad_files
):
    how = {name: value for name, value in fields.items() if name in SETTINGS}
    prepare(shop, tmp_path / "out", **how, bad_files=bad_files)
    expected = open_folder(shop, **fields, bad_files=bad_files)
    found = open_folder(tmp_path / "out", **fields, bad_files=bad_files)
    assert_same_clips(found, expected)
    assert found.description.replace(str(tmp_path / "out"), str(shop)) == (
        expected.description
    )
    batches = [train_batches(one.train, 4, seed=3) for one in (found, expected)]
    for _ in range(5):
        first, second = (next(one) for one in batches)
        assert first.keys() == second.keys() >= {"frames", "label"}
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])
    for one in batches:
        one.close()


def test_manifest(shop, tmp_path):
    done = []
    manifest = prepare(shop, tmp_path / "out", lambda *told: done.append(told))
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == {
        **manifest, "settings": {**SETTINGS, "crop_box": []},
    }  # fmt: skip
    assert kind_of(tmp_path / "out") == "annotated videos"
    assert manifest["source"] == str(shop)
    assert manifest["counts"] == {
        "videos": 8, "videos_left_out": 0, "videos_in_part": 0,
        "other_files_left_out": 0, "frames": 160, "frames_left_out": 0,
        "frames_blank": 0, "videos_all_blank": 0,
    }  # fmt: skip
    videos = {video["name"]: video for video in manifest["videos"]}
    assert set(videos) == {
        "day 0/0.npy", "day 0/1.npy", "day 1/2.npy", "day 1/3.npy", "day 1/z.avi",
        "day 2/4.npy", "day 2/5.npy", "pictures",
    }  # fmt: skip
    for name, video in videos.items():
        assert {key: video[key] for key in ("sha256", "bytes")} == content_of(
            shop / name
        )
    # Of what is boxed in every frame, the frames that tell when it is seen.
    assert videos["day 0/1.npy"]["annotations"] == {
        "file": "day 0/1.xml", "source": "", "size": 20, "start_frame": 0,
        "stop_frame": 19, "width": W, "height": H,
        "tracks": [
            ["person", [["box", 2, 0], ["box", 5, 0], ["box", 6, 1]]],
            ["theft", [["box", 8, 0], ["box", 13, 0], ["box", 14, 1], ["box", 17, 0],
                       ["box", 18, 0], ["box", 19, 1]]],
        ],
    }  # fmt: skip
    assert videos["day 1/z.avi"]["annotations"]["file"] == "day 1/annotations.xml"
    assert done == sorted(done) and done[-1] == (8.0, 8)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_kept_of_annotations_tells_the_same(tmp_path, seed):
    rng = np.random.default_rng(seed)

    def some_track():
        frames = np.flatnonzero(rng.random(30) < rng.choice([0.1, 0.5, 1.0]))
        flags = rng.random(30) < 0.4
        kinds = ("box", "points", "mask")
        shapes = [Shape(kinds[f % 3], int(f), bool(flags[f])) for f in frames]
        return Track(str(rng.choice(["a", "b", "c"])), tuple(shapes))

    tracks = tuple(some_track() for _ in range(5))
    path = str(tmp_path / "day" / "a.xml")
    whole = Annotations("a.mp4", 30, 2, 29, W, H, tracks, path)
    facts = json.loads(json.dumps(annotation_facts(whole, tmp_path)))
    kept = annotations_of(facts, tmp_path)
    assert kept.path == path
    for labels in ("a", "b", "c"), ("a",), ("b", "c"), ("d",):
        assert event_intervals(kept, labels) == event_intervals(whole, labels)

    def problem(annotations, num_frames):
        try:
            check_frames(annotations, num_frames)
        except UserError as error:
            return str(error)
        return ""

    problems = [(problem(kept, n), problem(whole, n)) for n in range(31)]
    assert all(one == other for one, other in problems)
    assert problems[0][0] and not problems[30][0]


# --- going on -------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 3, 4, 8, 9, 11])
def test_an_interrupted_work_goes_on(shop, tmp_path, stop):
    np.save(shop / "lonely.npy", pixels(20, 9))
    whole = prepare(shop, tmp_path / "whole", bad_files="skip")
    out = tmp_path / "out"
    with pytest.raises(Killed):
        prepare(shop, out, stop_after(stop), bad_files="skip")
    assert kind_of(out) == "annotated videos"
    with pytest.raises(UserError, match=r"out' is not prepared to its end: run the sa"):
        open_folder(out, bad_files="skip")
    before = shards_of(out)
    assert prepare(shop, out, bad_files="skip") == whole
    assert {name: shards_of(out)[name] for name in before} == before
    assert contents_of(out) == contents_of(tmp_path / "whole")
    assert_same_clips(
        open_folder(out, bad_files="skip"), open_folder(shop, bad_files="skip")
    )


@pytest.mark.parametrize("report", [no_report, stop_after(5)])
def test_other_annotations_than_before_are_told(shop, tmp_path, report):
    out = tmp_path / "out"
    try:
        prepare(shop, out, report)
    except Killed:
        assert not (out / "manifest.json").exists()
    write_xml(shop / "day 0" / "1.xml", track("theft", (7, 14)))
    with pytest.raises(
        UserError,
        match=r"day 0/1.npy' has other annotations than when it was prepared in '.*out",
    ):
        prepare(shop, out)


# --- bad data -------------------------------------------------------------------------


def spoil(shop, *faults):
    """Adds videos with faults to a folder."""
    if "lonely" in faults:  # Without annotations.
        np.save(shop / "day 1" / "lonely.npy", pixels(20, 11))
    if "short" in faults:  # With those of a longer video.
        np.save(shop / "day 0" / "short.npy", pixels(20, 12))
        write_xml(shop / "day 0" / "short.xml", track("theft", (15, 30)), length=40)
    if "torn" in faults:  # Annotations that cannot be read, of two videos.
        (shop / "torn").mkdir()
        np.save(shop / "torn" / "a.npy", pixels(20, 13))
        (shop / "torn" / "annotations.xml").write_text("<annotations>")
        np.save(shop / "day 2" / "b.npy", pixels(20, 14))
        (shop / "day 2" / "b.xml").write_text("<annotations>")
    if "empty" in faults:  # A video that cannot be read at all.
        (shop / "day 2" / "empty.mkv").write_bytes(b"")
        write_xml(shop / "day 2" / "empty.xml", track("theft", (5, 9)))
    if "cut" in faults:  # Annotations tell more than there is left.
        write_avi(shop / "cut.avi", pixels(20, 15, 32, 48))
        content = (shop / "cut.avi").read_bytes()
        (shop / "cut.avi").write_bytes(content[: len(content) * 6 // 10])
        write_xml(shop / "cut.xml", track("theft", (3, 20)))
    if "nan" in faults:
        film = pixels(20, 16) / np.float32(255)
        film[6, 1, 1] = np.nan
        np.save(shop / "nan.npy", film)
        write_xml(shop / "nan.xml", track("theft", (3, 30)), length=40)


FAULTS = {
    "lonely": r"lonely\.npy' has no annotations",
    "short": r"short\.xml': track 0 \('theft'\) has a box in frame 29, .* \.\. 19",
    "torn": r"b\.xml' is not XML, or cut short",
    "empty": r"empty.mkv' cannot be read as a video",
    "cut": r"cut.avi' cannot be read as a video",
    "nan": r"nan.xml': track 0 \('theft'\) has a box in frame 29, .* \.\. 19",
}


def test_bad_data_is_named_counted_and_skipped(shop, tmp_path):
    spoil(shop, *FAULTS)
    manifest = prepare(shop, tmp_path / "out", bad_files="skip")
    problems = {
        video["name"]: video["problem"]
        for video in manifest["videos"]
        if video["problem"]
    }
    for name, words in {
        "day 1/lonely.npy": FAULTS["lonely"],
        "day 0/short.npy": FAULTS["short"],
        "torn/a.npy": r"a\.npy' has no annotations",
        "day 2/b.npy": FAULTS["torn"],
        "day 2/empty.mkv": r"empty.mkv' cannot be read",
        "cut.avi": r"the file ends early: \d+ of 20 frames can be read",
        "nan.npy": r"19 of 20 frames can be read \(.*NaN or infinite\)",
    }.items():
        assert re.search(words, problems.pop(name)), name
    assert not problems
    (sentences,) = manifest["left_out"].values()
    assert len(sentences) == 1 and "torn/annotations.xml' is not XML" in sentences[0]
    cut = next(video for video in manifest["videos"] if video["name"] == "cut.avi")
    assert manifest["counts"] == {
        "videos": 15, "videos_left_out": 5, "videos_in_part": 2,
        "other_files_left_out": 1, "frames": 160 + 20 - cut["frames_left_out"] + 19,
        "frames_left_out": 20 + cut["frames_left_out"] + 1, "frames_blank": 0,
        "videos_all_blank": 0,
    }  # fmt: skip
    for clip_stride in (0, 1):
        fields = {"bad_files": "skip", "clip_stride": clip_stride}
        expected = open_folder(shop, **fields)
        found = open_folder(tmp_path / "out", **fields)
        assert_same_clips(found, expected)
        assert found.description.replace(f"{tmp_path / 'out'},", f"{shop},") == (
            expected.description
        )
    assert "clips that cannot be read" in expected.description
    assert prepare(shop, tmp_path / "out", bad_files="skip") == manifest


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_data_is_refused(shop, tmp_path, fault):
    spoil(shop, fault)
    with pytest.raises(UserError, match=FAULTS[fault]):
        prepare(shop, tmp_path / "out")
    if fault == "torn":  # Told before a video is looked at.
        assert not (tmp_path / "out").exists()


def test_a_frame_that_cannot_be_read_is_refused(shop, tmp_path):
    spoil(shop, "nan")
    write_xml(shop / "nan.xml", track("theft", (3, 9)))
    with pytest.raises(UserError, match=r"nan.npy' cannot be read whole \(frame 6: '"):
        prepare(shop, tmp_path / "out")


def test_a_torn_shared_file_is_refused(shop, tmp_path):
    spoil(shop, "torn")
    (shop / "day 2" / "b.npy").unlink()
    with pytest.raises(UserError, match=r"torn/annotations.xml' is not XML"):
        prepare(shop, tmp_path / "out")


# --- other folders --------------------------------------------------------------------


def test_folders_without_videos(tmp_path):
    with pytest.raises(UserError, match=r"path is '.*none', but must be a folder of v"):
        prepare(tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"The folder '.*empty' holds no video"):
        prepare(tmp_path / "empty", tmp_path / "out")
    np.save(tmp_path / "empty" / "a.npy", pixels(5, 1))
    prepare(tmp_path / "empty", tmp_path / "out", bad_files="skip")
    with pytest.raises(UserError, match=r"no video with annotations in it \('.*a\.npy"):
        open_folder(tmp_path / "out", bad_files="skip")


def test_settings_that_differ_are_named(shop, tmp_path):
    prepare(shop, tmp_path / "out")
    with pytest.raises(
        UserError,
        match=r"out' was prepared with other settings.*: channels is 1 there and 3 "
        r"here, crop_box is \[\] there and \[0, 0, 4, 4\] here\.",
    ):
        open_folder(tmp_path / "out", channels=3, crop_box=(0, 0, 4, 4))


def test_a_folder_of_another_kind(shop, tmp_path):
    annotated, films = tmp_path / "annotated", tmp_path / "films"
    prepare(shop, annotated)
    settings = {**SETTINGS, "value_range": (), "variable": ""}
    prepare_videos(str(shop), films, settings=settings, report=no_report)
    with pytest.raises(
        UserError,
        match=r"films' is of the format 'convlstm_jax prepared videos', but must be "
        r"'convlstm_jax prepared annotated videos'",
    ):
        open_folder(films)
    limits = {f"num_{split}_sequences": 9 for split in ("train", "validation", "test")}
    with pytest.raises(UserError, match=r"annotated' is of the format .* annotated"):
        video_folder_sources(path=str(annotated), num_frames=4, **settings, **limits)
    with pytest.raises(UserError, match=r"films' is of the format"):
        prepare(shop, films)
    with pytest.raises(Killed):
        prepare(shop, tmp_path / "begun", stop_after(4))
    with pytest.raises(UserError, match=r"begun with .*: format is 'convlstm_jax prep"):
        prepare_videos(str(shop), tmp_path / "begun", settings=settings,
                       report=no_report)  # fmt: skip
