"""`--mode=prepare` of annotated films and of radar composites, as a user runs it."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from tests.data.prepared_folders import assert_same_clips, contents_of

from convlstm_jax.cli import build
from convlstm_jax.cli.entry import load_config
from convlstm_jax.cli.flags import parse
from convlstm_jax.data import preparing, theft_videos
from tests.program import run

ROOT = Path(__file__).resolve().parent.parent
SHORT = [
    "--config.model.features=2,2", "--config.train.num_steps=2",
    "--config.train.batch_size=8", "--config.train.eval_every_steps=2",
    "--config.train.num_validation_sequences=8", "--config.train.num_pictures=0",
    "--config.eval.num_sequences=8", "--config.eval.batch_size=8",
    "--config.eval.num_pictures=0",
]  # fmt: skip
CLIPS = [
    "--config=configs/clip_classification.py:quick",
    "--config.task.num_input_frames=4", "--config.data.height=16",
    "--config.data.width=24", "--config.data.clip_stride=0",
]  # fmt: skip
RADAR = [
    "--config=configs/radar_nowcasting.py:quick", "--config.task.num_input_frames=2",
    "--config.task.num_output_frames=3", "--config.data.height=8",
    "--config.data.width=12", "--config.data.downsample=2",
    "--config.data.test_conditions=2017-05-09", "--config.eval.rain_thresholds=0.5,5",
]  # fmt: skip


pytestmark = pytest.mark.usefixtures("at_root", "quick_to_compile")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "shop"
    theft_videos.write_theft_videos(folder, height=32, width=40, num_videos=8)
    return folder


@pytest.fixture(scope="module")
def radar(tmp_path_factory):
    """Drifting rain with a corner without data, as gzip PGM files of two days."""
    folder = tmp_path_factory.mktemp("own") / "radar"
    folder.mkdir()
    for start, count in (("201609281445", 22), ("201705091045", 9)):
        rng = np.random.default_rng(count)
        frame = rng.integers(70, 150, (26, 40), np.uint8)
        for index in range(count):
            moved = np.roll(frame, index, axis=1)
            moved[:6, :6] = 255
            at = datetime.strptime(start, "%Y%m%d%H%M") + timedelta(minutes=5 * index)
            data = b"P5 40 26 255\n" + moved.tobytes()
            (folder / f"{at:%Y%m%d%H%M}.pgm.gz").write_bytes(gzip.compress(data))
    return folder


@pytest.fixture(params=["shop", "radar"])
def task(request):
    """The folder, the config that suits it, and the words for what is in it."""
    folder = request.getfixturevalue(request.param)
    if request.param == "shop":
        return folder, CLIPS, "annotated videos", "8 videos"
    return folder, RADAR, "radar composites", "31 frames of 31 composites"


def sources_of(config, path, *more):
    return build.build_sources(
        load_config(parse([*config, f"--config.data.path={path}", *more]))
    )


def test_prepare(task, tmp_path, capsys):
    folder, config, _, counted = task
    out = tmp_path / "prepared"
    prepare = ["--mode=prepare", *config, f"--config.data.path={folder}"]
    assert run(*prepare, f"--output={out}") == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{out}: ") and f"{counted} in 1 shards" in (
        printed.out
    )
    found, expected = sources_of(config, out), sources_of(config, folder)
    assert_same_clips(found, expected)
    assert printed.out.splitlines()[-1] == found.description
    assert found.description.replace(str(out), str(folder)) == expected.description
    assert run(*prepare, f"--output={out}") == 0  # Nothing to do, and said as before.
    assert capsys.readouterr().out == printed.out


@pytest.mark.slow
def test_training_and_figures_are_those_of_the_folder(task, tmp_path):
    folder, config, _, _ = task
    out = tmp_path / "prepared"
    prepare = ["--mode=prepare", *config, f"--config.data.path={folder}"]
    assert run(*prepare, f"--output={out}") == 0
    results, weights = [], []
    for name, path in (("raw", folder), ("shards", out)):
        workdir = tmp_path / name
        arguments = [*config, *SHORT, f"--config.data.path={path}"]
        assert run(*arguments, f"--workdir={workdir}") == 0
        evaluation = json.loads((workdir / "evaluation.json").read_text())
        results.append(evaluation["model"])
        lines = (workdir / "metrics.csv").read_text().splitlines()
        weights.append([line for line in lines if "loss" in line])
    assert results[0] == results[1]
    assert weights[0] == weights[1] and weights[0]


def test_what_is_left_out_is_printed(shop, radar, tmp_path, capsys):
    for name, config, folder, file, words in (
        ("clips", CLIPS, shop, "lonely.avi", "left out of lonely.avi: '{file}' has no"),
        ("radar", RADAR, radar, "map.pgm", "left out: '{file}' has no time in its"),
    ):
        copy = tmp_path / name
        copy.mkdir()
        for path in folder.iterdir():
            (copy / path.name).symlink_to(path)
        (copy / file).write_bytes(b"")
        prepare = ["--mode=prepare", *config, f"--config.data.path={copy}"]
        output = f"--output={tmp_path / f'{name}_out'}"
        assert run(*prepare, output) == 2
        assert f"error: '{copy / file}' has no " in capsys.readouterr().err
        assert run(*prepare, output, "--config.data.bad_files=skip") == 0
        assert words.format(file=copy / file) in capsys.readouterr().out


def test_mistakes_are_told_in_one_sentence(task, tmp_path, capsys):
    folder, config, words, _ = task
    out = tmp_path / "out"
    assert run("--mode=prepare", config[0], f"--output={out}") == 2
    assert f"'': --mode=prepare needs a folder of {words} with config.task.name=" in (
        capsys.readouterr().err
    )
    prepare = ["--mode=prepare", *config, f"--config.data.path={folder}"]
    assert run(*prepare, f"--output={folder / 'out'}") == 2
    assert "/out lies in config.data.path=" in capsys.readouterr().err
    assert run(*prepare, f"--output={out}") == 0
    again = ["--mode=prepare", *config, f"--config.data.path={out}"]
    assert run(*again, f"--output={tmp_path / 'other'}") == 2
    assert f"already: --mode=prepare needs the folder of {words}" in (
        capsys.readouterr().err
    )
    changed = {
        "annotated videos": "--config.data.width=16",
        "radar composites": "--config.data.downsample=1",
    }[words]
    train = [*config, *SHORT, f"--config.data.path={out}", changed]
    assert run(*train, f"--workdir={tmp_path / 'run'}") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: '{out}' was prepared with other settings, so ")
    films = ["--config=configs/moving_mnist.py:quick", f"--config.data.path={out}"]
    assert run(*films, f"--workdir={tmp_path / 'run'}") == 2
    assert f"which --mode=prepare wrote of {words}: it must be of videos with" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_killed_work_goes_on(task, tmp_path, monkeypatch):
    folder, config, _, counted = task
    # Small shards, and a disk so slow that one can kill in time.
    shard_bytes = 5 * 16 * 24 * 3 if config is CLIPS else 3 * 2 * 13 * 20
    script = (
        "import sys, time\n"
        "from convlstm_jax.cli.entry import main\n"
        "from convlstm_jax.data import preparing, shard_writer\n"
        f"preparing.SHARD_BYTES = {shard_bytes}\n"
        "finish = shard_writer.ShardWriter.finish\n"
        "def slow(self):\n"
        "    time.sleep(0.05)\n"
        "    return finish(self)\n"
        "shard_writer.ShardWriter.finish = slow\n"
        "sys.exit(main(['main.py', *sys.argv[1:]]))\n"
    )
    out = tmp_path / "out"
    prepare = ["--mode=prepare", *config, f"--config.data.path={folder}"]
    command = [sys.executable, "-c", script, *prepare, f"--output={out}"]

    def start():
        return subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=dict(os.environ),
        )  # fmt: skip

    process = start()
    while not (out / "shard-00003.array_record").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not (out / "manifest.json").exists(), "killed too late"
    done = len((out / "progress.jsonl").read_text().splitlines()) - 1
    before = {
        path: path.stat().st_mtime_ns for path in sorted(out.glob("shard-*"))[:done]
    }
    process = start()
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and counted in printed, printed
    assert before and {path: path.stat().st_mtime_ns for path in before} == before
    monkeypatch.setattr(preparing, "SHARD_BYTES", shard_bytes)
    assert run(*prepare, f"--output={tmp_path / 'whole'}") == 0
    manifests = [
        json.loads((place / "manifest.json").read_text())
        for place in (out, tmp_path / "whole")
    ]
    assert manifests[0] == manifests[1]
    assert contents_of(out) == contents_of(tmp_path / "whole")
    assert_same_clips(sources_of(config, out), sources_of(config, folder))
