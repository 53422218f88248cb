"""kill -9 at random times, Ctrl-C, and a full disk: nothing is lost or left behind."""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from convlstm_jax.data.prepared import read_prepared
from convlstm_jax.data.video.config import VideoConfig
from tests.data.video.film_files import grey_pixels, write_stack, write_video
from tests.program import results_of, trained_model
from tests.survival.conftest import ROOT

pytestmark = pytest.mark.slow

TRAINING = [
    "--config=configs/moving_mnist.py:quick", "--config.model.features=2",
    "--config.task.num_input_frames=2", "--config.task.num_output_frames=2",
    "--config.data.digits=sklearn", "--config.data.height=32",
    "--config.data.width=32", "--config.train.batch_size=2",
    "--config.train.num_steps=40", "--config.train.eval_every_steps=20",
    "--config.train.checkpoint_every_steps=6", "--config.train.log_every_steps=1",
    "--config.train.num_validation_sequences=4", "--config.eval.num_sequences=4",
    "--config.eval.batch_size=4", "--config.train.num_pictures=1",
    "--config.eval.num_pictures=1",
]  # fmt: skip


def killed_until_done(program, arguments, kills, longest, rng):
    """Runs a command, killed at random times, until it ends; how often it was."""
    count = 0
    while True:
        # More of them early, so that a run is killed several times.
        seconds = longest * rng.random() ** 2 if count < kills else None
        status, text = program(*arguments, seconds=seconds)
        assert status in (0, -9), text
        if status == 0:
            return count
        count += 1


def measured(path):
    """What training has logged, without its speed."""
    with path.open() as lines:
        rows = [tuple(row.values()) for row in csv.DictReader(lines)]
    return [row for row in rows if row[2] != "samples_per_second"]


def test_training_that_is_killed_ends_as_one_that_is_not(program, budget, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    program(*TRAINING, f"--workdir={tmp_path / 'warm'}")  # Fills the cache.
    started = time.monotonic()
    assert program(*TRAINING, f"--workdir={whole}")[0] == 0
    longest = time.monotonic() - started
    expected = trained_model(whole)
    rng, left, lives = random.Random(0), budget(4, 500), 0
    while left > 0:
        arguments = [*TRAINING, f"--workdir={broken}"]
        left -= killed_until_done(program, arguments, left, longest, rng)
        lives += 1
        step, variables = trained_model(broken)[1:]
        assert step == expected[1]
        jax.tree.map(np.testing.assert_array_equal, variables, expected[2])
        assert results_of(broken)["model"] == results_of(whole)["model"]
        assert measured(broken / "metrics.csv") == measured(whole / "metrics.csv")
        # A kill between a validation's checkpoint and its picture costs the picture.
        pictures, expected_pictures = (
            {path.name for path in (run / "pictures").iterdir()}
            for run in (broken, whole)
        )
        lost = expected_pictures - pictures
        assert pictures <= expected_pictures
        assert all(name.startswith("validation_") for name in lost)
        print(f"{budget(4, 500) - max(left, 0)} kills in {lives} trainings", flush=True)
        shutil.rmtree(broken)


def test_evaluation_that_is_killed_is_repeated(program, budget, tmp_path):
    run = tmp_path / "run"
    assert program(*TRAINING, f"--workdir={run}")[0] == 0
    expected = results_of(run)
    rng, evaluate = random.Random(1), ["--mode=evaluate", f"--workdir={run}"]
    started = time.monotonic()
    assert program(*evaluate)[0] == 0
    longest, left = time.monotonic() - started, budget(1, 250)
    while left > 0:
        left -= killed_until_done(program, evaluate, left, longest, rng)
        assert results_of(run)["model"] == expected["model"]


def test_prepare_that_is_killed_goes_on(program, budget, tmp_path, monkeypatch):
    films = tmp_path / "films"
    films.mkdir()
    write_video(films / "a.mp4", grey_pixels(90, 48, 64, 1), "mpeg4", "yuv420p")
    write_stack(films / "b.gif", grey_pixels(30, 48, 64, 2))
    np.save(films / "c.npy", grey_pixels(60, 48, 64, 3))
    rng, left = random.Random(2), budget(3, 250)

    def arguments(out):
        fields = {"path": films, "height": 24, "width": 32, "name": "video"}
        return [
            "--mode=prepare", "--config=configs/bubbles.py:quick", f"--output={out}",
            *(f"--config.data.{name}={value}" for name, value in fields.items()),
        ]  # fmt: skip

    started = time.monotonic()
    assert program(*arguments(tmp_path / "whole"))[0] == 0
    longest = time.monotonic() - started
    settings = VideoConfig(path=str(films), height=24, width=32).frame_settings
    expected, frames = read_prepared(tmp_path / "whole", "video", settings.as_json())
    while left > 0:
        out = tmp_path / "broken"
        left -= killed_until_done(program, arguments(out), left, longest, rng)
        manifest, found = read_prepared(out, "video", settings.as_json())
        assert manifest == expected
        for one, other in zip(found, frames, strict=True):
            pair = [film.read(0, len(film)) for film in (one, other)]
            np.testing.assert_array_equal(*pair)
        shutil.rmtree(out)


def start(workdir, *arguments, before=(), **options):
    command = [sys.executable, "main.py", *TRAINING, f"--workdir={workdir}", *arguments]
    return subprocess.Popen(
        [*before, *command], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
    )  # fmt: skip


def descendants(process):
    """The processes that a process and its children have started (Linux)."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, parent, *_ = path.read_text().rpartition(") ")[2].split()
            parents[int(path.parent.name)] = int(parent)
        except OSError:
            continue  # It has ended.
    found = {process}
    while True:
        more = {child for child, parent in parents.items() if parent in found}
        if more <= found:
            return found - {process}
        found |= more


def is_alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state not in "XZ"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc (Linux)")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_the_program(number, tmp_path):
    shared_before = set(Path("/dev/shm").iterdir())
    workers = ("--config.data.num_workers=2", "--config.train.num_steps=100000")
    process = start(tmp_path / "run", *workers, start_new_session=True)
    try:
        log = tmp_path / "run" / "metrics.csv"
        while not log.exists() or log.stat().st_size < 100:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        children = descendants(process.pid)
        assert len(children) >= 2
        if number == signal.SIGKILL:
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)  # As a terminal and a scheduler do.
        output, _ = process.communicate(timeout=60)
        end = time.monotonic() + 15
        while any(map(is_alive, children)) and time.monotonic() < end:
            time.sleep(0.05)
        assert not [child for child in children if is_alive(child)]
        assert "Traceback" not in output
        if number != signal.SIGKILL:
            assert process.returncode == 0, output
            assert "stopped at step" in output
    finally:
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    left = {path for path in Path("/dev/shm").iterdir() if "psm_" in path.name}
    assert not left - shared_before


@pytest.mark.parametrize("kilobytes", [1, 30])
def test_a_full_disk_is_one_sentence(kilobytes, tmp_path):
    """With a limit on the size of files, which fails as a full disk does."""
    process = start(
        tmp_path / "run", "--config.train.num_steps=5000",
        before=("bash", "-c", f'ulimit -f {kilobytes}; exec "$0" "$@"'),
        env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"},
    )  # fmt: skip
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert "Traceback" not in output
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "File too large" in errors[0] or "cannot be saved" in errors[0], errors
