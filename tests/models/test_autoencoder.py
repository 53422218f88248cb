import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.models.autoencoder import FCLSTMAutoencoder
from tests.ops.oracle import lstm_step, sigmoid
from tests.trees import fast_jit, random_like

SHAPE = (2, 3, 4, 5, 1)
PIXELS = 20
FEATURES = (4, 3)


def frames(seed=1, num_frames=SHAPE[1]):
    shape = (SHAPE[0], num_frames, *SHAPE[2:])
    return jnp.asarray(np.random.default_rng(seed).random(shape), jnp.float32)


def random_variables(model, targets):
    shapes = jax.eval_shape(model.init, jax.random.key(0), frames(), targets)
    return random_like(shapes)


def oracle(params, inputs, decoder, steps, truth=None, conditional=False):
    """The paper's model frame by frame: logits `[B, steps, pixels]`."""
    params = jax.tree.map(np.asarray, params)
    inputs = np.asarray(inputs).reshape(SHAPE[0], -1, PIXELS)
    carries = [(np.zeros((SHAPE[0], size)),) * 2 for size in FEATURES]

    def run(names, carries, frame):
        new = []
        for weights, carry in zip(names, carries, strict=True):
            carry = lstm_step(weights["lstm"]["cell"], carry, frame)
            new.append(carry)
            frame = carry[1]
        return new, frame

    encoder = [params[f"encoder_{index}"] for index in range(2)]
    for t in range(inputs.shape[1]):
        carries, _ = run(encoder, carries, inputs[:, t])
    weights = params[f"decoder_{decoder}"]
    layers = [weights[f"lstm_{index}"] for index in range(2)]
    output, logits = weights["output"], []
    frame = np.zeros((SHAPE[0], PIXELS)) if conditional else None
    for t in range(steps):
        carries, hidden = run(layers, carries, frame)
        logits.append(hidden @ output["kernel"] + output["bias"])
        if conditional:
            frame = sigmoid(logits[-1])
            if truth is not None:
                frame = np.asarray(truth[:, t]).reshape(SHAPE[0], PIXELS)
    return np.stack(logits, axis=1).reshape(SHAPE[0], steps, *SHAPE[2:])


@pytest.mark.parametrize("implementation", ["fused", "scan"])
@pytest.mark.parametrize("conditional", [False, True])
def test_the_model_is_the_papers_frame_by_frame(conditional, implementation):
    model = FCLSTMAutoencoder(
        FEATURES, conditional=conditional, implementation=implementation
    )
    inputs = frames()
    targets = {"reconstruction": frames(2), "forecast": frames(3, 4)}
    variables = random_variables(model, targets)
    lengths = {"forecast": 5, "reconstruction": 2}
    trained, generated = fast_jit(
        lambda: (
            model.apply(variables, inputs, targets),
            model.apply(variables, inputs, lengths, method="generate"),
        )
    )()
    check = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    run = functools.partial(
        oracle, variables["params"], inputs, conditional=conditional
    )
    for name, target in targets.items():
        assert trained[name].shape == target.shape
        check(trained[name], run(name, target.shape[1], truth=target))
        check(generated[name], run(name, lengths[name]))
    assert trained["forecast"].dtype == generated["forecast"].dtype == jnp.float32
    if conditional:
        # Own outputs are not the truth: from the second frame on they differ.
        short = generated["forecast"][:, :4]
        check(short[:, 0], trained["forecast"][:, 0])
        assert np.abs(short - trained["forecast"])[:, 1:].max((0, 2, 3, 4)).min() > 1e-3


@pytest.mark.parametrize("frame", [0, 2])
def test_training_logits_do_not_depend_on_the_true_frame_they_are_to_give(frame):
    model = FCLSTMAutoencoder(FEATURES, conditional=True)
    targets = {"reconstruction": frames(2), "forecast": frames(3)}
    variables = random_variables(model, targets)
    run = fast_jit(model.apply)
    before = run(variables, frames(), targets)
    other = targets["forecast"].at[:, frame].add(0.5)
    after = run(variables, frames(), {**targets, "forecast": other})
    np.testing.assert_array_equal(
        after["forecast"][:, : frame + 1], before["forecast"][:, : frame + 1]
    )
    np.testing.assert_array_equal(after["reconstruction"], before["reconstruction"])
    if frame < 2:
        assert np.abs(after["forecast"] - before["forecast"])[:, frame + 1].max() > 1e-3


def test_an_unconditional_decoder_sees_no_target_at_all():
    model = FCLSTMAutoencoder(FEATURES)
    targets = {"reconstruction": frames(2), "forecast": frames(3)}
    variables = random_variables(model, targets)
    run = fast_jit(model.apply)
    others = {name: 1 - target for name, target in targets.items()}
    for name, logits in run(variables, frames(), targets).items():
        np.testing.assert_array_equal(logits, run(variables, frames(), others)[name])
    for name in targets:
        cell = variables["params"][f"decoder_{name}"]["lstm_0"]["lstm"]["cell"]
        assert "input_kernel" not in cell
