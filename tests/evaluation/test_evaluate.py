"""Evaluations, forecasts of single clips, and what VMAF adds."""

import functools
import logging
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.errors import UserError
from convlstm_jax.evaluation import evaluate as module
from convlstm_jax.evaluation.evaluate import add_vmaf, evaluate
from convlstm_jax.evaluation.result import (
    EvaluationResult,
    clip_namer,
)
from convlstm_jax.metrics.accumulate import (
    MetricSummary,
    batch_sums,
    summarize,
    sums_by_condition,
)
from convlstm_jax.metrics.vmaf import find_ffmpeg, vmaf
from convlstm_jax.models.network import Forecast
from convlstm_jax.objectives.forecast import FramesObjective
from convlstm_jax.training.sharding import batch_sharded, data_mesh, replicated
from convlstm_jax.viz.player import ClipName

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


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 10), (2, 4), (8, 8)])
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
    assert list(results.contenders) == ["model", "zeros"]
    assert results.condition_counts == {"slow": 3, "fast": 7}
    for name, offset in (("model", 0.25), ("zeros", 0.0)):
        error = clips().astype(np.float64) - offset
        squares = np.square(error).sum((2, 3, 4)).mean(0)
        nats = np.abs(error).sum((2, 3, 4)).mean(0)
        found = results.contenders[name]
        assert set(found.per_lead_time) == {"mse", "cross_entropy_nats"}
        np.testing.assert_allclose(found.per_lead_time["mse"], squares, rtol=1e-5)
        np.testing.assert_allclose(
            found.per_lead_time["cross_entropy_nats"], nats, rtol=1e-5
        )
        assert found.total["mse"] == pytest.approx(squares.mean(), rel=1e-5)
        assert found.total["mse_per_pixel"] == pytest.approx(
            np.square(error).mean(), rel=1e-5
        )
        assert found.total["cross_entropy_nats_per_sequence"] == pytest.approx(
            nats.sum(), rel=1e-5
        )
        assert list(found.per_condition) == ["slow", "fast"]
        for index, condition in ((0, "slow"), (2, "fast")):
            chosen = index == CONDITION
            assert results.condition_counts[condition] == chosen.sum()
            expected = np.square(error[chosen]).sum((2, 3, 4)).mean()
            mse = found.per_condition[condition].total["mse"]
            assert mse == pytest.approx(expected, rel=1e-5)


def test_the_worst_clips_are_named():
    """Rows that do not count are none of them; what is not a number is the worst."""
    rows = [[3.0, 9.0, 1.0], [7.0, np.nan, 5.0], [8.0, -np.inf, -np.inf]]
    figures = {"mse": jnp.ones((3, STEPS))}

    def eval_step(params, batch):
        sums = batch_sums(figures, jnp.ones(3))
        return {"model": sums, "clip_mse": jnp.asarray(rows[params.pop()])}

    mesh, some = data_mesh(jax.devices()[:1]), next(batches(CLIPS))
    films = [f"{index}.avi" for index in range(9)]
    sources = [{"condition": np.int32(index % 2)} for index in range(9)]
    found = evaluate(
        eval_step, summarize_frames, [2, 1, 0], [some] * 3, mesh,
        name_clip=clip_namer(sources, films, ("slow", "fast")),
    )  # fmt: skip
    assert [clip.name.index for clip in found.worst_clips] == [4, 1, 6, 3]
    assert [clip.mse for clip in found.worst_clips] == [None, 9.0, 8.0, 7.0]
    assert str(found.worst_clips[1].name) == "Test sequence 1 (1.avi, fast)"
    assert clip_namer(sources, (), ())(3) == ClipName(3)


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="batches is empty"):
        evaluate(lambda params, batch: {}, summarize_frames, None, [], data_mesh())


def test_no_clip_that_counts_is_an_error():
    mesh = data_mesh(jax.devices()[:1])
    (batch,) = batches(CLIPS)
    batch["weight"] = np.zeros(CLIPS, np.float32)
    with pytest.raises(ValueError, match="number of samples evaluated is 0"):
        evaluate(
            make_eval_step(mesh), summarize_frames, jnp.float32(0.25), [batch], mesh
        )


FFMPEG = find_ffmpeg()
FILMS, SIZE = 7, (24, 32, 1)


@dataclass(frozen=True)
class Fade(FramesObjective):
    """Predicts that the last frame grows darker by a factor."""

    def forecast(self, variables, inputs, num_frames):
        factors = variables["factor"] ** np.arange(1, num_frames + 1)
        return Forecast(inputs[:, -1:] * factors[None, :, None, None, None], None)


TASK = Fade(None, num_input_frames=2, num_output_frames=3)
VARIABLES = {"factor": np.float32(0.9)}


def make_clips(size=SIZE):
    generator = np.random.default_rng(2)
    texture = generator.integers(0, 256, (FILMS, 1, *size), np.uint8)
    frames = np.concatenate([np.roll(texture, t, axis=3) for t in range(5)], axis=1)
    return [
        {"frames": clip, "condition": np.int32(index % 3)}
        for index, clip in enumerate(frames)
    ]


