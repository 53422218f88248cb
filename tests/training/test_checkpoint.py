"""Saving: what is kept, copied, told and left behind; see also the tests of reading."""

import logging
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from convlstm_jax.training.checkpoint import Checkpoints
from convlstm_jax.training.checkpoint_reading import (
    CheckpointError,
    restore_best,
    steps_on_disk,
)
from convlstm_jax.training.sharding import data_mesh
from convlstm_jax.training.state import EarlyStopping


@flax.struct.dataclass
class State:
    step: jax.Array
    params: Any
    opt_state: Any
    ema_params: Any = None
    empty: Any = flax.struct.field(default_factory=dict)


NONE = EarlyStopping()
OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adam)(1e-3)
)
SMALL = {"a": jnp.arange(4.0)}


def make_state(seed=0, features=3, **fields):
    generator = np.random.default_rng(seed)

    def array(*shape):
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    params = {
        "cell": {"kernel": array(5, 8, features), "bias": array(features)},
        "half": array(4).astype(jnp.bfloat16),
        "odd": (jnp.asarray([math.nan, -0.0]), [jnp.asarray(True)]),
    }
    opt_state = OPTIMIZER.init(params)
    return State(jnp.asarray(seed, jnp.int32), params, opt_state, **fields)


def assert_same(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True)
    for leaf, wanted in pairs:
        assert isinstance(leaf, jax.Array)
        array, wanted = np.asarray(leaf), np.asarray(wanted)
        assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
        assert array.tobytes() == wanted.tobytes()


def test_a_training_state_comes_back_in_silence(tmp_path, caplog, capfd):
    state = make_state(1)
    progress = EarlyStopping(best_value=0.1 + 0.2, best_step=3)
    directory = tmp_path / "run" / "checkpoints"
    with caplog.at_level(logging.DEBUG, logger="absl"):
        with Checkpoints(directory) as checkpoints:
            assert checkpoints.restore_latest(state) is None
            checkpoints.save(7, state, progress, 1.0)
            checkpoints.save(7, make_state(2), NONE)  # Does nothing.
            template = jax.eval_shape(lambda: make_state(2))
            step, restored, restored_progress = checkpoints.restore_latest(template)
        _, part = restore_best(directory, {"params": template.params})
    assert (step, restored_progress) == (7, progress)
    assert_same(restored, state)
    assert_same(part, {"params": state.params})
    assert [entry for entry in caplog.records if "orbax" in entry.pathname] == []
    assert capfd.readouterr() == ("", "")


def test_a_saved_or_restored_state_may_be_donated_at_once(tmp_path):
    # Large enough that the background write is still under way afterwards.
    values = np.random.default_rng(0).normal(size=(8, 250_000)).astype(np.float32)
    state = {"device": jnp.asarray(values), "host": values.copy()}
    step = jax.jit(lambda x: -2 * x, donate_argnums=0)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, NONE)
        overwritten = state["device"]
        for _ in range(3):
            overwritten = step(overwritten)
        state["host"][:] = 0
        overwritten.block_until_ready()
        template = jax.ShapeDtypeStruct(values.shape, values.dtype)
        _, restored, _ = checkpoints.restore_latest(
            {"device": template, "host": template}
        )
    assert_same(restored, {"device": values, "host": values})
    np.testing.assert_array_equal(step(restored["device"]), -2 * values)


@pytest.mark.parametrize(
    ("losses", "steps", "best"),
    [
        ([3.0, 1.0, 1.0, 1.0, 1.0], [2, 4, 5], 2),
        ([3.0, math.nan, None, 4.0, math.nan], [1, 4, 5], 1),
        ([3.0, -math.inf, math.inf, 4.0, None], [2, 4, 5], 2),
        ([None] * 5, [4, 5], 5),
    ],
)
def test_keeps_the_latest_two_and_the_best(tmp_path, losses, steps, best):
    # What counts as the best survives a restart of the run.
    for first in (1, 4):
        with Checkpoints(tmp_path) as checkpoints:
            for step in range(first, min(first + 3, 6)):
                checkpoints.save(step, SMALL, NONE, losses[step - 1])
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == steps
    assert restore_best(tmp_path, SMALL)[0] == best


