import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.metrics.accumulate import batch_sums
from convlstm_jax.train.evaluation import evaluate
from convlstm_jax.train.sharding import batch_sharded, data_mesh, replicated

CLIPS, STEPS, FRAME_SHAPE = 10, 3, (2, 4, 2)


@functools.cache
def make_eval_step(mesh):
    """Two contenders, whose errors are a weight and zero away from the frames."""

    def eval_step(params, batch):
        def metrics(offset):
            error = batch["frames"] - offset
            return {
                "mse": jnp.square(error).sum((2, 3, 4)),
                "cross_entropy_nats": jnp.abs(error).sum((2, 3, 4)),
            }

        return {
            name: batch_sums(metrics(offset), batch["weight"])
            for name, offset in (("model", params), ("zeros", jnp.zeros(())))
        }

    return jax.jit(eval_step, in_shardings=(replicated(mesh), batch_sharded(mesh)))


def clips():
    return np.random.default_rng(0).random((CLIPS, STEPS, *FRAME_SHAPE), np.float32)


def batches(size):
    """All clips, in batches of one size; what fills the last one does not count."""
    frames = clips()
    padding = -CLIPS % size
    frames = np.concatenate([frames, np.full_like(frames[:padding], np.nan)])
    weight = np.repeat(np.float32([1, 0]), [CLIPS, padding])
    for start in range(0, CLIPS, size):
        part = slice(start, start + size)
        yield {"frames": frames[part], "weight": weight[part]}


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 10), (2, 4), (8, 8), (2, 2)])
def test_figures_do_not_depend_on_batches_or_devices(devices, batch_size):
    mesh = data_mesh(jax.devices()[:devices])
    results = evaluate(
        make_eval_step(mesh), jnp.float32(0.25), batches(batch_size), mesh
    )
    assert set(results) == {"model", "zeros", "per_lead_time"}
    assert set(results["per_lead_time"]) == {"model", "zeros"}
    for name, offset in (("model", 0.25), ("zeros", 0.0)):
        error = clips().astype(np.float64) - offset
        squares = np.square(error).sum((2, 3, 4)).mean(0)
        nats = np.abs(error).sum((2, 3, 4)).mean(0)
        found = results["per_lead_time"][name]
        assert set(found) == {"mse", "cross_entropy_nats"}
        np.testing.assert_allclose(found["mse"], squares, rtol=1e-5)
        np.testing.assert_allclose(found["cross_entropy_nats"], nats, rtol=1e-5)
        total = results[name]
        assert total["mse"] == pytest.approx(squares.mean(), rel=1e-5)
        assert total["mse_per_pixel"] == pytest.approx(
            np.square(error).mean(), rel=1e-5
        )
        assert total["cross_entropy_nats_per_sequence"] == pytest.approx(
            nats.sum(), rel=1e-5
        )


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="there are no batches to evaluate on"):
        evaluate(lambda params, batch: {}, None, [], data_mesh())


def test_no_clip_that_counts_is_an_error():
    mesh = data_mesh(jax.devices()[:1])
    (batch,) = batches(CLIPS)
    batch["weight"] = np.zeros(CLIPS, np.float32)
    with pytest.raises(ValueError, match="number of samples evaluated is 0"):
        evaluate(make_eval_step(mesh), jnp.float32(0.25), [batch], mesh)