def add(result, clips, count, num_sequences=FILMS):
    mesh = data_mesh(jax.devices()[:1])
    add_vmaf(
        result,
        lambda indices: TASK.examples(VARIABLES, clips, indices, mesh),
        frame_size=clips[0]["frames"].shape[1:3],
        conditions=("slow", "fast", "other"),
        num_sequences=num_sequences,
        num_vmaf_sequences=count,
    )


def make_result(conditions=("slow", "fast", "other")):
    def contender():
        per_condition = {name: MetricSummary({}) for name in conditions}
        return MetricSummary({"mse": 1.0}, per_condition=per_condition)

    return EvaluationResult(
        {name: contender() for name in ("model", "copy_last", "zeros")}
    )


def test_clips_are_forecast_where_they_lie():
    clips = make_clips()
    indices = [5, 0, 6, 1, 2]  # More than go together.
    mesh = data_mesh(jax.devices()[:1])
    found = TASK.examples(VARIABLES, clips, indices, mesh)
    assert [forecast.condition for forecast in found] == [2, 0, 0, 1, 2]
    for index, forecast in zip(indices, found, strict=True):
        frames = clips[index]["frames"] / np.float32(255)
        inputs, truth, prediction = forecast.outputs["model"]
        np.testing.assert_allclose(inputs, frames[:2], rtol=1e-6)
        np.testing.assert_allclose(truth, frames[2:], rtol=1e-6)
        faded = frames[1] * np.float32([0.9, 0.81, 0.729])[:, None, None, None]
        np.testing.assert_allclose(prediction, faded, rtol=1e-6)
    assert TASK.examples(VARIABLES, clips, [], mesh) == []


@pytest.mark.skipif(FFMPEG is None, reason="imageio-ffmpeg is not installed")
def test_vmaf_of_model_and_baselines_in_total_by_lead_time_and_by_condition():
    clips, result = make_clips(), make_result(("slow", "other"))
    add(result, clips, 4)
    # Evenly spread over the seven: of these the conditions are 0, 2, 1, 0.
    chosen = [0, 2, 4, 6]
    assert result.data == {"num_vmaf_sequences": 4}
    frames = np.stack([clips[index]["frames"] for index in chosen]) / np.float32(255)
    last = frames[:, 1:2].repeat(3, axis=1)
    factors = np.float32([0.9, 0.81, 0.729])[:, None, None, None]
    for name, predictions in (
        ("model", last * factors),
        ("copy_last", last),
        ("zeros", np.zeros_like(last)),
    ):
        expected = np.stack(
            [vmaf(FFMPEG, p, t[2:]) for p, t in zip(predictions, frames, strict=True)]
        )
        # A value between two of the 256 levels may be rounded either way.
        close = {"rel": 0.02, "abs": 0.05}
        found = result.contenders[name]
        assert found.total["vmaf"] == pytest.approx(expected.mean(), **close)
        by_lead_time = found.per_lead_time["vmaf"]
        assert by_lead_time == pytest.approx(expected.mean(0), **close)
        per_condition = found.per_condition
        of_slow = per_condition["slow"].total["vmaf"]
        assert of_slow == pytest.approx(expected[[0, 3]].mean(), **close)
        of_other = per_condition["other"].total["vmaf"]
        assert of_other == pytest.approx(expected[1].mean(), **close)


@pytest.mark.skipif(FFMPEG is None, reason="imageio-ffmpeg is not installed")
def test_a_condition_without_a_measured_clip_has_none():
    result = make_result()
    add(result, make_clips(), 1)
    per_condition = result.model.per_condition
    assert per_condition["slow"].total["vmaf"] is not None
    assert per_condition["fast"].total["vmaf"] is None


def test_without_ffmpeg_the_log_says_how_to_get_it(monkeypatch, caplog):
    monkeypatch.setattr(module, "find_ffmpeg", lambda: None)
    result = make_result()
    with caplog.at_level(logging.INFO):
        add(result, make_clips(), 4)
    (record,) = caplog.records
    assert "pip install imageio-ffmpeg" in record.getMessage()
    assert result == make_result()


def test_small_frames_and_no_wish_give_none(caplog):
    result = make_result()
    with caplog.at_level(logging.INFO):
        add(result, make_clips(), 0)
        assert not caplog.records
        add(result, make_clips((23, 32, 1)), 4)
    (record,) = caplog.records
    assert "23×32 pixels, and it needs at least 24" in record.getMessage()
    assert result == make_result()


def test_an_ffmpeg_that_fails_leaves_the_evaluation(monkeypatch, caplog):
    def fail(*arguments):
        raise UserError("ffmpeg said no.")

    monkeypatch.setattr(module, "find_ffmpeg", lambda: "ffmpeg")
    monkeypatch.setattr(module, "vmaf", fail)
    result = make_result()
    add(result, make_clips(), 6)
    assert [record.getMessage() for record in caplog.records] == [
        "no VMAF: ffmpeg said no."
    ]
    assert result == make_result()
