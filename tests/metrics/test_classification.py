import dataclasses
import json
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics
from sklearn.dummy import DummyClassifier

from convlstm_jax.metrics.accumulate import add_sums, batch_sums
from convlstm_jax.metrics.classification import (
    classification_metrics,
    majority_logits,
    summarize_classification,
)

CLASSES = ("bag", "normal", "theft", "queue")


@jax.jit
def step(logits, label, weight):
    return batch_sums(classification_metrics(logits, label), weight)


def total_of(logits, label):
    """Summed in batches of four, the last padded with NaN and a label of nothing."""
    total = None
    for start in range(0, len(label), 4):
        rows, labels = logits[start : start + 4], label[start : start + 4]
        missing = 4 - len(labels)
        rows = np.pad(rows, ((0, missing), (0, 0)), constant_values=np.nan)
        labels = np.pad(labels, (0, missing), constant_values=-1)
        weight = np.float32(np.arange(4) < 4 - missing)
        total = add_sums(total, step(rows, labels, weight))
    return total


def random_clips(truths, predictions, num_clips=42):
    """Logits whose greatest is one of `predictions`, labels out of `truths`."""
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(num_clips, len(CLASSES))).astype(np.float32)
    unwanted = [k for k in range(len(CLASSES)) if k not in predictions]
    logits[:, unwanted] -= 10
    return logits, generator.choice(truths, num_clips).astype(np.int32)


@pytest.mark.parametrize(
    ("truths", "predictions"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([0, 2], [0, 1, 2, 3]),  # Two classes have no clips.
        ([0, 1, 2, 3], [1, 2]),  # Two are never predicted.
        ([0, 1], [1, 2]),  # One has neither.
        ([3], [0]),
    ],
)
def test_agreement_with_scikit_learn(truths, predictions):
    logits, label = random_clips(truths, predictions)
    found = summarize_classification(total_of(logits, label), CLASSES)
    predicted, names = logits.argmax(axis=1), range(len(CLASSES))

    assert found.confusion == sklearn_metrics.confusion_matrix(
        label, predicted, labels=names
    ).tolist()  # fmt: skip
    assert found.total["accuracy"] == pytest.approx(
        sklearn_metrics.accuracy_score(label, predicted), rel=1e-12
    )
    with warnings.catch_warnings():
        # It tells that predictions are of classes that no clip is of.
        warnings.simplefilter("ignore", UserWarning)
        balanced = sklearn_metrics.balanced_accuracy_score(label, predicted)
    assert found.total["balanced_accuracy"] == pytest.approx(balanced, rel=1e-12)
    probabilities = np.exp(np.float64(logits))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert found.total["cross_entropy_nats_per_clip"] == pytest.approx(
        sklearn_metrics.log_loss(label, probabilities, labels=names), rel=1e-5
    )
    figures = sklearn_metrics.precision_recall_fscore_support(
        label, predicted, labels=names, zero_division=np.nan
    )
    for name, *expected in zip(CLASSES, *figures, strict=True):
        assert list(found.per_class[name]) == ["precision", "recall", "f1", "support"]
        for value, known in zip(found.per_class[name].values(), expected, strict=True):
            if np.isnan(known):
                assert value is None
            else:
                assert value == pytest.approx(known, rel=1e-12)
    # No NaN and no infinity, which JSON does not have.
    fields = dataclasses.asdict(found)
    assert json.loads(json.dumps(fields, allow_nan=False)) == fields


def test_figures_of_every_clip():
    logits = jnp.asarray([[0.0, 3.0], [2.0, 2.0]], jnp.bfloat16)
    found = classification_metrics(logits, jnp.asarray([0, 1]))
    expected = [[math.log1p(math.exp(3))], [math.log(2)]]
    np.testing.assert_allclose(found["cross_entropy_nats"], expected, rtol=1e-6)
    # Of two equal logits the first one counts.
    expected = [[[0, 1], [0, 0]], [[0, 0], [1, 0]]]
    np.testing.assert_array_equal(found["confusion"], expected)


def test_the_majority_is_scikit_learns_prior():
    counts = (5, 11, 3, 0)
    training = np.repeat(np.arange(4), counts)
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((19, 1)), training)
    _, label = random_clips([0, 1, 2], [0])
    logits = np.asarray(majority_logits(counts, len(label)))
    found = summarize_classification(total_of(logits, label), CLASSES)
    clips = np.zeros((len(label), 1))
    assert (logits.argmax(axis=1) == dummy.predict(clips)).all()
    assert found.total["accuracy"] == pytest.approx((label == 1).mean())
    assert found.total["balanced_accuracy"] == pytest.approx(1 / 3)
    probabilities = dummy.predict_proba(clips)
    assert found.total["cross_entropy_nats_per_clip"] == pytest.approx(
        sklearn_metrics.log_loss(label, probabilities, labels=range(3)), rel=1e-6
    )


def test_a_cross_entropy_that_is_not_finite_is_none():
    label = np.array([0, 1, 1], np.int32)
    for logits in (majority_logits((4, 0), 3), np.full((3, 2), np.nan, np.float32)):
        found = summarize_classification(total_of(np.asarray(logits), label), "ab")
        assert found.total["cross_entropy_nats_per_clip"] is None
        assert found.total["accuracy"] == pytest.approx(1 / 3)


def test_what_cannot_be_summarized():
    logits, label = random_clips([0, 1], [0, 1], num_clips=3)
    empty = add_sums(None, step(logits[:2], label[:2], np.zeros(2)))
    with pytest.raises(ValueError, match="number of samples evaluated is 0"):
        summarize_classification(empty, CLASSES)
    label[1] = 4
    with pytest.raises(
        ValueError, match=r"holds 2 of 3 clips: labels must be .* 0 to 3"
    ):
        summarize_classification(total_of(logits, label), CLASSES)
