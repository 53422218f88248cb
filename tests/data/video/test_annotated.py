"""Annotated films: finding files, labels by hand, splits, what is left out."""

import re

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.config import validated
from convlstm_jax.data.sources import SPLITS
from convlstm_jax.data.video.annotated import AnnotatedVideoConfig
from convlstm_jax.data.video.cvat import Shape, Track
from tests.data.video.film_files import colour_pixels, refuses
from tests.data.video.film_files import write_video as write_film

SIZE = {"height": 2, "width": 3, "channels": 1}


def track(label, first, end):
    """A track that is seen in frames first .. end − 1."""
    return Track(label, (Shape("box", first, False), Shape("box", end, True)))


def write_xml(path, *tracks, length=20, source="", start_frame=0, stop_frame=None):
    """A file of "CVAT for video 1.1"."""
    stop_frame = length - 1 if stop_frame is None else stop_frame
    shapes = [
        f'<track label="{one.label}">' + "".join(
            f'<{s.kind} frame="{s.frame}" outside="{int(s.outside)}"/>'
            for s in one.shapes
        ) + "</track>"
        for one in tracks
    ]  # fmt: skip
    path.write_text(
        f"<annotations><version>1.1</version><meta><task><size>{length}</size>"
        f"<start_frame>{start_frame}</start_frame><stop_frame>{stop_frame}</stop_frame>"
        f"<source>{source}</source></task></meta>{''.join(shapes)}</annotations>"
    )


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


def config(folder, **fields):
    defaults = {
        "event_labels": ("theft",), "validation_fraction": 0.3, "test_fraction": 0.3,
        "path": str(folder), "clip_stride": 0,
    }  # fmt: skip
    return AnnotatedVideoConfig(**SIZE | defaults | fields)


def sources(folder, num_frames=4, seed=0, **fields):
    return config(folder, **fields).sources(num_frames=num_frames, seed=seed)


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
    found = [contents(getattr(splits, name)) for name in SPLITS]
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


def test_strides(folder):
    splits = sources(folder, frame_stride=2, clip_stride=3)
    # 7 frames long, every 6 frames of the video: 0 2 4 6, 6 8 10 12, 12 14 16 18.
    for name in SPLITS:
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
        ((3, 9), None),  # 2 of 5.
        ((2, 9), 1),  # 3 of 5.
        ((5, 9), 0),
    ],
)
def test_half_of_an_odd_number_of_frames(tmp_path, interval, label):
    write_pair(tmp_path / "a.npy", track("theft", *interval))
    data = config(tmp_path, clip_stride=20)
    (pair,) = data._annotated_films()
    labelled, unused = data.cut(*pair, 5)
    assert labelled == ([] if label is None else [(0, label)])
    assert unused.total() == (label is None)


def test_only_annotated_frames_are_used(tmp_path):
    write_pair(tmp_path / "a.npy", track("theft", 6, 9), start_frame=5, stop_frame=13)
    data = config(tmp_path, clip_stride=2)
    (pair,) = data._annotated_films()
    assert data.cut(*pair, 3)[0] == [(5, 1), (7, 1), (9, 0), (11, 0)]


# Finding the files.


def names_and_labels(path, **fields):
    films = config(path, **fields)._annotated_films()
    found = {
        film.name: [track.label for track in annotations.tracks]
        for film, annotations in films
        if annotations is not None
    }
    return found, [film.problem for film, _ in films if film.problem]


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
    with refuses(
        r"a\.npy' has no annotations, but 'a\.xml' must lie beside it, or "
        r"'annotations\.xml' with 'a\.npy' as its <source>"
    ):
        names_and_labels(tmp_path)


def test_bad_files_are_refused_or_skipped_and_told(folder):
    write_video(folder / "lonely.npy")
    write_video(folder / "short.npy")
    write_xml(folder / "short.xml", track("theft", 25, 30), length=40)
    write_video(folder / "torn" / "torn.npy")
    (folder / "torn" / "annotations.xml").write_text("<annotations>")
    write_pair(folder / "tiny.npy", length=3)
    description = sources(folder, bad_files="skip").description
    assert description.startswith("7 videos")
    assert "; 1 video without a clip of either class (first: tiny.npy)." in description
    assert "Left out: 3 videos that cannot be used (first: '" in description
    for bad, pattern in {
        "lonely": r"lonely\.npy' has no annotations",
        "torn": r"annotations\.xml' is not XML, or cut short",
        "short": r"short\.xml': track 0 \('theft'\) has a box in frame 25, .* \.\. 19",
    }.items():
        with refuses(pattern):
            sources(folder)
        _, left_out = names_and_labels(folder, bad_files="skip")
        assert [text for text in left_out if re.search(pattern, text)]
        for path in [*folder.glob(f"{bad}.*"), *folder.glob(f"{bad}/*")]:
            path.rename(path.with_name(f".{path.name}"))
    assert "cannot be used" not in sources(folder).description


