"""CVAT's XML: what CVAT itself writes, event intervals, mistakes."""

import json
import os

import numpy as np
import pytest

from convlstm_jax.data.video.cvat import (
    Annotations,
    Shape,
    Track,
    check_frames,
    event_frames,
    read_cvat,
)
from convlstm_jax.errors import UserError
from tests.data.video.film_files import refuses

# In the words and order of CVAT's own export of a task.
EXPORT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <size>40</size>
      <start_frame>0</start_frame>
      <stop_frame>39</stop_frame>
      <frame_filter></frame_filter>
      <labels>
        <label>
          <name>theft</name>
          <attributes/>
        </label>
      </labels>
      <source>shop 1.mp4</source>
    </task>
    <dumped>2024-05-01 10:00:00.000000+00:00</dumped>
  </meta>
  <track id="0" label="theft" source="manual">
    <box frame="12" keyframe="1" outside="0" occluded="0" xtl="10.50" ytl="20.00" \
xbr="110.25" ybr="220.00" z_order="0">
      <attribute name="sure">yes</attribute>
    </box>
    <box frame="13" keyframe="0" outside="0" occluded="1" xtl="12.50" ytl="20.00" \
xbr="112.25" ybr="220.00" z_order="0"/>
    <box frame="20" keyframe="1" outside="1" occluded="0" xtl="12.50" ytl="20.00" \
xbr="112.25" ybr="220.00" z_order="0"/>
  </track>
  <track id="1" label="hand" source="manual">
    <points frame="3" keyframe="1" outside="0" occluded="0" \
points="1.00,2.00;3.50,4.25" z_order="0"/>
  </track>
  <track id="2" label="pose" source="manual">
    <skeleton frame="5" keyframe="1" z_order="0">
      <points label="a" keyframe="1" outside="1" occluded="0" points="1.0,2.0"/>
      <points label="b" keyframe="1" outside="0" occluded="0" points="1.0,2.0"/>
    </skeleton>
    <skeleton frame="9" keyframe="1" z_order="0">
      <points label="a" keyframe="1" outside="1" occluded="0" points="1.0,2.0"/>
      <points label="b" keyframe="1" outside="1" occluded="0" points="1.0,2.0"/>
    </skeleton>
  </track>
