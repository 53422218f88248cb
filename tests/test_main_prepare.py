"""`--mode=prepare` as a user runs it: prepare, kill, go on, train from the result."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from convlstm_jax.cli import build, workdir
from convlstm_jax.cli.entry import load_config
from convlstm_jax.cli.flags import parse
from convlstm_jax.data import preparing
from convlstm_jax.viz.clip_writer import write_clip
from tests.program import run

ROOT = Path(__file__).resolve().parent.parent
SIZE = ["--config.data.height=16", "--config.data.width=24"]
CONFIG = [
    "--config=configs/moving_mnist.py:quick", *SIZE,
    "--config.task.num_input_frames=3", "--config.task.num_output_frames=2",
]  # fmt: skip

DIGITS = ["--config.data.height=32", "--config.data.width=40"]


pytestmark = pytest.mark.usefixtures("at_root")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Eight short videos of squares that move."""
    folder = tmp_path_factory.mktemp("own") / "films"
    folder.mkdir()
    for number in range(8):
        film = np.zeros((24, 32, 48, 1), np.float32)
        for time_step in range(24):
            row, column = (number + time_step) % 24, (3 * number + 2 * time_step) % 40
            film[time_step, row : row + 8, column : column + 8] = 1 - number / 16
        write_clip(folder / f"flow{number % 4}_take{number}.mp4", film)
    return folder


def sources_of(path, *more):
    return build.build_sources(
        load_config(parse([*CONFIG, f"--config.data.path={path}", *more]))
    )


def assert_same_clips(one, other):
    for split in ("train", "validation", "test"):
        first, second = getattr(one, split), getattr(other, split)
        assert len(first) == len(second) > 0
        for index in range(len(first)):
            np.testing.assert_array_equal(
                first[index]["frames"], second[index]["frames"]
            )


MORE = [r"--config.data.condition=(flow\d)", "--config.data.split_by=condition"]


def test_prepare(films, tmp_path, capsys):
    out = tmp_path / "prepared"
    prepare = ["--mode=prepare", *CONFIG, f"--config.data.path={films}", *MORE]
    assert run(*prepare, f"--output={out}") == 0
    printed = capsys.readouterr()
    assert f"{out}: 192 frames of 8 videos in 1 shards" in printed.out
    assert (
        f"Videos of '{out}': 8 videos, split by condition (4 train, 2 validation"
        in (printed.out)
    )
    assert_same_clips(sources_of(out, *MORE), sources_of(films, *MORE))
    assert run(*prepare, f"--output={out}") == 0  # Nothing to do, and said as before.
    assert capsys.readouterr().out == printed.out


@pytest.mark.slow
def test_a_film_of_predictions_from_a_prepared_folder(films, tmp_path, capsys):
    out, folder = tmp_path / "prepared", tmp_path / "run"
    prepare = ["--mode=prepare", *CONFIG, f"--config.data.path={films}", *MORE]
    assert run(*prepare, f"--output={out}") == 0
    train = [
        *CONFIG, f"--config.data.path={out}", *MORE, f"--workdir={folder}",
        "--config.model.features=4", "--config.train.num_steps=2",
        "--config.train.eval_every_steps=2", "--config.train.batch_size=8",
        "--config.train.num_validation_sequences=4", "--config.eval.num_sequences=4",
        "--config.train.num_pictures=0", "--config.eval.num_pictures=1",
    ]  # fmt: skip
    assert run(*train) == 0
    results = json.loads((folder / "evaluation.json").read_text())
    assert results["data"]["description"].startswith(f"Videos of '{out}': 8 videos")
    film, prediction = next(films.iterdir()), tmp_path / "next.gif"
    assert run("--mode=predict", f"--workdir={folder}", f"--input={film}",
               f"--output={prediction}", "--num_frames=4") == 0  # fmt: skip
    assert prediction.stat().st_size > 100

    capsys.readouterr()
    for number, field in enumerate(("height=20", "crop_box=0,0,8,8", "bad_files=skip")):
        other = f"--workdir={tmp_path / f'other{number}'}"
        assert run(*train, f"--config.data.{field}", other) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: '{out}' was prepared with other settings")
        assert f": {field.split('=')[0]} is " in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            DIGITS,
            "config.data.path is '': --mode=prepare needs a folder of videos with "
            "config.task.name='forecast'",
        ),
        (["--config.data.path={films}", "--output={films}/out"], "/out lies in config"),
        (["--config.data.path={films}", "--output={here}/file"], "/file is a file: it"),
        (
            ["--config.data.path={films}", "--config.data.num_train_sequences=0"],
            "config.data.num_train_sequences is 0",
        ),
        (
            ["--config.data.path={films}", "--config.task.num_output_frames=90"],
            "No video of '{here}/out' can be used: 8 videos without 93 frames",
        ),
    ],
)
def test_mistakes_are_told_in_one_sentence(films, tmp_path, capsys, arguments, message):
    (tmp_path / "file").write_text("")
    places = {"films": films, "here": tmp_path}
    more = [argument.format(**places) for argument in arguments]
    assert run("--mode=prepare", *CONFIG, f"--output={tmp_path / 'out'}", *more) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message.format(**places) in error


