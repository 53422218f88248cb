"""Labelled clips: finding files, labels by hand, splits, what is left out, mistakes."""

import pickle
import re

import av
import numpy as np
import pytest
from PIL import Image

from convlstm_jax.data.annotated_videos import open_annotated_videos
from convlstm_jax.data.clip_cutting import cut_clips, split_videos
from convlstm_jax.data.cvat import Annotations, Shape, Track, write_cvat
from convlstm_jax.data.labelled_clips import class_names, labelled_clips_sources
from convlstm_jax.data.pipeline import train_batches
from convlstm_jax.errors import UserError

SIZE = {"height": 2, "width": 3, "channels": 1}


def track(label, first, end):
    """A track that is seen in frames first .. end − 1."""
    box = ((0.0, 0.0), (1.0, 1.0))
    return Track(label, (Shape("box", first, False, box), Shape("box", end, True, box)))


def write_xml(path, *tracks, length=20, source="", **fields):
    defaults = {"start_frame": 0, "stop_frame": length - 1, "width": 3, "height": 2}
    write_cvat(path, Annotations(source, length, tracks=tracks, **(defaults | fields)))


def write_video(path, first=0, length=20):
    """A video of 2x3 pixels in which frame t has the grey value first + t."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = np.arange(first, first + length, dtype=np.uint8)
    np.save(path, np.broadcast_to(frames[:, np.newaxis, np.newaxis], (length, 2, 3)))


def write_pair(path, *tracks, first=0, length=20, **fields):
    write_video(path, first, length)
    write_xml(path.with_suffix(".xml"), *tracks, length=length, **fields)


@pytest.fixture
def folder(tmp_path):
    """Six videos of 20 frames: 0 .. 2 have a theft in frames 8 .. 13, 3 .. 5 none."""
    for number in range(6):
        tracks = [track("theft", 8, 14)] if number < 3 else []
        path = tmp_path / "shop" / f"day {number // 2}" / f"{number}.npy"
        write_pair(path, track("person", 2, 18), *tracks, first=40 * number)
    return tmp_path / "shop"


def sources(folder, **fields):
    defaults = {
        "event_labels": ("theft",),
        "num_frames": 4,
        "seed": 0,
        "validation_fraction": 0.3,
        "test_fraction": 0.3,
    }
    return labelled_clips_sources(path=str(folder), **(SIZE | defaults | fields))


def contents(source):
    """{(video, first frame): label} of all clips; checks the frames of each."""
    found = {}
    for index in range(len(source)):
        clip = source[index]
        assert clip["frames"].dtype == np.uint8
        assert clip["label"].dtype == np.int32 and clip["label"].shape == ()
        frames = clip["frames"][:, 0, 0, 0].astype(int)
        assert (clip["frames"] == frames[:, None, None, None]).all()
        np.testing.assert_array_equal(np.diff(frames), np.diff(frames)[0])
        found[divmod(int(frames[0]), 40)] = int(clip["label"])
    assert len(found) == len(source)
    return found


def test_clips_and_their_labels(folder):
    splits = sources(folder)
    found = [
        contents(getattr(splits, name)) for name in ("train", "validation", "test")
    ]
    assert splits.classes == ("normal", "theft")
    # Clips begin at 0, 4, 8, 12, 16; the theft fills the third, half of the fourth.
    labels = {0: 0, 4: 0, 8: 1, 12: 1, 16: 0}
    for clips in found:
        assert len(clips) == 10
        videos = {video for video, _ in clips}
        assert len(videos & {0, 1, 2}) == len(videos & {3, 4, 5}) == 1
        for (video, start), label in clips.items():
            assert label == (labels[start] if video < 3 else 0)
    assert len({video for clips in found for video, _ in clips}) == 6
    assert splits.class_counts == (8, 2)
    assert (splits.height, splits.width, splits.channels) == (2, 3, 1)
    assert splits.description == (
        f"6 videos with CVAT annotations in {folder}, as clips: training 2 videos with "
        "8 normal, 2 theft; validation 2 videos with 8 normal, 2 theft; test 2 videos "
        "with 8 normal, 2 theft."
    )


def test_a_part_of_the_frames(folder):
    for path in folder.rglob("*.npy"):
        film = np.load(path)
        np.save(path, np.pad(film, ((0, 0), (1, 2), (3, 0)), constant_values=255))
    splits = sources(folder, crop_box=(1, 3, 2, 3))
    assert len(contents(splits.train)) == 10  # No pixel of the frame around them.
    with pytest.raises(UserError, match=r"npy' has frames of 5x6 .* crop_box \(4, 3,"):
        sources(folder, crop_box=(4, 3, 2, 3))


def test_strides(folder):
    splits = sources(folder, frame_stride=2, clip_stride=3)
    # 7 frames long, every 6 frames of the video: 0 2 4 6, 6 8 10 12, 12 14 16 18.
    for name in ("train", "validation", "test"):
        labels = {0: 0, 6: 1}  # In 12 .. 18 only frame 12 is of the theft.
        for (video, start), label in contents(getattr(splits, name)).items():
            if video < 3:
                assert label == labels[start]
            else:
                assert start in (0, 6, 12) and label == 0
    assert splits.description.endswith("Left out: 3 clips that only touch an event.")


@pytest.mark.parametrize(
    ("interval", "label"),
    [
        ((0, 5), 1),  # All.
        ((3, 9), None),  # 2 of 5.
        ((2, 9), 1),  # 3 of 5.
        ((4, 5), None),  # 1 of 5.
        ((5, 9), 0),
    ],
)
def test_half_of_an_odd_number_of_frames(tmp_path, interval, label):
    write_pair(tmp_path / "a.npy", track("theft", *interval))
    (video,), _ = open_annotated_videos(tmp_path, **SIZE)
    clips = cut_clips(video, ["theft"], num_frames=5, frame_stride=1, clip_stride=20)
    assert clips.labelled == (() if label is None else ((0, label),))
    assert clips.num_unclear == (label is None)


def test_only_annotated_frames_are_used(tmp_path):
    write_pair(tmp_path / "a.npy", track("theft", 6, 9), start_frame=5, stop_frame=13)
    (video,), _ = open_annotated_videos(tmp_path, **SIZE)
    clips = cut_clips(video, ["theft"], num_frames=3, frame_stride=1, clip_stride=2)
    assert clips.labelled == ((5, 1), (7, 1), (9, 0), (11, 0))


def test_the_splits_depend_on_names_alone(folder):
    one = sources(folder)
    other = sources(folder, seed=7)
    for name in ("train", "validation", "test"):
        first, second = getattr(one, name), getattr(other, name)
        assert list(contents(first).items()) == list(contents(second).items())
    moved = folder.rename(folder.with_name("moved"))
    assert contents(sources(moved).test) == contents(one.test)


def test_fewer_clips_are_the_first_of_a_mixed_order(folder):
    whole = list(contents(sources(folder).train).items())
    assert [key for key, _ in whole] != sorted(key for key, _ in whole)
    part = sources(folder, num_train_sequences=7)
    assert list(contents(part.train).items()) == whole[:7]
    assert sum(part.class_counts) == 7


def test_a_source_can_be_pickled_and_batched(folder):
    train = pickle.loads(pickle.dumps(sources(folder).train))
    assert contents(train) == contents(sources(folder).train)
    batches = train_batches(train, 4, seed=0)
    batch = next(batches)
    batches.close()
    assert batch["frames"].shape == (4, 4, 2, 3, 1)
    assert batch["label"].shape == (4,) and batch["label"].dtype == np.int32


def test_clips_out_of_range(folder):
    train = sources(folder).train
    with pytest.raises(IndexError, match=r"Clip 10 is out of range: .* 10 clips"):
        train[10]
    with pytest.raises(IndexError, match="Clip -1 is out of range"):
        train[-1]


@pytest.mark.parametrize("count", range(3, 12))
@pytest.mark.parametrize("fractions", [(0.1, 0.1), (0.3, 0.2), (0.5, 0.49)])
def test_each_split_gets_its_share(count, fractions):
    names = {number: f"{number}.mp4" for number in range(2 * count)}
    events = set(range(count))
    splits = split_videos(names, events, *fractions)
    assert sorted(n for split in splits.values() for n in split) == list(names)
    for split, fraction in zip(("validation", "test"), fractions, strict=True):
        for kind in (events, set(names) - events):
            having = len(kind.intersection(splits[split]))
            assert having >= 1 and abs(having - fraction * count) <= 1.5
    for kind in (events, set(names) - events):
        assert kind.intersection(splits["training"])


def test_too_few_videos_to_share_are_for_training():
    splits = split_videos({0: "a", 1: "b", 2: "c", 3: "d", 4: "e"}, {3, 4}, 0.3, 0.3)
    assert {3, 4} <= set(splits["training"])
    assert len(splits["validation"]) == len(splits["test"]) == 1


# Finding the files.


def names_and_labels(path, **fields):
    videos, left_out = open_annotated_videos(path, **(SIZE | fields))
    found = {
        video.name: [track.label for track in video.annotations.tracks]
        for video in videos
    }
    return found, left_out


def test_annotations_of_the_same_name_and_shared_ones(tmp_path):
    write_pair(tmp_path / "own" / "a.npy", track("own", 0, 5))
    write_video(tmp_path / "own" / "b.npy")
    write_xml(tmp_path / "own" / "annotations.xml", track("b", 0, 5), source="b.npy")
    write_video(tmp_path / "stem" / "c.npy")
    write_video(tmp_path / "stem" / "d.npy")
    write_xml(tmp_path / "stem" / "d.xml")
    source = "C:\\films\\c.mp4"
    write_xml(tmp_path / "stem" / "annotations.xml", track("c", 0, 5), source=source)
    write_video(tmp_path / "alone" / "e.npy")
    write_xml(tmp_path / "alone" / "annotations.xml", track("e", 0, 5))
    write_video(tmp_path / ".hidden" / "f.npy")
    write_video(tmp_path / "alone" / ".g.npy")
    for number in range(20):
        grey = Image.fromarray(np.full((2, 3), number, np.uint8))
        (tmp_path / "pictures").mkdir(exist_ok=True)
        grey.save(tmp_path / "pictures" / f"{number}.png")
    write_xml(tmp_path / "pictures.xml", track("p", 0, 5))
    assert names_and_labels(tmp_path) == (
        {
            "alone/e.npy": ["e"],
            "own/a.npy": ["own"],
            "own/b.npy": ["b"],
            "pictures": ["p"],
            "stem/c.npy": ["c"],
            "stem/d.npy": [],
        },
        [],
    )


def test_a_shared_file_that_names_another_video(tmp_path):
    write_video(tmp_path / "a.npy")
    write_video(tmp_path / "b.npy")
    write_xml(tmp_path / "annotations.xml", source="c.npy")
    with pytest.raises(
        UserError,
        match=r"a\.npy' has no annotations, but 'a\.xml' must lie beside it, or "
        r"'annotations\.xml' with 'a\.npy' as its <source>",
    ):
        names_and_labels(tmp_path)


def test_bad_files_are_refused_or_skipped_and_told(folder):
    write_video(folder / "lonely.npy")
    write_pair(folder / "short.npy", track("theft", 25, 30), length=20, stop_frame=39)
    (folder / "short.xml").write_text(
        (folder / "short.xml").read_text().replace("<size>20", "<size>40")
    )
    write_video(folder / "torn" / "torn.npy")
    (folder / "torn" / "annotations.xml").write_text("<annotations>")
    for bad, pattern in {
        "lonely": r"lonely\.npy' has no annotations",
        "short": r"short\.xml': track 0 \('theft'\) has a box in frame 25, .* \.\. 19",
        "torn": r"annotations\.xml' is not XML, or cut short",
    }.items():
        with pytest.raises(UserError, match=pattern):
            sources(folder)
        _, left_out = open_annotated_videos(folder, **SIZE, bad_files="skip")
        assert [text for text in left_out if re.search(pattern, text)]
        for path in [*folder.glob(f"{bad}.*"), *folder.glob(f"{bad}/*")]:
            path.rename(path.with_name(f".{path.name}"))
    assert sources(folder).description.endswith("2 theft.")


def test_what_is_left_out_is_in_the_description(folder):
    for number in range(5):
        write_video(folder / f"lonely {number}.npy")
    write_pair(folder / "tiny.npy", length=3)
    description = sources(folder, bad_files="skip").description
    assert description.startswith("7 videos")
    assert "Left out: 1 videos without a clip of either class; " in description
    assert description.count("has no annotations") == 3
    assert description.endswith("; 2 more files.")


def write_avi(path, length, size=16):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width = stream.height = size
        stream.pix_fmt = "bgr0"
        stream.gop_size = 1
        noise = np.random.default_rng(0)
        for _ in range(length):
            frame = noise.integers(0, 256, (size, size, 3), np.uint8)
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def test_a_video_that_ends_early(folder):
    path = folder / "cut.avi"
    write_avi(path, 20)
    write_xml(folder / "cut.xml", track("theft", 16, 20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(UserError, match=r"cut\.avi' cannot be read as a video .* cut"):
        sources(folder)
    splits = sources(folder, bad_files="skip")
    assert "part of 'cut.avi' (the file ends early: " in splits.description
    videos, _ = open_annotated_videos(folder, **SIZE, bad_files="skip")
    video = next(video for video in videos if video.name == "cut.avi")
    clips = cut_clips(video, ["theft"], num_frames=4, frame_stride=1, clip_stride=4)
    assert 0 < video.video.num_frames < 16
    assert len(clips.labelled) == video.video.num_frames // 4
    assert clips.num_unreadable == 5 - len(clips.labelled)


# Mistakes.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"event_labels": ()}, r"event_labels is \(\), but must hold at least one"),
        ({"event_labels": ("",)}, r"event_labels is \('',\)"),
        ({"event_labels": ("normal",)}, r"event_labels is \('normal',\)"),
        (
            {"event_labels": ("theft", "robery")},
            r"event_labels holds 'robery', but no track .*; there are \['person', 'th",
        ),
        ({"num_frames": 0}, "num_frames is 0, but must be at least 1"),
        ({"frame_stride": 0}, "frame_stride is 0, but must be at least 1"),
        ({"clip_stride": -1}, "clip_stride is -1, but must be at least 0"),
        ({"num_test_sequences": 0}, "num_test_sequences is 0"),
        ({"validation_fraction": 0.0}, r"test_fraction are 0\.0 and 0\.3, but both"),
        ({"test_fraction": 0.7}, r"are 0\.3 and 0\.7, but .* sum below 1"),
        ({"bad_files": "ignore"}, "bad_files is 'ignore', but must be 'refuse' or"),
        ({"height": 0}, "height is 0"),
        (
            {"num_frames": 20},
            r"training split of .* no clip of the class 'theft', which 0 of 6 videos",
        ),
        ({"num_test_sequences": 1}, "The test split of .* would hold no clip of"),
    ],
)
def test_wrong_fields(folder, fields, message):
    with pytest.raises(UserError, match=message):
        sources(folder, **fields)


def test_wrong_folders(tmp_path):
    with pytest.raises(UserError, match=r"path is '.*none', but must be a folder"):
        sources(tmp_path / "none")
    with pytest.raises(UserError, match="there is no video with annotations in it"):
        sources(tmp_path)
    write_video(tmp_path / "a.npy")
    with pytest.raises(UserError, match=r"annotations in it \('.*a\.npy' has no ann"):
        sources(tmp_path, bad_files="skip")


def test_two_videos_with_the_event_are_too_few(folder):
    (folder / "day 0" / "0.npy").unlink()
    with pytest.raises(
        UserError,
        match=r"The validation split of .* 'theft', which 2 of 5 videos have: each",
    ):
        sources(folder)


def test_class_names():
    assert class_names(("theft",)) == ("normal", "theft")
    assert class_names(["theft", "robbery"]) == ("normal", "theft+robbery")
