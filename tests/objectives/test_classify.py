import functools
import math

import jax
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from convlstm_jax.errors import UserError
from convlstm_jax.metrics.accumulate import add_sums, batch_sums
from convlstm_jax.models.clip_classifier import ClipClassifier
from convlstm_jax.objectives.classify import ClassificationObjective, balanced_weights
from tests.trees import random_like

FRAME_SHAPE = (8, 12, 3)
CLASSES = ("normal", "theft", "queue")
COUNTS = (6, 2, 1)


def make_task(**fields):
    model = ClipClassifier((3, 4), 3, patch_size=2)
    return ClassificationObjective(model, 3, CLASSES, **fields)


@functools.cache
def variables():
    init = make_task().init
    shapes = jax.eval_shape(lambda key: init(key, FRAME_SHAPE), jax.random.key(0))
    return random_like(shapes, 0.5, seed=1)


def batch(num_clips=4):
    generator = np.random.default_rng(0)
    shape = (num_clips, 3, *FRAME_SHAPE)
    return {
        "frames": generator.integers(0, 256, shape, dtype=np.uint8),
        "label": np.int32([0, 1, 2, 1, 0, 0][:num_clips]),
        "weight": np.float32([1, 1, 1, 0, 1, 1][:num_clips]),
    }


@functools.cache
def compiled_loss(task):
    return jax.jit(lambda v, b: task.loss_fn(v, b, jax.random.key(0), 0))


def losses(task, batch):
    return compiled_loss(task)(variables(), batch)


@functools.cache
def compiled_classify():
    return jax.jit(make_task().classify)


def test_the_probabilities_are_the_softmax_of_the_models_logits():
    task, frames = make_task(), batch()["frames"]
    logits = np.float64(
        jax.jit(task.model.apply)(variables(), np.float32(frames) / 255)
    )
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.ptp(expected, axis=0).min() > 1e-4
    run = compiled_classify()
    np.testing.assert_allclose(run(variables(), frames), expected, rtol=1e-5)
    in_unit_interval = np.float32(frames) / 255
    np.testing.assert_allclose(run(variables(), in_unit_interval), expected, rtol=1e-5)


def test_the_loss_is_the_weighted_cross_entropy_of_every_clip():
    weights = (0.5, 2.0, 1.25)
    label = batch()["label"]
    probabilities = np.asarray(compiled_classify()(variables(), batch()["frames"]))
    nats = -np.log(probabilities[np.arange(4), label])
    plain, state = losses(make_task(), batch())
    assert state == {}
    np.testing.assert_allclose(plain, nats, rtol=1e-5)
    weighted, _ = losses(make_task(class_weights=weights), batch())
    np.testing.assert_allclose(weighted, nats * np.array(weights)[label], rtol=1e-5)


def test_balanced_weights_are_scikit_learns_and_average_to_one():
    weights = balanced_weights(COUNTS)
    clips = np.repeat(np.arange(3), COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=clips)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    assert np.mean(np.array(weights)[clips]) == pytest.approx(1, rel=1e-12)
    with pytest.raises(UserError, match=r"class_counts is \(3, 0\): for"):
        balanced_weights((3, 0))


def summarized(task, with_baselines):
    @jax.jit
    def step(variables, batch):
        contenders = task.measure(variables, batch, with_baselines=with_baselines)
        return {
            name: batch_sums(figures, batch["weight"])
            for name, figures in contenders.items()
        }

    sums = jax.device_get(step(variables(), batch(6)))
    return {
        name: task.summarize(add_sums(None, total), FRAME_SHAPE)
        for name, total in sums.items()
    }


def test_validation_tells_the_training_loss():
    weights = (0.5, 2.0, 1.25)
    found = summarized(make_task(class_weights=weights, class_counts=COUNTS), False)
    assert set(found) == {"model"}
    total = found["model"].total
    counted = batch(6)["weight"] > 0
    weighted, _ = losses(make_task(class_weights=weights), batch(6))
    plain, _ = losses(make_task(), batch(6))
    assert total["loss"] == pytest.approx(float(weighted[counted].mean()), rel=1e-5)
    nats = total["cross_entropy_nats_per_clip"]
    assert nats == pytest.approx(float(plain[counted].mean()), rel=1e-5)


def test_an_evaluation_has_the_majority_beside_the_model():
    assert set(summarized(make_task(), True)) == {"model"}
    found = summarized(make_task(class_counts=COUNTS), True)
    assert set(found) == {"model", "majority"}
    probabilities = compiled_classify()(variables(), batch(6)["frames"])
    counted = batch(6)["weight"] > 0
    label, predicted = batch(6)["label"][counted], probabilities.argmax(axis=1)[counted]
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (label, predicted), 1)
    model, majority = (found[name].total for name in ("model", "majority"))
    assert found["model"].confusion == confusion.tolist()
    assert "loss" not in model
    assert found["majority"].confusion == [[3, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert majority["accuracy"] == pytest.approx(3 / 5)
    assert majority["cross_entropy_nats_per_clip"] == pytest.approx(
        -(3 * math.log(6 / 9) + math.log(2 / 9) + math.log(1 / 9)) / 5, rel=1e-6
    )
    assert list(found["model"].per_class) == list(CLASSES)
    assert found["model"].per_lead_time == {}