def test_two_works_on_one_folder(films, tmp_path, capsys):
    prepare = ["--mode=prepare", *CONFIG, f"--config.data.path={films}"]
    with workdir.locked(tmp_path):
        assert run(*prepare, f"--output={tmp_path}") == 2
    error = capsys.readouterr().err
    assert f"another --mode=prepare is running in --output={tmp_path}: wait" in error


def test_a_prepared_folder_is_not_prepared_again(films, tmp_path, capsys):
    prepare = ["--mode=prepare", *CONFIG]
    path = f"--config.data.path={films}"
    assert run(*prepare, path, f"--output={tmp_path / 'one'}") == 0
    path = f"--config.data.path={tmp_path / 'one'}"
    assert run(*prepare, path, f"--output={tmp_path / 'two'}") == 2
    assert (
        "which is a prepared folder already: --mode=prepare needs the folder of videos"
        in capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_work_goes_on(films, tmp_path, monkeypatch, number):
    """Killed twice in the midst; what was whole is not done again."""
    # Small shards, and a disk so slow that one can kill in time.
    script = (
        "import sys, time\n"
        "from convlstm_jax.cli.entry import main\n"
        "from convlstm_jax.data import preparing, shard_writer\n"
        f"preparing.SHARD_BYTES = {10 * 16 * 24}\n"
        "finish = shard_writer.ShardWriter.finish\n"
        "def slow(self):\n"
        "    time.sleep(0.05)\n"
        "    return finish(self)\n"
        "shard_writer.ShardWriter.finish = slow\n"
        "sys.exit(main(['main.py', *sys.argv[1:]]))\n"
    )
    out = tmp_path / "out"
    command = [
        sys.executable, "-c", script, "--mode=prepare", *CONFIG,
        f"--config.data.path={films}",
    ]  # fmt: skip

    def start(folder):
        return subprocess.Popen(
            [*command, f"--output={folder}"], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ),
        )  # fmt: skip

    def shards():
        return {
            path.name: (path.stat().st_mtime_ns, path.read_bytes())
            for path in out.glob("shard-*")
        }

    before = {}
    for shard in (4, 11):
        process = start(out)
        while not (out / f"shard-{shard:05d}.array_record").exists():
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.005)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=60)
        if number == signal.SIGTERM:
            assert process.returncode == 130
            assert f"stopped: the same command goes on in {out}" in printed
        else:
            assert process.returncode == -number
        assert not (out / "manifest.json").exists(), "killed too late"
        now = shards()
        lines = (out / "progress.jsonl").read_text().splitlines()[1:]
        done = [f"shard-{index:05d}.array_record" for index in range(len(lines))]
        assert {name: now[name] for name in before} == before
        before = {name: now[name] for name in done}
    process = start(out)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    after = shards()
    assert {name: after[name] for name in before} == before
    assert "192 frames of 8 videos in 20 shards" in printed
    monkeypatch.setattr(preparing, "SHARD_BYTES", 10 * 16 * 24)
    assert run(*command[3:], f"--output={tmp_path / 'whole'}") == 0
    manifests = [
        json.loads((folder / "manifest.json").read_text())
        for folder in (out, tmp_path / "whole")
    ]
    assert manifests[0] == manifests[1]
    for name, (_, content) in after.items():
        assert content == (tmp_path / "whole" / name).read_bytes()
    assert_same_clips(sources_of(out), sources_of(films))
