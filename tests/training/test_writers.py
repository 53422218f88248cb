import csv
import io
import math
import struct

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from convlstm_jax.errors import UserError
from convlstm_jax.training.writers import MetricsCsv, TensorBoard, Writers

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


def test_csv_keeps_full_precision_and_flushes_each_write(tmp_path):
    path = tmp_path / "run" / "metrics.csv"
    table = MetricsCsv(path)
    table.write(1, "train", {"loss": 0.1 + 0.2, "gradient_norm": np.float32(0.1)})
    assert path.read_text() == (
        HEADER + "1,train,loss,0.30000000000000004\n"
        "1,train,gradient_norm,0.10000000149011612\n"
    )
    table.write(2, "validation", {"a, b": math.nan, "psnr_db": math.inf})
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[3:] == [
        ["2", "validation", "a, b", "nan"],
        ["2", "validation", "psnr_db", "inf"],
    ]
    table.close()


def test_csv_continues_and_drops_later_rows_on_resume(tmp_path):
    path = tmp_path / "metrics.csv"
    table = MetricsCsv(path)
    for step in (9, 10, 11, 100):
        table.write(step, "train", {"loss": step / 3, "with, comma": 1.0})
    table.close()
    before = path.read_text().splitlines(keepends=True)

    table = MetricsCsv(path)
    table.truncate_after(10)
    assert path.read_text() == "".join(before[:5])
    table.write(11, "train", {"loss": 2.0})
    table.close()
    assert path.read_text() == "".join(before[:5]) + "11,train,loss,2.0\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.csv"]


def test_csv_drops_a_half_written_line(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(HEADER + "1,train,loss,0.25\n2,train,loss,0.1")
    table = MetricsCsv(path)
    table.write(2, "train", {"loss": 0.125})
    table.close()
    assert path.read_text() == HEADER + "1,train,loss,0.25\n2,train,loss,0.125\n"


@pytest.mark.parametrize("content", ["", "step,spl", HEADER])
def test_csv_completes_its_header(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    MetricsCsv(path).close()
    assert path.read_text() == HEADER


@pytest.mark.parametrize("content", ["epoch,loss\n1,2\n", "no table"])
def test_csv_leaves_a_foreign_file_alone(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=r"metrics\.csv must begin with the line"):
        MetricsCsv(path)
    assert path.read_text() == content


def test_csv_keeps_rows_that_are_not_ours(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(HEADER + "a remark\n1,train,loss,1.0\n5,train,loss,1.0\n")
    table = MetricsCsv(path)
    table.truncate_after(1)
    table.close()
    assert path.read_text() == HEADER + "a remark\n1,train,loss,1.0\n"


def test_tensorboard_scalars_and_purge(tmp_path):
    board = TensorBoard(tmp_path)
    board.write(7, "train", {"loss": 0.5})
    board.close()
    board = TensorBoard(tmp_path, purge_step=5)
    board.write(5, "validation", {"ssim": 0.75})
    board.close()

    events = read_events(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    scalars = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert scalars == [(7, "train/loss", 0.5), (5, "validation/ssim", 0.75)]
    started = [event.step for event in events if event.HasField("session_log")]
    assert started == [5]


def test_tensorboard_gif_is_stored_as_it_is(tmp_path):
    gif = encoded_gif(width=12, height=7)
    board = TensorBoard(tmp_path)
    board.write_gif(3, "prediction", gif)
    board.close()
    (event,) = [event for event in read_events(tmp_path) if event.summary.value]
    (value,) = event.summary.value
    assert (event.step, value.tag) == (3, "prediction")
    assert (value.image.width, value.image.height) == (12, 7)
    assert value.image.encoded_image_string == gif


def test_tensorboard_refuses_other_pictures(tmp_path):
    board = TensorBoard(tmp_path)
    with pytest.raises(ValueError, match="prediction must be an encoded GIF"):
        board.write_gif(3, "prediction", b"\x89PNG\r\n\x1a\n")
    board.close()


def test_writers_fill_both_and_resume(tmp_path):
    with Writers(tmp_path) as writers:
        writers.write(1, "train", {"loss": 1.0})
        writers.write(2, "train", {"loss": 0.5})
        writers.write_gif(2, "prediction", encoded_gif(4, 4))
        writers.close()
    with Writers(tmp_path, resumed_step=1) as writers:
        writers.write(2, "train", {"loss": 0.25})
    assert (tmp_path / "metrics.csv").read_text() == (
        HEADER + "1,train,loss,1.0\n2,train,loss,0.25\n"
    )
    events = read_events(tmp_path / "tensorboard")
    assert [v.simple_value for e in events for v in e.summary.value] == [
        1.0,
        0.5,
        0.0,  # the picture
        0.25,
    ]
    assert [e.step for e in events if e.HasField("session_log")] == [2]


def test_writers_of_other_processes_write_nothing(tmp_path):
    with Writers(tmp_path / "run", active=False) as writers:
        writers.write(1, "train", {"loss": 1.0})
        writers.write_gif(1, "prediction", encoded_gif(4, 4))
    assert not (tmp_path / "run").exists()
