"""The smallest and the largest legal value of fields, generated from their classes."""

import math
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convlstm_jax.config import applies, validated
from convlstm_jax.data.data_sets import DATA_SETS
from convlstm_jax.models import MODELS
from convlstm_jax.training.optimizer import OPTIMIZERS

FRAMES = np.zeros((1, 2, 64, 64, 1), np.float32)
# Data that are drawn in memory.
SYNTHETIC = {"moving_mnist", "moving_squares", "bubbles", "theft_videos", "rain_cells"}


def bounds(cls):
    """(field, value, what makes it exist) for each number with a bound."""
    for name, info in cls.model_fields.items():
        rule, kind = cls.rule(name), info.annotation
        needs = {other: values[0] for other, values in rule.when.items()}
        for other in list(needs):
            needs |= {k: v[0] for k, v in cls.rule(other).when.items()}
        entry = typing.get_args(kind)[0] if typing.get_args(kind) else kind
        if entry not in (int, float):
            continue
        tiny = 1 if entry is int else 1e-6
        low, high = max(rule.ge, rule.gt + tiny), min(rule.le, rule.lt - tiny)
        values = [entry(x) for x in (low, high) if math.isfinite(x)]
        if entry is not kind:
            values = [(value,) * max(rule.min_length, 1) for value in values]
        for value in values:
            yield name, value, needs


def cases(classes):
    return [
        pytest.param(cls, field, value, needs, id=f"{key}.{field}={value}")
        for key, cls in classes.items()
        for field, value, needs in bounds(cls)
    ]


def legal(cls, needs, field, value):
    """The config; `None` if the value is refused beside the defaults of others."""
    config, problems = validated(cls, {**needs, field: value})
    assert all("must" in problem for problem in problems)
    assert (config is None) == bool(problems)
    return config


@pytest.mark.parametrize(("cls", "field", "value", "needs"), cases(MODELS))
def test_networks_are_built(cls, field, value, needs):
    """Their outputs have the shapes they should, traced without computing any."""
    if (config := legal(cls, needs, field, value)) is None:
        return
    assert applies(cls, field, vars(config))
    if getattr(config, "patch_size", 1) > 32:
        return  # Of no frame of 64 pixels; the experiment refuses it.
    network = config.build()
    key = jax.random.key(0)
    if config.kind == "classes":
        call = lambda: network.init_with_output(key, jnp.asarray(FRAMES))[0]  # noqa: E731
        assert jax.eval_shape(call).shape == (1, 2)
    elif config.kind == "decoders":
        targets = {"reconstruction": FRAMES, "forecast": FRAMES}
        call = lambda: network.init_with_output(key, jnp.asarray(FRAMES), targets)[0]  # noqa: E731
        assert {x.shape for x in jax.eval_shape(call).values()} == {FRAMES.shape}
    else:

        def call():
            variables = network.init_forecaster(key, FRAMES.shape[2:])
            return network.forecast(variables, jnp.asarray(FRAMES), 3).frames

        assert jax.eval_shape(call).shape == (1, 3, 64, 64, 1)


@pytest.mark.parametrize(("cls", "field", "value", "needs"), cases(OPTIMIZERS))
def test_optimizers_take_a_step(cls, field, value, needs):
    if (config := legal(cls, needs, field, value)) is None:
        return
    optimizer = config.build(10, 5)
    params = {
        "layer": {"recurrent_kernel": jnp.ones((3, 3, 2, 8)), "bias": jnp.ones(8)}
    }
    state = optimizer.init(params)
    gradient = jax.tree.map(lambda x: 0.1 * x, params)
    updates, _ = optimizer.update(gradient, state, params, value=jnp.ones(()))
    for leaf in jax.tree.leaves(optax.apply_updates(params, updates)):
        assert not np.isnan(leaf).any()


@pytest.mark.parametrize(
    ("cls", "field", "value", "needs"),
    cases({name: DATA_SETS[name] for name in sorted(SYNTHETIC)}),
)
def test_synthetic_clips_are_drawn(cls, field, value, needs):
    if (config := legal(cls, needs, field, value)) is None:
        return
    if math.prod(config.frame_shape) > 1e6:
        return  # Gigabytes a clip: legal where there is the memory.
    sources = config.sources(num_frames=2, seed=0)
    clip = sources.train[0]["frames"]
    assert clip.shape == (2, *config.frame_shape)
    assert np.isfinite(clip).all()