@pytest.mark.parametrize(
    ("saved", "restored"),
    [((1,), (8,)), ((8, "data"), (2,)), ((1,), (4, "data"))],
)
def test_restores_onto_another_number_of_devices(tmp_path, saved, restored):
    def sharding(devices, *axes):
        mesh = data_mesh(jax.devices()[:devices])
        return NamedSharding(mesh, PartitionSpec(*axes))

    values = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    wanted = sharding(*restored)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"a": jax.device_put(values, sharding(*saved))}, NONE)
        for template in (
            jax.ShapeDtypeStruct((8, 3), jnp.float32, sharding=wanted),
            jax.device_put(np.zeros_like(values), wanted),
        ):
            _, result, _ = checkpoints.restore_latest({"a": template})
            assert result["a"].sharding == wanted
            assert np.asarray(result["a"]).tobytes() == values.tobytes()


def test_a_checkpoint_of_another_model_is_refused(tmp_path, caplog):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), NONE)
        checkpoints.save(2, make_state(2), NONE)
        for template, message in (
            (
                make_state(features=4),
                r"step 2 in .* is of another model: params/cell/bias has shape "
                r"\(3,\) and dtype float32 there and shape \(4,\) and dtype float32 in",
            ),
            (
                make_state(ema_params={"a": jnp.ones(1)}),
                r"ema_params/a .* absent there",
            ),
            (make_state().replace(opt_state=None), "opt_state/.* absent in this model"),
        ):
            with pytest.raises(CheckpointError, match=message):
                checkpoints.restore_latest(template)
    assert steps_on_disk(tmp_path) == [1, 2]
    with pytest.raises(CheckpointError, match="params/cell/bias has shape"):
        restore_best(tmp_path, {"params": make_state(features=4).params})
    assert not caplog.records
    with pytest.raises(CheckpointError, match=r"There is no checkpoint in .*missing\."):
        restore_best(tmp_path / "missing", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file/checkpoints cannot be opened"):
        Checkpoints(tmp_path / "file" / "checkpoints")


@pytest.mark.parametrize("waits", [False, True])
def test_a_failed_save_is_one_sentence_and_loses_nothing(tmp_path, caplog, waits):
    noise = np.random.default_rng(0).normal(size=500_000).astype(np.float32)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    message = (
        rf"^The checkpoint of step 2 could not be saved in {tmp_path} \(the earlier "
        r"ones are intact\): .*[^.]\.$"
    )
    try:
        with (
            pytest.raises(CheckpointError, match=message) as failure,
            Checkpoints(tmp_path) as checkpoints,
        ):
            checkpoints.save(1, SMALL, NONE, 1.0)
            checkpoints.wait()
            # The closest to a full disk that a test can have: no large files.
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
            checkpoints.save(2, {"a": noise, "b": 2 * noise}, NONE, 0.5)
            if waits:
                checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(failure.value)
    assert restore_best(tmp_path, SMALL)[0] == 1
    # Once there is room again, the run can go on.
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, SMALL, NONE, 0.5)
    assert caplog.records == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


@pytest.mark.slow
def test_kill_during_a_save_leaves_the_step_before(tmp_path):
    script = """
        import sys
        import numpy as np
        from convlstm_jax.training.checkpoint import Checkpoints
        from convlstm_jax.training.state import EarlyStopping

        checkpoints = Checkpoints(sys.argv[1])
        noise = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
        for step in range(1, 100):
            checkpoints.save(step, {"a": noise + step}, EarlyStopping(best_step=step))
            print(step, flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        # The second save has begun; the first one is complete.
        assert [process.stdout.readline() for _ in "12"] == ["1\n", "2\n"]
        deadline = time.monotonic() + 30
        while not any("tmp" in name for name in os.listdir(tmp_path)):
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
    names = os.listdir(tmp_path)
    assert any("tmp" in name for name in names)
    finished = max(int(name) for name in names if name.isdigit())

    noise = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
    template = {"a": jax.ShapeDtypeStruct(noise.shape, noise.dtype)}
    assert restore_best(tmp_path, template)[0] == finished
    with Checkpoints(tmp_path) as checkpoints:
        step, state, progress = checkpoints.restore_latest(template)
        assert (step, progress) == (finished, EarlyStopping(best_step=finished))
        np.testing.assert_array_equal(state["a"], noise + np.float32(finished))
        checkpoints.save(finished + 1, {"a": noise[:5]}, NONE)
    assert not any("tmp" in name for name in os.listdir(tmp_path))
