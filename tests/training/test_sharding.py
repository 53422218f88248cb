import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from convlstm_jax.errors import UserError
from convlstm_jax.models.encoder_forecaster import EncoderForecaster
from convlstm_jax.objectives.forecast import ForecastObjective
from convlstm_jax.training.checkpoint_reading import steps_on_disk
from convlstm_jax.training.loop import TrainConfig, fit
from convlstm_jax.training.optimizer import AdamConfig
from convlstm_jax.training.sharding import (
    batch_sharded,
    data_mesh,
    put_batch,
    replicated,
    training_mesh,
)
from convlstm_jax.training.state import init_state
from convlstm_jax.training.steps import make_eval_step, make_train_step
from tests.program import free_address

REPOSITORY = Path(__file__).parents[2]


def test_batches_are_divided_in_order_and_states_are_not():
    assert data_mesh().devices.tolist() == jax.devices()
    mesh = data_mesh(jax.devices()[2:6])
    frames = np.arange(8 * 3, dtype=np.uint8).reshape(8, 3)
    batch = put_batch({"frames": frames}, mesh)["frames"]
    assert batch.sharding == batch_sharded(mesh)
    np.testing.assert_array_equal(batch, frames, strict=True)
    for shard in batch.addressable_shards:
        place = 2 * mesh.devices.tolist().index(shard.device)
        np.testing.assert_array_equal(shard.data, frames[place : place + 2])
    state = jax.device_put(frames, replicated(mesh))
    assert all(shard.data.shape == (8, 3) for shard in state.addressable_shards)


def test_a_batch_is_shared_by_as_many_devices_as_can(monkeypatch):
    assert [training_mesh(size).size for size in (24, 12, 6, 7, 1)] == [8, 6, 6, 7, 1]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert training_mesh(16).size == 8
    message = r"batch_size is 12: it must be a multiple of .* devices, 8, such as 16$"
    with pytest.raises(UserError, match=message):
        training_mesh(12)


def work(mesh, process, processes):
    """Two steps and an evaluation; the state and the train step to go on with."""
    task = ForecastObjective(EncoderForecaster((2,), 3, 3, patch_size=2), 2, 2)
    optimizer = AdamConfig(learning_rate=1e-3).build(50, 50)
    frame_shape = (4, 6, 1)
    state = init_state(
        task, optimizer, seed=0, frame_shape=frame_shape, with_ema=False, mesh=mesh
    )
    train_step = make_train_step(task, optimizer, mesh, seed=0)
    eval_step = make_eval_step(task, mesh, with_baselines=True)
    mine = slice(process * 8 // processes, (process + 1) * 8 // processes)
    generator = np.random.default_rng(0)
    losses = []
    for _ in range(2):
        frames = generator.integers(0, 256, (8, 4, *frame_shape), dtype=np.uint8)
        batch = put_batch({"frames": frames[mine]}, mesh)
        state, logs = train_step(state, batch)
        losses.append(float(logs["loss"]))
    weight = np.array([1, 1, 1, 0, 1, 1, 0, 1], np.float32)[mine]
    batch |= put_batch({"weight": weight}, mesh)
    sums = eval_step(state.eval_variables, batch)
    result = {"losses": losses, "params": state.params, "sums": sums}
    return state, train_step, jax.device_get(result)


def stopped(workdir, state, train_step, mesh, process):
    """Trains until one process of two is told to stop, whichever is ahead."""

    class Batches:
        step = 0

        def __next__(self):
            self.step += 1
            if self.step == 6 and process == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return {"frames": np.zeros((4, 4, 4, 6, 1), np.uint8)}

        def close(self):
            pass

    config = TrainConfig(
        num_steps=50, batch_size=8, eval_every_steps=50, checkpoint_every_steps=50,
        log_every_steps=50,
    )  # fmt: skip
    result = fit(
        state.replace(step=0 * state.step),
        train_step,
        lambda start: Batches(),
        lambda variables: {"loss": 1.0},
        lambda *arguments: None,
        config,
        workdir=workdir,
        mesh=mesh,
    )
    saved = steps_on_disk(workdir / "checkpoints")[-1]
    return [result.outcome, result.step, saved]


SCRIPT = """
import json, sys
from pathlib import Path
import jax
import numpy as np

process, address, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(address, 2, process)
from tests.training import test_sharding

mesh = test_sharding.data_mesh()
assert jax.process_count() == 2 and jax.device_count() == 4
state, train_step, result = test_sharding.work(mesh, process, 2)
result = jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), result)
ending = test_sharding.stopped(folder / "run", state, train_step, mesh, process)
(folder / f"{process}.json").write_text(json.dumps([result, ending]))
jax.distributed.shutdown()
"""


@pytest.mark.slow
def test_two_processes_train_as_one_and_stop_together(tmp_path):
    """Over gloo, two devices each, against four devices of one process: to 1e-5."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    address = free_address()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(process), address, tmp_path],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]
    try:
        for worker in workers:
            log, _ = worker.communicate(timeout=480)
            assert worker.returncode == 0, log[-4000:]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    first, second = (json.loads((tmp_path / f"{p}.json").read_text()) for p in (0, 1))
    assert first == second
    found, (outcome, step, saved) = first
    *_, alone = work(data_mesh(jax.devices()[:4]), 0, 1)
    alone = jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), alone)
    leaves, structure = jax.tree.flatten(alone)
    found, found_structure = jax.tree.flatten(found)
    assert found_structure == structure
    np.testing.assert_allclose(found, leaves, rtol=1e-5, atol=1e-5)
    assert outcome == "interrupted"
    assert 6 <= step <= 9
    assert saved == step
