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
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from convlstm_jax.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    restore_part,
)


@flax.struct.dataclass
class State:
    step: jax.Array
    params: Any
    opt_state: Any
    ema_params: Any = None
    batch_stats: Any = None


OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adam)(1e-3)
)


def restore_params(directory, template, which="best", item="params"):
    step, part = restore_part(directory, {item: template}, which=which)
    return step, part[item]


def make_state(seed=0, features=3, **fields):
    generator = np.random.default_rng(seed)

    def array(*shape):
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    params = {
        "cell": {"kernel": array(5, 8, features), "bias": array(features)},
        "half": array(4).astype(jnp.bfloat16),
    }
    opt_state = jax.tree.map(lambda x: x + jnp.ones_like(x), OPTIMIZER.init(params))
    return State(jnp.asarray(seed, jnp.int32), params, opt_state, **fields)


def open_checkpoints(directory, **overrides):
    arguments = {"metric_name": "loss", "higher_is_better": False, **overrides}
    return Checkpoints(directory, **arguments)


def assert_same(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for leaf, wanted in zip(
        jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True
    ):
        assert type(leaf) is type(wanted)
        if isinstance(leaf, jax.Array):
            assert leaf.committed == wanted.committed
        array, wanted = np.asarray(leaf), np.asarray(wanted)
        assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
        assert array.tobytes() == wanted.tobytes()


def contents(directory):
    return {
        path.relative_to(directory): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_round_trip_of_a_training_state(tmp_path):
    state = make_state(1)
    progress = {"best": 0.1 + 0.2, "best_step": None, "evaluations": [1, 2]}
    with open_checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        assert checkpoints.restore_latest(state) is None
        assert checkpoints.latest_step() is None
        assert checkpoints.best_step() is None
        checkpoints.save(7, state, progress, {"loss": 1.0, "ssim": 0.5})
        template = jax.eval_shape(lambda: make_state(2))
        step, restored, restored_progress = checkpoints.restore_latest(template)
    assert (step, restored_progress) == (7, progress)
    assert_same(restored, state)


def test_round_trip_of_every_kind_of_leaf(tmp_path):
    state = {
        "none": None,
        "empty": {},
        "integer": 3,
        "number": 0.1,
        "flag": True,
        "host": np.arange(3),
        "no_elements": jnp.zeros((0, 4)),
        "scalar": jnp.asarray(2.5),
        "list": [jnp.arange(2), (jnp.asarray([math.nan, -0.0]),)],
    }
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, state, {})
    with open_checkpoints(tmp_path) as checkpoints:
        step, restored, progress = checkpoints.restore_latest(state)
    assert (step, progress) == (0, {})
    assert_same(restored, state)


def test_saved_state_may_be_donated_and_overwritten_at_once(tmp_path):
    # Large enough that the background write is still under way afterwards.
    values = np.random.default_rng(0).normal(size=(8, 250_000)).astype(np.float32)
    state = {"device": jnp.asarray(values), "host": values.copy()}
    step = jax.jit(lambda x: -2 * x, donate_argnums=0)
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        overwritten = state["device"]
        for _ in range(3):
            overwritten = step(overwritten)
        state["host"][:] = 0
        overwritten.block_until_ready()
        _, restored, _ = checkpoints.restore_latest(
            {"device": jax.ShapeDtypeStruct(values.shape, values.dtype), "host": values}
        )
    assert np.asarray(restored["device"]).tobytes() == values.tobytes()
    assert restored["host"].tobytes() == values.tobytes()


def test_restored_state_may_be_donated(tmp_path):
    state = {"a": jnp.arange(6.0)}
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        _, restored, _ = checkpoints.restore_latest(state)
    step = jax.jit(lambda x: jax.tree.map(lambda a: 2 * a, x), donate_argnums=0)
    np.testing.assert_array_equal(step(restored)["a"], 2 * np.arange(6.0))


@pytest.mark.parametrize(
    ("higher_is_better", "losses", "steps", "best"),
    [
        (False, [3.0, 1.0, 2.0, 4.0, 5.0], [2, 4, 5], 2),
        (True, [3.0, 1.0, 2.0, 4.0, 5.0], [4, 5], 5),
        (False, [3.0, 1.0, 1.0, 1.0, 1.0], [2, 4, 5], 2),
        (False, [3.0, math.nan, None, 4.0, math.nan], [1, 4, 5], 1),
        (False, [None] * 5, [4, 5], None),
    ],
)
def test_keeps_the_latest_two_and_the_best(
    tmp_path, higher_is_better, losses, steps, best
):
    options = {"higher_is_better": higher_is_better}

    def metrics(loss):
        return None if loss is None else {"loss": loss}

    with open_checkpoints(tmp_path, **options) as checkpoints:
        for step, loss in enumerate(losses[:3], start=1):
            checkpoints.save(step, {"a": jnp.ones(2)}, {}, metrics(loss))
    # What counts as the best survives a restart of the run.
    with open_checkpoints(tmp_path, **options) as checkpoints:
        for step, loss in enumerate(losses[3:], start=4):
            checkpoints.save(step, {"a": jnp.ones(2)}, {}, metrics(loss))
        checkpoints.wait()
        assert checkpoints.all_steps() == steps
        assert checkpoints.best_step() == best
        assert checkpoints.latest_step() == 5
    on_disk = sorted(int(path.name) for path in tmp_path.iterdir())
    assert on_disk == steps


def test_keeps_as_many_as_asked(tmp_path):
    with open_checkpoints(tmp_path, keep_latest=1, keep_best=2) as checkpoints:
        for step, loss in enumerate([2.0, 1.0, 3.0, 4.0, 5.0], start=1):
            checkpoints.save(step, {"a": jnp.ones(2)}, {}, {"loss": loss})
        assert checkpoints.all_steps() == [1, 2, 5]
    with pytest.raises(ValueError, match="keep_latest is 0, but must be at least 1"):
        open_checkpoints(tmp_path, keep_latest=0)


def test_saving_a_step_twice_keeps_the_first(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, {"a": jnp.ones(2)}, {"note": "first"})
        checkpoints.save(5, {"a": jnp.zeros(2)}, {"note": "second"})
        step, state, progress = checkpoints.restore_latest({"a": jnp.zeros(2)})
        assert checkpoints.all_steps() == [5]
    assert (step, progress) == (5, {"note": "first"})
    np.testing.assert_array_equal(state["a"], 1.0)


def test_progress_must_be_json(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        with pytest.raises(TypeError, match="not JSON serializable"):
            checkpoints.save(5, {"a": jnp.ones(2)}, {"array": np.ones(2)})
        with pytest.raises(ValueError, match="metrics must hold 'loss'"):
            checkpoints.save(5, {"a": jnp.ones(2)}, {}, {"ssim": 1.0})
        assert checkpoints.all_steps() == []


def sharding(number_of_devices, *axes):
    mesh = jax.make_mesh(
        (number_of_devices,),
        ("data",),
        axis_types=(AxisType.Auto,),
        devices=jax.devices()[:number_of_devices],
    )
    return NamedSharding(mesh, PartitionSpec(*axes))


@pytest.mark.parametrize(
    ("saved", "restored"),
    [((1,), (8,)), ((8,), (2,)), ((8, "data"), (2,)), ((1,), (4, "data"))],
)
def test_restores_onto_another_number_of_devices(tmp_path, saved, restored):
    values = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    state = {"a": jax.device_put(values, sharding(*saved))}
    wanted = sharding(*restored)
    template = {"a": jax.ShapeDtypeStruct((8, 3), jnp.float32, sharding=wanted)}
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        _, from_struct, _ = checkpoints.restore_latest(template)
        concrete = {"a": jax.device_put(np.zeros_like(values), wanted)}
        _, from_concrete, _ = checkpoints.restore_latest(concrete)
    for result in (from_struct, from_concrete):
        assert result["a"].sharding == wanted
        assert np.asarray(result["a"]).tobytes() == values.tobytes()


def test_a_checkpoint_of_another_model_is_refused(tmp_path, caplog):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(1), {})
        checkpoints.save(2, make_state(2), {})
        with pytest.raises(
            CheckpointError,
            match=r"step 2 in .* is of another model: params/cell/bias has shape "
            r"\(3,\) and dtype float32 there and shape \(4,\) and dtype float32 in",
        ):
            checkpoints.restore_latest(make_state(features=4))
        with pytest.raises(
            CheckpointError, match=r"ema_params/a has shape \(1,\) .* absent there"
        ):
            checkpoints.restore_latest(make_state(ema_params={"a": jnp.ones(1)}))
        with pytest.raises(
            CheckpointError, match=r"opt_state/.* there and is absent in this model"
        ):
            checkpoints.restore_latest(make_state().replace(opt_state=None))
        assert checkpoints.all_steps() == [1, 2]
    with pytest.raises(CheckpointError, match="params/cell/bias has shape"):
        restore_params(tmp_path, make_state(features=4).params)
    assert not caplog.records


def test_restore_params_best_and_latest(tmp_path):
    states = {step: make_state(step) for step in (1, 2, 3)}
    with open_checkpoints(tmp_path) as checkpoints:
        for (step, state), loss in zip(states.items(), (2.0, 1.0, 3.0), strict=True):
            checkpoints.save(step, state, {}, {"loss": loss})
    before = contents(tmp_path)
    template = jax.eval_shape(make_state).params
    step, params = restore_params(tmp_path, template)
    assert step == 2
    assert_same(params, states[2].params)
    step, params = restore_params(str(tmp_path), template, which="latest")
    assert step == 3
    assert_same(params, states[3].params)
    assert contents(tmp_path) == before


def test_restore_part_of_a_state(tmp_path):
    averages = jax.tree.map(lambda x: 2 * x, make_state(1).params)
    statistics = {"mean": jnp.arange(3.0)}
    for name, fields in (
        ("with", {"ema_params": averages, "batch_stats": statistics}),
        ("without", {}),
    ):
        with open_checkpoints(tmp_path / name) as checkpoints:
            checkpoints.save(1, make_state(1, **fields), {})
    template = jax.eval_shape(make_state).params
    _, params = restore_params(tmp_path / "with", template, item="ema_params")
    assert_same(params, averages)
    step, part = restore_part(
        tmp_path / "with", {"batch_stats": statistics, "params": template}
    )
    assert step == 1
    assert_same(part, {"batch_stats": statistics, "params": make_state(1).params})
    with pytest.raises(
        CheckpointError,
        match="ema_params",
    ):
        restore_params(tmp_path / "without", template, item="ema_params")


def test_restore_params_without_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no checkpoint in .*missing\."):
        restore_params(tmp_path / "missing", {})
    assert not (tmp_path / "missing").exists()
    with pytest.raises(ValueError, match="which is 'last', but must be"):
        restore_params(tmp_path, {}, which="last")


def test_nothing_is_logged(tmp_path, caplog, capfd):
    with caplog.at_level(logging.DEBUG, logger="absl"):
        with open_checkpoints(tmp_path) as checkpoints:
            checkpoints.save(1, make_state(), {})
            checkpoints.save(2, make_state(), {}, {"loss": 1.0})
            checkpoints.restore_latest(make_state())
        restore_params(tmp_path, make_state().params)
    assert [entry for entry in caplog.records if "orbax" in entry.pathname] == []
    assert capfd.readouterr() == ("", "")


def test_a_failed_save_is_one_sentence_and_loses_nothing(tmp_path, caplog):
    small = {"a": jnp.arange(4.0)}
    noise = np.random.default_rng(0).normal(size=500_000).astype(np.float32)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, small, {}, {"loss": 1.0})
        checkpoints.wait()
        try:
            # The closest to a full disk that a test can have: no large files.
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
            with pytest.raises(
                CheckpointError,
                match=r"^The checkpoint of step 2 could not be saved in .*"
                r"\(the earlier ones are intact\): .*[^.]\.$",
            ) as failure:
                checkpoints.save(2, {"a": noise, "b": 2 * noise}, {}, {"loss": 0.5})
                checkpoints.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert str(tmp_path) in str(failure.value)
        assert "\n" not in str(failure.value)
        assert checkpoints.all_steps() == [1]
        assert checkpoints.best_step() == 1
        # Once there is room again, the run could go on.
        checkpoints.save(2, {"a": jnp.arange(5.0)}, {}, {"loss": 0.5})
        checkpoints.wait()
        assert checkpoints.all_steps() == [1, 2]
    assert caplog.records == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file/checkpoints cannot be opened"):
        open_checkpoints(tmp_path / "file" / "checkpoints")


@pytest.mark.slow
def test_kill_during_a_save_leaves_the_step_before(tmp_path):
    script = """
        import sys, time
        import numpy as np
        from convlstm_jax.training.checkpoint import Checkpoints

        checkpoints = Checkpoints(
            sys.argv[1], metric_name="loss", higher_is_better=False
        )
        noise = np.random.default_rng(0).normal(size=4_000_000)
        for step in range(1, 100):
            checkpoints.save(step, {"a": noise + step}, {"note": step})
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

    noise = np.random.default_rng(0).normal(size=4_000_000)
    step, params = restore_params(tmp_path, noise, which="latest", item="a")
    assert step == finished
    with open_checkpoints(tmp_path) as checkpoints:
        step, state, progress = checkpoints.restore_latest({"a": noise})
        assert (step, progress) == (finished, {"note": finished})
        np.testing.assert_array_equal(state["a"], noise + finished)
        checkpoints.save(finished + 1, {"a": noise[:5]}, {})
    np.testing.assert_array_equal(params, state["a"])
    assert not any("tmp" in name for name in os.listdir(tmp_path))
