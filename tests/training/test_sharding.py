import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.errors import UserError
from convlstm_jax.training.sharding import (
    batch_sharded,
    check_batch_size,
    data_mesh,
    put_batch,
    replicated,
)
from tests.program import free_address

REPOSITORY = Path(__file__).parents[2]


def test_the_mesh_is_one_axis_over_all_devices():
    mesh = data_mesh()
    assert mesh.axis_names == ("data",)
    assert mesh.devices.tolist() == jax.devices()
    assert data_mesh(jax.devices()[3:5]).devices.tolist() == jax.devices()[3:5]


def test_batches_are_divided_in_order_and_states_are_not():
    mesh = data_mesh(jax.devices()[:4])
    frames = np.arange(8 * 3, dtype=np.uint8).reshape(8, 3)
    batch = put_batch({"frames": frames, "weight": np.arange(8.0)}, mesh)
    assert set(batch) == {"frames", "weight"}
    assert batch["frames"].dtype == jnp.uint8
    assert batch["frames"].sharding == batch_sharded(mesh)
    np.testing.assert_array_equal(batch["frames"], frames)
    for shard in batch["frames"].addressable_shards:
        place = 2 * mesh.devices.tolist().index(shard.device)
        np.testing.assert_array_equal(shard.data, frames[place : place + 2])
    state = jax.device_put(frames, replicated(mesh))
    assert all(shard.data.shape == (8, 3) for shard in state.addressable_shards)


def test_check_batch_size():
    mesh = data_mesh()
    check_batch_size("train.batch_size", 8, mesh)
    check_batch_size("train.batch_size", 24, mesh)
    with pytest.raises(
        UserError,
        match=r"train\.batch_size is 12: it must be a multiple of .* devices, 8$",
    ):
        check_batch_size("train.batch_size", 12, mesh)


# How every process of a cluster begins, and a process that is alone.
BEGINNING = """
import json, os, signal, sys
from pathlib import Path

import jax
import numpy as np

process, processes, devices, address, output = sys.argv[1:]
process, processes = int(process), int(processes)
jax.config.update("jax_num_cpu_devices", int(devices))
if processes > 1:
    jax.distributed.initialize(address, processes, process)

from convlstm_jax.models.encoder_forecaster import EncoderForecaster
from convlstm_jax.objectives.forecast import ForecastObjective
from convlstm_jax.training.checkpoint import Checkpoints
from convlstm_jax.training.loop import TrainConfig, fit
from convlstm_jax.training.optimizer import AdamConfig
from convlstm_jax.training.sharding import data_mesh, put_batch
from convlstm_jax.training.state import init_state
from convlstm_jax.training.steps import make_eval_step, make_train_step

assert jax.process_count() == processes and jax.device_count() == 4
task = ForecastObjective(EncoderForecaster((2,), 3, 3, patch_size=2), 2, 2)
optimizer = AdamConfig(learning_rate=1e-3).build(50, 50)
mesh = data_mesh()
state = init_state(
    task, optimizer, seed=0, frame_shape=(4, 6, 1), with_ema=False, mesh=mesh
)
train_step = make_train_step(task, optimizer, mesh, seed=0)
"""

WORKER = """
generator = np.random.default_rng(0)
losses = []
for _ in range(2):
    frames = generator.integers(0, 256, (8, 4, 4, 6, 1), dtype=np.uint8)
    mine = slice(process * 8 // processes, (process + 1) * 8 // processes)
    batch = put_batch({"frames": frames[mine]}, mesh)
    state, logs = train_step(state, batch)
    losses.append(float(logs["loss"]))
eval_step = make_eval_step(task, mesh, with_baselines=True)
weight = np.array([1, 1, 1, 0, 1, 1, 0, 1], np.float32)[mine]
sums = eval_step(state.eval_variables, {**batch, **put_batch({"weight": weight}, mesh)})
result = {
    "losses": losses,
    "params": [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(state.params)],
    "sums": jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), sums),
}
with open(output, "w") as file:
    json.dump(result, file)
if processes > 1:
    jax.distributed.shutdown()
"""


# One process of two is told to stop, while the other is some steps ahead or behind.
STOPPED_WORKER = """
class Batches:
    def __init__(self, start):
        self.step = start

    def __next__(self):
        self.step += 1
        if self.step == 6 and process == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"frames": np.zeros((8 // processes, 4, 4, 6, 1), np.uint8)}

    def close(self):
        pass


workdir = Path(output).parent / "run"
result = fit(
    state,
    train_step,
    Batches,
    lambda variables: {"loss": 1.0},
    lambda *arguments: None,
    TrainConfig(
        num_steps=50, batch_size=8, eval_every_steps=50, checkpoint_every_steps=50,
        log_every_steps=50,
    ),
    workdir=workdir,
    mesh=mesh,
)
with Checkpoints(workdir / "checkpoints") as checkpoints:
    saved, *_ = checkpoints.restore_latest(state)
with open(output, "w") as file:
    json.dump([result.outcome, result.step, saved], file)
jax.distributed.shutdown()
"""


def run_cluster(folder, processes, source=WORKER):
    """Four devices in so many processes; the result of each."""
    address = free_address()
    script = folder / "worker.py"
    script.write_text(BEGINNING + source)
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(REPOSITORY),
        # Compiling is what the test takes its time for.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    outputs = [folder / f"{processes}-{process}.json" for process in range(processes)]
    workers = [
        subprocess.Popen(
            [sys.executable, script, str(process), str(processes),
             str(4 // processes), address, output],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process, output in enumerate(outputs)
    ]  # fmt: skip
    try:
        for worker in workers:
            log, _ = worker.communicate(timeout=240)
            assert worker.returncode == 0, log[-4000:]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    return [json.loads(output.read_text()) for output in outputs]


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """Over gloo, two devices each, against four devices of one process: to 1e-5."""
    (alone,) = run_cluster(tmp_path, 1)
    first, second = run_cluster(tmp_path, 2)
    assert first == second
    leaves, structure = jax.tree.flatten(alone)
    found, found_structure = jax.tree.flatten(first)
    assert found_structure == structure
    np.testing.assert_allclose(found, leaves, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_the_same_step(tmp_path):
    first, second = run_cluster(tmp_path, 2, STOPPED_WORKER)
    assert first == second
    outcome, step, saved = first
    assert outcome == "interrupted"
    assert 6 <= step <= 9
    assert saved == step
