"""PredRNN, PredRNN++ and MIM: the papers' equations in plain NumPy → the cells."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.cells import CELLS, build_layers
from convlstm_jax.cells.mim import MIMCarry, MIMCell
from convlstm_jax.cells.predrnn import SpatiotemporalCarry, SpatiotemporalLSTMCell
from convlstm_jax.cells.predrnnpp import CausalLSTMCell, GradientHighwayCell
from convlstm_jax.layers.recurrent import IMPLEMENTATIONS, RecurrentLayer
from convlstm_jax.ops.engine import convolve_with
from tests.ops.oracle import convolve, sigmoid
from tests.trees import assert_trees_close, random_like

BATCH, HEIGHT, WIDTH, CHANNELS, FEATURES = 2, 3, 4, 2, 3
OFFSET = 0.7
FLOAT64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}
SIZES = {"input_kernel_size": 3, "recurrent_kernel_size": 5}


def parts(weights, name, array, count):
    """A convolution, normalised if there are weights for it, cut into gates."""
    z = convolve(array, weights[f"{name}_kernel"])
    if f"{name}_norm_scale" in weights:
        z = (z - z.mean()) / np.sqrt(z.var() + 1e-5)
        z = z * weights[f"{name}_norm_scale"] + weights[f"{name}_norm_offset"]
    return np.split(z, count, axis=-1)


def output(weights, o, c, m):
    return o * np.tanh(convolve(np.concatenate([c, m], -1), weights["mixing_kernel"]))


def predrnn(weights, x, carry):
    c, m, similarity, h = carry
    xi, xf, xg, xi2, xf2, xg2, xo = parts(weights, "input", x, 7)
    hi, hf, hg, ho = parts(weights, "recurrent", h, 4)
    mi, mf, mg = parts(weights, "memory", m, 3)
    delta_c = sigmoid(xi + hi) * np.tanh(xg + hg)
    delta_m = sigmoid(xi2 + mi) * np.tanh(xg2 + mg)
    c = sigmoid(xf + hf + OFFSET) * c + delta_c
    m = sigmoid(xf2 + mf + OFFSET) * m + delta_m
    (co,) = parts(weights, "output", np.concatenate([c, m], -1), 1)
    if similarity is not None:
        a, b = (convolve(d, weights["adapter_kernel"]) for d in (delta_c, delta_m))
        cosines = [
            np.vdot(a[..., n], b[..., n])
            / (np.linalg.norm(a[..., n]) * np.linalg.norm(b[..., n]))
            for n in range(FEATURES)
        ]
        similarity = similarity + np.mean(np.abs(cosines))
    h = output(weights, sigmoid(xo + ho + co), c, m)
    return SpatiotemporalCarry(c, m, similarity, h)


def predrnnpp(weights, x, carry):
    c, m, _, h = carry
    xi, xf, xg, xi2, xf2, xg2, xo = parts(weights, "input", x, 7)
    hi, hf, hg, ho = parts(weights, "recurrent", h, 4)
    ci, cf, cg = parts(weights, "cell", c, 3)
    mi, mf, mm = parts(weights, "memory", m, 3)
    new = sigmoid(xi + hi + ci) * np.tanh(xg + hg + cg)
    c = sigmoid(xf + hf + cf + OFFSET) * c + new
    ni, ng, nf, no = parts(weights, "cell_to_memory", c, 4)
    new = sigmoid(xi2 + mi + ni) * np.tanh(xg2 + ng)
    m = sigmoid(xf2 + mf + nf + OFFSET) * np.tanh(mm) + new
    (mo,) = parts(weights, "memory_to_output", m, 1)
    h = output(weights, np.tanh(xo + ho + no + mo), c, m)
    return SpatiotemporalCarry(c, m, None, h)


def highway(weights, x, z):
    pairs = zip(
        parts(weights, "input", x, 2), parts(weights, "recurrent", z, 2), strict=True
    )
    p, s = (a + b for a, b in pairs)
    return sigmoid(s) * np.tanh(p) + (1 - sigmoid(s)) * z


def memory_module(weights, name, x, h, c):
    xi, xg, xf, xo = parts(weights, f"{name}_input", x, 4)
    hi, hg, hf, ho = parts(weights, f"{name}_recurrent", h, 4)
    pi, pf = np.split(weights[f"{name}_peephole"], 2, axis=-1)
    i, f = sigmoid(xi + hi + pi * c), sigmoid(xf + hf + pf * c + OFFSET)
    c = f * c + i * np.tanh(xg + hg)
    o = sigmoid(xo + ho + weights[f"{name}_output_peephole"] * c)
    return o * np.tanh(c), c


def mim(weights, x, carry):
    c, m, difference, (d, n), s, previous, started, h = carry
    if previous is not None:
        difference = x - previous
    if started:
        d, n = memory_module(weights, "nonstationary", difference, d, n)
    t, s = memory_module(weights, "stationary", d, c, s)
    xi, xg, xf, xo = parts(weights, "input", x, 4)
    hi, hg, ho = parts(weights, "recurrent", h, 3)
    mi, mg, mf, mo = parts(weights, "memory", m, 4)
    c = t + sigmoid(xi + hi) * np.tanh(xg + hg)
    m = sigmoid(xf + mf + OFFSET) * m + sigmoid(xi + mi) * np.tanh(xg + mg)
    h = output(weights, sigmoid(xo + ho + mo), c, m)
    previous = None if previous is None else x
    return MIMCarry(c, m, d, (d, n), s, previous, 1.0, h)


def cell_of(cls, **fields):
    own = cls.__dataclass_fields__
    fields = {**FLOAT64, **SIZES, "forget_offset": OFFSET, **fields}
    return cls(FEATURES, **{k: v for k, v in fields.items() if k in own})


def drawn(tree, seed):
    return random_like(tree, 0.6, seed, float)


CASES = {
    "predrnn": (SpatiotemporalLSTMCell, predrnn, {}),
    "decoupling": (SpatiotemporalLSTMCell, predrnn, {"decoupling": True}),
    "predrnnpp": (CausalLSTMCell, predrnnpp, {}),
    "highway": (GradientHighwayCell, highway, {}),
    "first mim": (MIMCell, mim, {"first": True}),
    "mim": (MIMCell, mim, {"first": False}),
}


@pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "layer norm"])
@pytest.mark.parametrize("case", CASES)
def test_a_step_is_that_of_the_paper(case, layer_norm):
    cls, oracle, fields = CASES[case]
    cell = cell_of(cls, layer_norm=layer_norm, **fields)
    channels = FEATURES if case == "mim" else CHANNELS
    frame_shape = (BATCH, HEIGHT, WIDTH, channels)
    with jax.enable_x64(True):
        carry = jax.eval_shape(lambda: cell.initialize_carry(None, frame_shape))
        carry = drawn(carry, 1)
        if isinstance(carry, MIMCarry):  # One clip begins here.
            carry = carry._replace(started=np.array([0.0, 1.0]))
        weights = jax.eval_shape(
            lambda: cell.init(
                jax.random.key(0),
                frame_shape,
                method=lambda cell, shape: cell.weights(shape[-1], HEIGHT, WIDTH),
            )
        )
        weights = drawn(weights, 2)["params"]
        frames = drawn(jax.ShapeDtypeStruct(frame_shape, float), 3)
        adapter = 0.6 * np.random.default_rng(4).normal(size=(1, 1, FEATURES, FEATURES))

        @jax.jit
        def step(weights, carry, frames):
            bound = cell.bind({"params": weights})
            found = bound.weights(channels, HEIGHT, WIDTH)
            kernels = {**found.kernels, "adapter_kernel": jnp.asarray(adapter)}
            convolve = convolve_with(kernels, jnp.float64)
            return cell.step(convolve, found.others, carry, frames)

        new, hidden = jax.device_get(step(weights, carry, frames))
    weights = {**weights, "adapter_kernel": adapter}
    for clip in range(BATCH):
        before = jax.tree.map(lambda leaf, clip=clip: leaf[clip], carry)
        expected = oracle(weights, frames[clip], before)
        after = jax.tree.map(lambda leaf, clip=clip: leaf[clip], new)
        assert_trees_close(after, expected)
        np.testing.assert_array_equal(hidden[clip], jax.tree.leaves(after)[-1])


@pytest.mark.parametrize("name", ["predrnn", "predrnnpp", "mim"])
def test_a_layer_on_its_own_keeps_the_memory(name):
    """Fused = scan, outputs and gradients; of clips of unequal length, too."""
    cell = cell_of(CELLS[name])
    layers = [RecurrentLayer(cell, how) for how in IMPLEMENTATIONS]
    lengths = np.array([3, 2])
    with jax.enable_x64(True):
        frames = np.random.default_rng(1).normal(size=(2, 3, HEIGHT, WIDTH, CHANNELS))
        weights = drawn(
            jax.eval_shape(layers[0].init, jax.random.key(0), jnp.asarray(frames)), 2
        )

        @jax.jit
        def run(weights, frames):
            found = []
            for layer in layers:
                apply = functools.partial(layer.apply, seq_lengths=lengths)
                result, pull = jax.vjp(apply, weights, frames)
                found.append((result, pull(jax.tree.map(jnp.cos, result))))
            return found

        fused, scanned = jax.device_get(run(weights, jnp.asarray(frames)))
    assert_trees_close(fused, scanned)


def test_the_layers_of_a_stack():
    def layers(name, count):
        cells = build_layers(name, (FEATURES,) * count, peephole="none", **SIZES)
        return [(type(cell), cell.name) for cell in cells]

    assert layers("predrnn", 2) == [
        (SpatiotemporalLSTMCell, "layer_0"),
        (SpatiotemporalLSTMCell, "layer_1"),
    ]
    assert layers("predrnnpp", 1) == [(CausalLSTMCell, "layer_0")]
    assert layers("predrnnpp", 3) == [
        (CausalLSTMCell, "layer_0"),
        (GradientHighwayCell, "gradient_highway"),
        (CausalLSTMCell, "layer_1"),
        (CausalLSTMCell, "layer_2"),
    ]
    assert layers("mim", 3) == [
        (SpatiotemporalLSTMCell, "layer_0"),
        (MIMCell, "layer_1"),
        (MIMCell, "layer_2"),
    ]
    firsts = [cell.first for cell in build_layers("mim", (3, 3, 3))[1:]]
    assert firsts == [True, False]
