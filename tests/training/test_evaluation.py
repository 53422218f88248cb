import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.metrics.accumulate import batch_sums, summarize, sums_by_condition
from convlstm_jax.training.evaluation import evaluate
from convlstm_jax.training.sharding import batch_sharded, data_mesh, replicated

CLIPS, STEPS, FRAME_SHAPE = 10, 3, (2, 4, 2)
CONDITIONS = ("slow", "never", "fast")
# Which condition each clip is of.
CONDITION = np.array([0, 2, 2, 0, 2, 2, 2, 0, 2, 2], np.int32)


def summarize_frames(total, frame_shape):
    return summarize(total, values_per_frame=int(np.prod(frame_shape)))


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

        figures = {"model": metrics(params), "zeros": metrics(jnp.zeros(()))}
        weight, condition = batch["weight"], batch["condition"]
        sums = {name: batch_sums(values, weight) for name, values in figures.items()}
        sums["by_condition"] = {
            name: sums_by_condition(values, weight, condition, len(CONDITIONS))
            for name, values in figures.items()
        }
        return sums

    return jax.jit(eval_step, in_shardings=(replicated(mesh), batch_sharded(mesh)))


def clips():
    return np.random.default_rng(0).random((CLIPS, STEPS, *FRAME_SHAPE), np.float32)


def batches(size):
    """All clips, in batches of one size; what fills the last one does not count."""
    frames = clips()
    padding = -CLIPS % size
    frames = np.concatenate([frames, np.full_like(frames[:padding], np.nan)])
    weight = np.repeat(np.float32([1, 0]), [CLIPS, padding])
    condition = np.concatenate([CONDITION, np.zeros(padding, np.int32)])
    for start in range(0, CLIPS, size):
        part = slice(start, start + size)
        yield {
            "frames": frames[part],
            "weight": weight[part],
            "condition": condition[part],
        }


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 10), (2, 4), (8, 8), (2, 2)])
def test_figures_do_not_depend_on_batches_or_devices(devices, batch_size):
    mesh = data_mesh(jax.devices()[:devices])
    results = evaluate(
        make_eval_step(mesh),
        summarize_frames,
        jnp.float32(0.25),
        batches(batch_size),
        mesh,
        CONDITIONS,
    )
    assert set(results) == {"model", "zeros", "per_lead_time", "per_condition"}
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
        assert set(results["per_condition"]) == {"slow", "fast"}
        for index, condition in ((0, "slow"), (2, "fast")):
            of_condition = results["per_condition"][condition]
            chosen = index == CONDITION
            assert of_condition["count"] == chosen.sum()
            expected = np.square(error[chosen]).sum((2, 3, 4)).mean()
            assert of_condition[name]["mse"] == pytest.approx(expected, rel=1e-5)


def test_the_worst_clips_are_named():
    """Rows that do not count are none of them; what is not a number is the worst."""
    rows = [[3.0, 9.0, 1.0], [7.0, np.nan, 5.0], [8.0, -np.inf, -np.inf]]
    figures = {"mse": jnp.ones((3, STEPS))}

    def eval_step(params, batch):
        sums = batch_sums(figures, jnp.ones(3))
        return {"model": sums, "clip_mse": jnp.asarray(rows[params.pop()])}

    mesh, some = data_mesh(jax.devices()[:1]), next(batches(CLIPS))
    results = evaluate(eval_step, summarize_frames, [2, 1, 0], [some] * 3, mesh)
    assert [clip["index"] for clip in results["worst_clips"]] == [4, 1, 6, 3]
    assert [clip["mse"] for clip in results["worst_clips"]] == [None, 9.0, 8.0, 7.0]


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="there are no batches to evaluate on"):
        evaluate(lambda params, batch: {}, summarize_frames, None, [], data_mesh())


def test_no_clip_that_counts_is_an_error():
    mesh = data_mesh(jax.devices()[:1])
    (batch,) = batches(CLIPS)
    batch["weight"] = np.zeros(CLIPS, np.float32)
    with pytest.raises(ValueError, match="number of samples evaluated is 0"):
        evaluate(
            make_eval_step(mesh), summarize_frames, jnp.float32(0.25), [batch], mesh
        )