</annotations>
"""


def intervals(annotations, labels):
    """The frames of an event as half-open intervals."""
    seen = event_frames(annotations, labels)
    assert seen.shape == (annotations.stop_frame + 1,)
    edges = np.flatnonzero(np.diff(seen, prepend=False, append=False))
    return [tuple(pair) for pair in edges.reshape(-1, 2).tolist()]


@pytest.fixture
def read(tmp_path):
    def read(*replacements, text=EXPORT):
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "shop 1.xml"
        path.write_text(text, encoding="utf-8")
        return read_cvat(path)

    return read


def track(label, *shapes, kind="mask"):
    """Shapes as (frame, outside)."""
    return Track(label, tuple(Shape(kind, *shape) for shape in shapes))


def annotations(*tracks, **fields):
    defaults = {"source": "a", "start_frame": 0, "stop_frame": 49, "path": "a.xml"}
    return Annotations(tracks=tracks, **(defaults | fields))


def test_reads_what_cvat_writes(read):
    assert read() == annotations(
        track("theft", (12, False), (13, False), (20, True), kind="box"),
        track("hand", (3, False), kind="points"),
        track("pose", (5, False), (9, True), kind="skeleton"),
        source="shop 1.mp4",
        stop_frame=39,
    )


def test_reads_the_export_of_a_job(read):
    # A job's frames are counted in the video too; its source is not told.
    job = read(
        ("<task>", "<job>"),
        ("</task>", "</job>"),
        ("<start_frame>0", "<start_frame>3"),
        ("<stop_frame>39</stop_frame>", ""),
        ("<source>shop 1.mp4</source>", ""),
    )
    assert (job.source, job.start_frame, job.stop_frame) == ("", 3, 42)


def test_frames_left_out_of_a_task(read):
    # Every fifth frame of the video, from the second one on: 2, 7, ... 197.
    task = read(
        ("<start_frame>0", "<start_frame>2"),
        ("<stop_frame>39", "<stop_frame>198"),
        ("<frame_filter>", "<frame_filter>step=5"),
        ('frame="20"', 'frame="203"'),  # Closes the track, one step behind the end.
    )
    assert intervals(task, ["theft"]) == [(12, 199)]


def test_intervals_open_and_close_and_open_again():
    seen = annotations(
        track("theft", (3, True), (5, False), (6, False), (9, True), (30, False)),
        track("walk", (0, False)),
        track("robbery", (8, False), (12, True)),
    )
    assert intervals(seen, ["theft"]) == [(5, 9), (30, 50)]
    assert intervals(seen, ["walk"]) == [(0, 50)]
    assert intervals(seen, ["theft", "robbery"]) == [(5, 12), (30, 50)]
    assert intervals(seen, ["other"]) == []


def test_frames_that_the_video_lacks():
    tracks = track("a", (2, False)), track("theft", (7, False), (40, True))
    seen = annotations(*tracks, stop_frame=7)
    check_frames(seen, 8)
    with refuses(
        r"'a.xml': track 1 \('theft'\) has a mask in frame 7, but .* 0 \.\. 6"
    ):
        check_frames(seen, 7)
    longer = annotations(*tracks, stop_frame=10)
    check_frames(longer, 8)  # As decoders do not count alike.
    with refuses(r"the frames 0 \.\. 11, but .* 0 \.\. 7 only"):
        check_frames(annotations(*tracks, stop_frame=11), 8)


ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 9))
BOMB = (
    f'<!DOCTYPE annotations [<!ENTITY e0 "{"a" * 99}">{ENTITIES}]>'
    "<annotations><version>&e8;</version></annotations>"
)
BOX = '<box frame="12"'


@pytest.mark.parametrize(
    ("replacements", "message"),
    [
        ([("<version>1.1", "<version>2.0")], r"the version '2\.0', but .* video 1\.1"),
        (
            [("<track", "<image id='0'/><track")],
            "<image> elements: it is .CVAT for images",
        ),
        ([("<task>", "<project>"), ("</task>", "</project>")], "no <task> or <job>"),
        ([("<size>40</size>", "")], "no value for <size>, but .* at least 1"),
        ([("<size>40", "<size>0")], "'0' for <size>"),
        ([("<stop_frame>39", "<stop_frame>x")], "'x' for <stop_frame>"),
        ([("<frame_filter>", "<frame_filter>step=0")], "'0' for the step of <frame_f"),
        ([(' label="theft"', "")], "track 0 has no label"),
        ([(BOX, "<box")], r"track 0 \('theft'\) has no value for the frame"),
        ([(BOX, '<box frame="-1"')], "'-1' for the frame of a box"),
        ([(BOX, '<box frame="40"')], r"box in frame 40, but .* 0 \.\. 39"),
        ([("<size>40", "<size>12")], r"box in frame 12, but .* 0 \.\. 11"),
        ([('outside="0"', 'outside="no"')], "outside='no' in frame 12"),
    ],
)
def test_mistakes_name_the_file_and_the_field(read, replacements, message):
    with refuses(rf"shop 1\.xml'.*{message}"):
        read(*replacements)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not XML, or cut short"),
        ("frame,label\n1,theft\n", "is not XML, or cut short"),
        (EXPORT[:-40], "is not XML, or cut short"),
        (EXPORT.replace("utf-8", "utf-99"), "is not XML, or cut short"),
        (BOMB, r"is not XML, or cut short \(limit on input amplification"),
        ("<opencv_storage/>", "the root element <opencv_storage> .* must be CVAT's"),
        ("<annotations/>", "<annotations> and the version '', but must be CVAT"),
    ],
)
def test_files_that_are_no_annotations(read, text, message):
    with refuses(rf"shop 1\.xml'.*{message}"):
        read(text=text)


def test_a_file_that_cannot_be_read(tmp_path):
    with refuses(r"none\.xml' cannot be read \(No such file"):
        read_cvat(tmp_path / "none.xml")
    os.mkfifo(tmp_path / "a.xml")
    with refuses(r"a\.xml' cannot be read: it must be a reg"):
        read_cvat(tmp_path / "a.xml")


@pytest.mark.parametrize("seed", range(3))
def test_what_a_manifest_keeps_tells_the_same(seed):
    rng = np.random.default_rng(seed)

    def some_track():
        frames = np.flatnonzero(rng.random(30) < rng.choice([0.1, 0.5, 1.0]))
        flags = rng.random(30) < 0.4
        kinds = ("box", "points", "mask")
        shapes = [Shape(kinds[f % 3], int(f), bool(flags[f])) for f in frames]
        return Track(str(rng.choice(["a", "b", "c"])), tuple(shapes))

    whole = annotations(*(some_track() for _ in range(5)), start_frame=2, stop_frame=29)
    kept = Annotations.from_json(json.loads(json.dumps(whole.as_json())))
    assert kept.path == whole.path
    for labels in ("a", "b", "c"), ("a",), ("b", "c"), ("d",):
        assert intervals(kept, labels) == intervals(whole, labels)

    def problem(annotations, num_frames):
        try:
            check_frames(annotations, num_frames)
        except UserError as error:
            return str(error)
        return ""

    problems = [(problem(kept, n), problem(whole, n)) for n in range(31)]
    assert all(one == other for one, other in problems)
    assert problems[0][0] and not problems[30][0]