def test_a_video_that_ends_early(folder):
    path = write_film(folder / "cut.avi", colour_pixels(20), "ffv1", "bgr0", g="1")
    write_xml(folder / "cut.xml", track("theft", 16, 20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with refuses(r"cut\.avi' cannot be read whole: .* cut"):
        sources(folder)
    splits = sources(folder, bad_files="skip")
    assert "1 video in part (first: cut.avi: " in splits.description
    data = config(folder, bad_files="skip")
    pair = next(one for one in data._annotated_films() if one[0].name == "cut.avi")
    labelled, unused = data.cut(*pair, 4)
    assert 0 < pair[0].num_frames < 16
    assert len(labelled) == pair[0].num_frames // 4
    assert unused == {"that cannot be read": 5 - len(labelled)}


# Mistakes.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"event_labels": ()}, r"event_labels is \(\): it must hold at least one"),
        ({"event_labels": ("normal",)}, r"event_labels is \('normal',\)"),
        ({"condition": "folder"}, "condition is not a field with name='annotated_v"),
    ],
)
def test_wrong_fields(fields, message):
    values = {"path": "a", "name": "annotated_video"} | fields
    _, problems = validated(AnnotatedVideoConfig, values)
    assert len(problems) == 1 and re.search(message, problems[0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"event_labels": ("theft", "robery")},
            r"event_labels holds 'robery', but no track .*; there are \['person', 'th",
        ),
        (
            {"num_frames": 20},
            r"training split of .* no clip of the class 'theft', which 0 of 6 videos",
        ),
        ({"num_test_sequences": 1}, "The test split of .* would hold no clip of"),
    ],
)
def test_what_does_not_fit_the_folder(folder, fields, message):
    with refuses(message):
        sources(folder, **fields)


def test_wrong_folders(tmp_path):
    with refuses(r"path is '.*none', but must be a folder"):
        sources(tmp_path / "none")
    with refuses(r"The folder '.*' holds no video"):
        sources(tmp_path)
    write_video(tmp_path / "a.npy")
    with refuses(r"no video in it can be used: .*a\.npy' has no"):
        sources(tmp_path, bad_files="skip")


# Prepared folders.


def test_a_prepared_folder_gives_the_same(folder, tmp_path):
    write_video(folder / "lonely.npy")  # Without annotations.
    write_video(folder / "short.npy")  # With those of a longer film.
    write_xml(folder / "short.xml", track("theft", 15, 30), length=40)
    (folder / "empty.mkv").write_bytes(b"")  # That cannot be read at all.
    write_xml(folder / "empty.xml", track("theft", 5, 9))
    out = tmp_path / "out"
    fields = {"clip_stride": 1, "frame_stride": 2, "bad_files": "skip"}
    manifest = config(folder, **fields).prepare(out)
    problems = {item.name: item.facts["problem"] for item in manifest.items}
    assert "has no annotations" in problems["lonely.npy"]
    assert "cannot be read" in problems["empty.mkv"]
    (told,) = (text for text in names_and_labels(out, **fields)[1] if "short" in text)
    assert "short.xml' annotates the frames 0 .. 39" in told
    expected, found = sources(folder, **fields), sources(out, **fields)
    for name in SPLITS:
        first, second = getattr(expected, name), getattr(found, name)
        assert list(contents(first).items()) == list(contents(second).items())
    assert found.description.replace(str(out), str(folder)) == expected.description


def test_other_annotations_than_before_are_told(folder, tmp_path):
    config(folder).prepare(tmp_path / "out")
    write_xml(folder / "day 0" / "1.xml", track("theft", 7, 14))
    with refuses(r"videos \('day 0/1.npy' has changed since\)"):
        config(folder).prepare(tmp_path / "out")
