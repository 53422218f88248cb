import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.config import validated
from convlstm_jax.models.next_frame import NextFrameConfig, NextFramePredictor
from tests.trees import fast_jit, random_like

TINY = {"features": (3, 4), "kernel_sizes": (3, 1), "num_normalized_layers": 1}
SHAPE = (2, 6, 5, 4, 2)


def make(**fields):
    return NextFramePredictor(**(TINY | fields))


def clip(shape=SHAPE, seed=1):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def shapes_of(model, shape=SHAPE):
    inputs = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), inputs)


def random_variables(model):
    """Random distinct weights; positive ones where variances stand."""
    variables = random_like(shapes_of(model))
    for statistics in variables.get("batch_stats", {}).values():
        statistics["var"] = jnp.abs(statistics["var"]) + 0.2
    return variables


def test_first_values_are_those_of_keras():
    model = make(num_normalized_layers=2)
    variables = fast_jit(model.init)(jax.random.key(0), clip())
    cell = variables["params"]["layer_0"]
    np.testing.assert_array_equal(cell["bias"], [0] * 3 + [1] * 3 + [0] * 6)
    recurrent = np.reshape(cell["recurrent_kernel"], (27, 12))
    np.testing.assert_allclose(recurrent.T @ recurrent, np.eye(12), atol=1e-5)
    limit = np.sqrt(6 / (9 * 2 + 9 * 12))
    assert 0.9 * limit < np.abs(cell["input_kernel"]).max() <= limit
    head = variables["params"]["head"]
    assert head["kernel"].shape == (3, 3, 3, 4, 2)
    np.testing.assert_array_equal(head["bias"], [0, 0])
    for index, features in enumerate((3, 4)):
        name = f"normalization_{index}"
        for tree, key, value in (
            ("params", "scale", 1), ("params", "bias", 0),
            ("batch_stats", "mean", 0), ("batch_stats", "var", 1),
        ):  # fmt: skip
            np.testing.assert_array_equal(
                variables[tree][name][key], np.full(features, value)
            )


@pytest.mark.parametrize("causal_head", [True, False])
@pytest.mark.parametrize("frame", [2, 5])
def test_what_the_model_knows_of_the_future(causal_head, frame):
    """Nothing; with the Keras examples' head, the next frame: one frame leaks."""
    model = make(causal_head=causal_head)
    variables = random_variables(model)
    changed = clip()
    changed[:, frame] = clip(seed=2)[:, frame]
    run = fast_jit(model.apply)
    before, after = run(variables, clip()), run(variables, changed)
    first = frame if causal_head else frame - 1
    np.testing.assert_array_equal(before[:, :first], after[:, :first])
    differs = np.abs(before - after).max((0, 2, 3, 4))[first:]
    assert differs.min() > 1e-5


@pytest.mark.parametrize("fields", [{}, {"batch_norm_momentum": 0.75}])
def test_running_statistics_follow_keras_rule(fields):
    """r ← m r + (1 − m) s, with the mean and the biased variance of the batch."""
    model = make(**fields)
    kept = fields.get("batch_norm_momentum", 0.99)
    variables = random_variables(model)

    @fast_jit
    def run(variables, inputs):
        return model.apply(
            variables, inputs, train=True, mutable=["batch_stats"],
            capture_intermediates=True,
        )  # fmt: skip

    # What is normalised: the first layer's outputs, by a model of that layer alone.
    logits, state = run(variables, clip())
    captured = state["intermediates"]
    (hidden,) = [
        value for name, value in captured.items() if name == "RecurrentLayer_0"
    ]
    _, outputs = hidden["__call__"][0]
    normalised = captured["normalization_0"]["__call__"][0]
    mean, variance = outputs.mean((0, 1, 2, 3)), outputs.var((0, 1, 2, 3))
    before = variables["batch_stats"]["normalization_0"]
    after = state["batch_stats"]["normalization_0"]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    close(after["mean"], kept * before["mean"] + (1 - kept) * mean)
    close(after["var"], kept * before["var"] + (1 - kept) * variance)
    # Training normalises with the batch's own statistics.
    weights = variables["params"]["normalization_0"]
    expected = (np.asarray(outputs) - np.asarray(mean)) / np.sqrt(variance + 1e-3)
    expected = expected * np.asarray(weights["scale"]) + np.asarray(weights["bias"])
    close(normalised, expected, atol=1e-5)
    assert logits.shape == SHAPE


def test_evaluation_uses_the_running_statistics_and_leaves_them():
    model = make()
    variables = random_variables(model)

    @fast_jit
    def run(variables, inputs):
        return model.apply(variables, inputs, mutable=["batch_stats"])

    logits, state = run(variables, clip())
    jax.tree.map(
        np.testing.assert_array_equal, state["batch_stats"], variables["batch_stats"]
    )
    # The clips of a batch know nothing of each other.
    alone, _ = run(variables, clip()[:1])
    np.testing.assert_allclose(alone, logits[:1], rtol=1e-5, atol=1e-5)
    moved = jax.tree.map(lambda leaf: leaf + 1, variables["batch_stats"])
    other, _ = run({**variables, "batch_stats": moved}, clip())
    assert np.abs(other - logits).max() > 1e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kernel_sizes": (3,)}, "kernel_sizes is (3,): it must have as many entries"),
        ({"num_normalized_layers": 3}, "num_normalized_layers is 3: it must be from 0"),
    ],
)
def test_what_does_not_fit_together_is_refused(fields, message):
    (problem,) = validated(NextFrameConfig, TINY | fields)[1]
    assert message in problem
