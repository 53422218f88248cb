import csv
import io
import math
import struct

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from convlstm_jax.errors import UserError
from convlstm_jax.training.writers import Writers

HEADER = "step,split,metric,value\n"


def read_events(logdir):
    """All events of a folder, in the order of its files; see the TFRecord format."""
    events = []
    for path in sorted(logdir.iterdir()):
        content, position = path.read_bytes(), 0
        while position < len(content):
            (length,) = struct.unpack_from("<Q", content, position)
            start = position + 12  # length and its checksum
            events.append(event_pb2.Event.FromString(content[start : start + length]))
            position = start + length + 4
    return events


def encoded_gif(width, height):
    frames = [Image.new("L", (width, height), color) for color in (0, 128, 255)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def open_writers(folder, start_step=0):
    return Writers(folder, start_step=start_step)


def test_csv_keeps_full_precision_and_flushes_each_write(tmp_path):
    path = tmp_path / "run" / "metrics.csv"
    with open_writers(tmp_path / "run") as writers:
        values = {"loss": 0.1 + 0.2, "gradient_norm": np.float32(0.1)}
        writers.write(1, "train", values)
        assert path.read_text() == (
            HEADER + "1,train,loss,0.30000000000000004\n"
            "1,train,gradient_norm,0.10000000149011612\n"
        )
        writers.write(2, "validation", {"a, b": math.nan, "psnr_db": math.inf})
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[3:] == [
        ["2", "validation", "a, b", "nan"],
        ["2", "validation", "psnr_db", "inf"],
    ]


def test_csv_continues_and_drops_later_rows_on_resume(tmp_path):
    path = tmp_path / "metrics.csv"
    with open_writers(tmp_path) as writers:
        for step in (9, 10, 11, 100):
            writers.write(step, "train", {"loss": step / 3, "with, comma": 1.0})
    before = path.read_text().splitlines(keepends=True)

    with open_writers(tmp_path, start_step=10) as writers:
        assert path.read_text() == "".join(before[:5])
        writers.write(11, "train", {"loss": 2.0})
    assert path.read_text() == "".join(before[:5]) + "11,train,loss,2.0\n"
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["metrics.csv", "tensorboard"]


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        # A half-written line, and headers to complete.
        (
            HEADER + "1,train,loss,0.25\n2,train,loss,0.1",
            HEADER + "1,train,loss,0.25\n",
        ),
        ("", HEADER),
        ("step,spl", HEADER),
        (HEADER, HEADER),
        # Rows that are not ours stay.
        (
            HEADER + "a remark\n1,train,loss,1.0\n5,train,loss,1.0\n",
            HEADER + "a remark\n1,train,loss,1.0\n",
        ),
    ],
)
def test_csv_keeps_what_is_complete_and_not_later(tmp_path, content, kept):
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    open_writers(tmp_path, start_step=1).close()
    assert path.read_text() == kept


@pytest.mark.parametrize("content", [b"epoch,loss\n1,2\n", b"no table", b"\xff\n\xfe"])
def test_csv_leaves_a_foreign_file_alone(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"metrics\.csv' begins with .*: it must be a"):
        open_writers(tmp_path)
    assert path.read_bytes() == content


def test_tensorboard_refuses_other_pictures(tmp_path):
    with (
        open_writers(tmp_path) as writers,
        pytest.raises(ValueError, match=r"prediction begins with .* be an encoded GIF"),
    ):
        writers.write_gif(3, "prediction", b"\x89PNG\r\n\x1a\n")


def test_writers_fill_both_and_resume(tmp_path):
    gif = encoded_gif(width=12, height=7)
    with open_writers(tmp_path) as writers:
        writers.write(1, "train", {"loss": 1.0})
        writers.write(2, "train", {"loss": 0.5})
        writers.write_gif(2, "prediction", gif)
        writers.close()
    with open_writers(tmp_path, start_step=1) as writers:
        writers.write(2, "validation", {"ssim": 0.25})
    assert (tmp_path / "metrics.csv").read_text() == (
        HEADER + "1,train,loss,1.0\n2,validation,ssim,0.25\n"
    )
    events = read_events(tmp_path / "tensorboard")
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    values = [(e.step, v) for e in events for v in e.summary.value]
    assert [(step, value.tag, value.simple_value) for step, value in values] == [
        (1, "train/loss", 1.0),
        (2, "train/loss", 0.5),
        (2, "prediction", 0.0),
        (2, "validation/ssim", 0.25),
    ]
    picture = values[2][1].image
    assert (picture.width, picture.height) == (12, 7)
    assert picture.encoded_image_string == gif
    # TensorBoard hides what earlier files hold from these steps on.
    assert [e.step for e in events if e.HasField("session_log")] == [1, 2]


def test_writers_of_other_processes_write_nothing(tmp_path):
    with Writers(tmp_path / "run", start_step=0, active=False) as writers:
        writers.write(1, "train", {"loss": 1.0})
        writers.write_gif(1, "prediction", encoded_gif(4, 4))
    assert not (tmp_path / "run").exists()
