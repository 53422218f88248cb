"""The training loop: every way to stop, and resuming exactly."""

import csv
import functools
import math
import os
import shutil
import signal
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.models.encoder_forecaster import EncoderForecaster
from convlstm_jax.objectives.forecast import ForecastObjective
from convlstm_jax.training import loop
from convlstm_jax.training.checkpoint import Checkpoints
from convlstm_jax.training.checkpoint_reading import steps_on_disk
from convlstm_jax.training.loop import TrainConfig, fit, graceful_interrupts
from convlstm_jax.training.optimizer import AdamConfig
from convlstm_jax.training.sharding import data_mesh, put_batch, replicated
from convlstm_jax.training.state import EarlyStopping, init_state
from convlstm_jax.training.steps import make_train_step

MESH = data_mesh(jax.devices()[:1])
TASK = ForecastObjective(
    EncoderForecaster(
        features=(2,), input_kernel_size=3, recurrent_kernel_size=3, patch_size=2
    ),
    num_input_frames=2,
    num_output_frames=2,
)
# Its learning rate and its momentum depend on the step.
OPTIMIZER = AdamConfig(
    learning_rate=1e-2, schedule="one_cycle", cycle_momentum=True
).build(8, 8)
SETTINGS = TrainConfig(
    num_steps=8,
    batch_size=2,
    eval_every_steps=3,
    checkpoint_every_steps=2,
    log_every_steps=1,
)


def make_batch(step):
    random = np.random.default_rng(step)
    return {"frames": random.uniform(size=(2, 4, 4, 4, 1)).astype(np.float32)}


@functools.cache
def compiled_step():
    step = make_train_step(TASK, OPTIMIZER, MESH, seed=0, ema_decay=0.9)
    lowered = step.lower(new_state(), put_batch(make_batch(0), MESH))
    return lowered.compile({"xla_backend_optimization_level": 0})


def STEP(state, batch):
    return compiled_step()(state, batch)


class Batches:
    """Batches made from their step's number; `on_step` is called before each."""

    def __init__(self, start, on_step=lambda step: None):
        self.step, self.on_step, self.closed = start, on_step, False

    def __next__(self):
        self.step += 1
        self.on_step(self.step)
        return make_batch(self.step)

    def close(self):
        self.closed = True


@functools.cache
def initial_values():
    return jax.device_get(
        init_state(
            TASK, OPTIMIZER, seed=3, frame_shape=(4, 4, 1), with_ema=True, mesh=MESH
        )
    )


def new_state():
    # Compiling the initializers takes longer than the steps: they run once.
    return jax.device_put(initial_values(), replicated(MESH))


def run(workdir, *, on_step=lambda step: None, step=STEP, losses=None, **changes):
    """Runs `fit`; returns its result and the drawn steps."""
    drawn = []
    values = iter(losses or ())

    def validate(params):
        value = next(values) if losses else float(jax.tree.leaves(params)[0].sum())
        return {"loss": value, "mse": value}

    result = fit(
        new_state(),
        step,
        lambda start: Batches(start, on_step),
        validate,
        lambda step, params, writers: drawn.append(step),
        SETTINGS.model_copy(update=changes),
        workdir=workdir,
        mesh=MESH,
    )
    return result, drawn


def saved(workdir):
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        step, state, early_stopping = checkpoints.restore_latest(new_state())
    steps = steps_on_disk(workdir / "checkpoints")
    return step, jax.device_get(state), early_stopping, steps


def rows(workdir):
    with (workdir / "metrics.csv").open() as file:
        return [(int(row["step"]), row["split"], row["metric"], row["value"])
                for row in csv.DictReader(file)]  # fmt: skip


def assert_bitwise_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    result, drawn = run(workdir)
    return workdir, result, drawn


def test_an_uninterrupted_run(uninterrupted):
    workdir, result, drawn = uninterrupted
    assert (result.outcome, result.step) == ("finished", 8)
    assert drawn == [3, 6, 8]
    step, state, _, steps = saved(workdir)
    assert step == 8 and state.step == 8 and 8 in steps
    train = [row for row in rows(workdir) if row[1:3] == ("train", "loss")]
    assert [row[0] for row in train] == list(range(1, 9))
    validations = [row for row in rows(workdir) if row[1:3] == ("validation", "loss")]
    assert [row[0] for row in validations] == [3, 6, 8]


