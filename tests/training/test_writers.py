import io
import math
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from convlstm_jax.errors import UserError
from convlstm_jax.training.writers import Writers

ROOT = Path(__file__).parents[2]
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


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        # A half-written line, and headers to complete.
        ("1,train,loss,0.25\n2,train,loss,0.1", "1,train,loss,0.25\n"),
        ("", ""),
        # Rows that are not ours stay.
        ("a remark\n1,a,b,1.0\n5,a,b,1.0\n", "a remark\n1,a,b,1.0\n"),
    ],
)
def test_csv_keeps_what_is_complete_and_not_later(tmp_path, content, kept):
    path = tmp_path / "metrics.csv"
    for found, expected in ((HEADER + content, HEADER + kept), ("step,spl", HEADER)):
        path.write_text(found)
        with Writers(tmp_path, start_step=1):
            pass
        assert path.read_text() == expected


def test_pytorch_is_not_imported_for_tensorboard():
    """It would take longer than everything else that a start imports."""
    code = (
        "import sys, convlstm_jax.training.writers; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("content", [b"epoch,loss\n1,2\n", b"\xff\n\xfe"])
def test_csv_leaves_a_foreign_file_alone(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"metrics\.csv' begins with .*: it must be a"):
        Writers(tmp_path, start_step=0)
    assert path.read_bytes() == content


def test_writers_fill_both_and_resume(tmp_path):
    folder = tmp_path / "run"
    gif = encoded_gif(width=12, height=7)
    with Writers(folder, start_step=0) as writers:
        writers.write(1, "train", {"loss": 0.1 + 0.2, "a, b": np.float32(0.1)})
        first = HEADER + (
            '1,train,loss,0.30000000000000004\n1,train,"a, b",0.10000000149011612\n'
        )
        assert (folder / "metrics.csv").read_text() == first  # At once.
        for step in (2, 10):
            writers.write(step, "train", {"loss": math.nan})
        writers.write_gif(2, "prediction", gif)
    with Writers(folder, start_step=1) as writers:
        writers.write(2, "validation", {"psnr_db": math.inf})
    assert (folder / "metrics.csv").read_text() == first + "2,validation,psnr_db,inf\n"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["metrics.csv", "tensorboard"]
    assert len(list((folder / "tensorboard").iterdir())) == 2
    events = read_events(folder / "tensorboard")
    values = [(e.step, v) for e in events for v in e.summary.value]
    assert [(step, value.tag) for step, value in values] == [
        (1, "train/loss"),
        (1, "train/a__b"),
        (2, "train/loss"),
        (10, "train/loss"),
        (2, "prediction"),
        (2, "validation/psnr_db"),
    ]
    assert values[0][1].simple_value == np.float32(0.3)
    picture = values[4][1].image
    assert (picture.width, picture.height) == (12, 7)
    assert picture.encoded_image_string == gif
    # TensorBoard hides what earlier files hold from these steps on.
    assert [e.step for e in events if e.HasField("session_log")] == [1, 2]


def test_writers_of_other_processes_write_nothing(tmp_path):
    with Writers(tmp_path / "run", start_step=0, active=False) as writers:
        writers.write(1, "train", {"loss": 1.0})
        writers.write_gif(1, "prediction", encoded_gif(4, 4))
    assert not (tmp_path / "run").exists()
