"""Every network, frame by frame = the whole clip at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.models import MODELS
from tests.trees import assert_trees_close, fast_jit, random_like

SHAPE = (2, 4, 8, 8, 1)
KERNELS = {"input_kernel_size": 3, "recurrent_kernel_size": 3, "patch_size": 2}
NEXT_FRAME = {"kernel_sizes": (3, 1), "num_normalized_layers": 1, "head_frames": 3}
NETWORKS = {
    "encoder_forecaster": KERNELS,
    "encoder_forecaster trajgru": KERNELS | {"num_links": 2},
    "fc_lstm": {},
    "recurrent_predictor": KERNELS | {"layer_norm": True},
    "recurrent_predictor mim": KERNELS,
    "recurrent_predictor mingru": {"input_kernel_size": 3, "patch_size": 2},
    "recurrent_predictor predrnnpp": KERNELS,
    "next_frame": NEXT_FRAME | {"causal_head": True},
    "next_frame convgru": NEXT_FRAME | {"causal_head": False},
    "fc_lstm_autoencoder": {"conditional": True},
    "clip_classifier minlstm": KERNELS | {"pool_size": 2},
}


def predict(model, name, variables, state):
    if name == "clip_classifier":
        return state.logits
    if name == "fc_lstm_autoencoder":
        lengths = {"reconstruction": 2, "forecast": 3}
        return model.apply(variables, state, lengths, method="decode")
    return model.apply(variables, state, 3, method="forecast_from").frames


def build(system):
    """The network, and random distinct variables and frames."""
    name, _, cell = system.partition(" ")
    extra = {"cell": cell} if cell else {}
    features = (3, 3) if cell else (4, 3)
    model = MODELS[name](features=features, **NETWORKS[system], **extra).build()
    arguments = {
        "fc_lstm_autoencoder": [
            dict.fromkeys(("reconstruction", "forecast"), np.zeros(SHAPE))
        ],
        "recurrent_predictor": [np.ones((2, 4), bool)],
    }.get(name, [1] if name in ("encoder_forecaster", "fc_lstm") else [])
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros(SHAPE), *arguments)
    )
    variables = random_like(shapes, seed=4)
    if "batch_stats" in variables:
        variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    frames = np.random.default_rng(4).random(SHAPE).astype(np.float32)
    return model, name, variables, frames


@pytest.mark.parametrize("system", NETWORKS)
def test_a_stream_is_the_whole_clip(system):
    model, name, variables, frames = build(system)
    read = functools.partial(model.apply, method="read")

    @fast_jit
    def run(variables, frames):
        whole = read(variables, frames)
        # From zeros frame by frame, and in parts of other lengths.
        state = jax.tree.map(jnp.zeros_like, whole)
        for t in range(frames.shape[1]):
            state = read(variables, frames[:, t : t + 1], state)
        parts = read(variables, frames[:, 1:], read(variables, frames[:, :1]))
        states = whole, state, parts
        return [(s, predict(model, name, variables, s)) for s in states]

    expected, *found = jax.device_get(run(variables, frames))
    for one in found:
        assert_trees_close(one, expected, rtol=1e-5, atol=1e-5)
    other = jax.device_get(run(variables, frames[:, ::-1]))[0]
    changes = jax.tree.map(lambda x, y: np.abs(x - y).max(), other[1], expected[1])
    assert min(jax.tree.leaves(changes)) > 1e-4