def test_an_interrupted_run_resumes_bitwise(uninterrupted, tmp_path):
    def interrupt(step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    result, _ = run(tmp_path, on_step=interrupt)
    assert result.outcome == "interrupted" and result.step < 8
    assert saved(tmp_path)[0] == result.step
    result, _ = run(tmp_path)
    assert (result.outcome, result.step) == ("finished", 8)
    assert_bitwise_equal(saved(tmp_path)[1], saved(uninterrupted[0])[1])
    losses = [row for row in rows(tmp_path) if row[2] == "loss"]
    expected = [row for row in rows(uninterrupted[0]) if row[2] == "loss"]
    assert losses == expected


def test_a_run_that_is_stopped_in_its_last_step_has_not_finished(tmp_path):
    def step(state, batch):
        if int(state.step) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return STEP(state, batch)

    result, _ = run(tmp_path, step=step)
    assert (result.outcome, result.step) == ("interrupted", 8)
    assert saved(tmp_path)[0] == 8
    # A finished run has nothing left to do.
    before = saved(tmp_path)[1]
    result, drawn = run(tmp_path)
    assert (result.outcome, result.step, drawn) == ("finished", 8, [])
    assert_bitwise_equal(saved(tmp_path)[1], before)


@pytest.mark.parametrize("emptied", [False, True])
def test_a_crashed_run_resumes_bitwise(uninterrupted, tmp_path, emptied):
    class Crash(Exception):
        pass

    def crash(step):
        if step == 6:
            raise Crash

    with pytest.raises(Crash):
        run(tmp_path, on_step=crash)
    assert saved(tmp_path)[0] == 4
    if emptied:  # It starts again, as after a crash before the first checkpoint.
        shutil.rmtree(tmp_path / "checkpoints")
    run(tmp_path)
    assert_bitwise_equal(saved(tmp_path)[1], saved(uninterrupted[0])[1])
    # The rows after the last checkpoint were written once more, not twice.
    losses = [row for row in rows(tmp_path) if row[2] == "loss"]
    assert losses == [row for row in rows(uninterrupted[0]) if row[2] == "loss"]


def test_early_stopping_is_remembered_and_the_best_checkpoint_kept(tmp_path):
    changes = {"eval_every_steps": 1, "early_stopping_patience": 3}
    result, _ = run(tmp_path, losses=[5.0, 4.0, 4.5, 4.25, 4.0], **changes)
    assert (result.outcome, result.step) == ("stopped early", 5)
    _, _, early_stopping, steps = saved(tmp_path)
    assert early_stopping.best_step == 2
    assert steps == [2, 4, 5]
    again, _ = run(tmp_path, losses=[1.0], **changes)
    assert (again.outcome, again.step) == ("stopped early", 5)


def test_a_loss_that_is_not_finite_stops_at_the_last_good_step(tmp_path):
    reference = new_state()
    for number in range(1, 5):
        reference, _ = STEP(reference, put_batch(make_batch(number), MESH))

    def poisoned(state, batch):
        frames = jnp.where(state.step == 4, jnp.nan, batch["frames"])
        return STEP(state, {"frames": frames})

    result, _ = run(tmp_path, step=poisoned)
    assert (result.outcome, result.step) == ("diverged", 4)
    step, state, _, _ = saved(tmp_path)
    assert step == 4 and bool(state.finite)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, state.params, reference.params)


def test_a_batch_is_gone_before_the_next_one_is_made(tmp_path, caplog):
    handed_over = []

    def step(state, batch):
        handed_over.append(weakref.ref(batch["frames"]))
        return STEP(state, batch)

    def on_step(step):
        assert len(handed_over) == step - 1
        assert all(frames() is None for frames in handed_over)

    with caplog.at_level("INFO"):
        run(tmp_path, on_step=on_step, step=step, num_steps=4)
    assert len(handed_over) == 4
    # Without a terminal the log shows the progress.
    assert "step 1 of 4: loss " in caplog.text and "samples/s" in caplog.text
    assert "step 4 of 4: validation loss" in caplog.text


def test_ctrl_c_waits_for_one_slow_step_alone(tmp_path):
    class Interrupted:
        """A result during which Ctrl-C is pressed while the program waits for it."""

        def __init__(self, value):
            self.value, self.asked = value, 0

        def is_ready(self):
            self.asked += 1
            if self.asked == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return self.asked > 3

        def __array__(self, *arguments, **options):
            return np.asarray(self.value)

    taken = []

    def step(state, batch):
        state, metrics = STEP(state, batch)
        taken.append(len(taken) + 1)
        if len(taken) == 5:
            metrics = {**metrics, "finite": Interrupted(metrics["finite"])}
        time.sleep(0.6)
        return state, metrics

    intervals = {"eval_every_steps": 100, "checkpoint_every_steps": 100}
    result, _ = run(tmp_path, step=step, num_steps=20, **intervals)
    assert (result.outcome, result.step, taken[-1]) == ("interrupted", 5, 5)
    assert saved(tmp_path)[0] == 5


def test_what_training_takes_is_said(tmp_path, caplog, monkeypatch):
    with caplog.at_level("INFO"):
        run(tmp_path / "short", num_steps=5)
    assert "about 0 s to the last step, without validations" in caplog.text
    assert "GiB of memory" in caplog.text and "preset quick" not in caplog.text
    monkeypatch.setattr(loop, "memory_bytes", lambda: (15 * 2**30, 16 * 2**30))
    with caplog.at_level("INFO"):
        loop.say_what_it_takes(3600 * 24 * 10 + 3600 * 5, 45)
    said = "about 10 d 5 h to the last step, without validations (45 s a step); 15.0 of"
    assert said in caplog.text
    warning = "takes 10 d 5 h and needs almost all memory of this machine: on a"
    assert warning in caplog.text
    assert [loop.in_words(s) for s in (59.6, 3599, 3600, 90_000)] == [
        "1 min 0 s", "59 min 59 s", "1 h 0 min", "1 d 1 h"
    ]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_stops_at_once(number, capsys):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), graceful_interrupts() as received:
        assert received == []
        os.kill(os.getpid(), number)
        assert received == [number]
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before
    assert capsys.readouterr() == (
        "",
        "Interrupted: finishing the step and saving; "
        "press Ctrl-C again to stop at once\n",
    )


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([3.0, 3.0, 3.0], (3.0, 10, 2)),  # Equal is no improvement.
        ([math.nan, 2.0, math.nan], (2.0, 20, 1)),
        ([math.nan, math.inf], (None, None, 2)),
    ],
)
def test_early_stopping_counts_evaluations(losses, expected):
    state = EarlyStopping()
    for step, loss in enumerate(losses, start=1):
        state = state.update(10 * step, loss)
    assert tuple(state.model_dump().values()) == expected
    assert [state.should_stop(n) for n in (0, expected[2], 3)] == [False, True, False]
