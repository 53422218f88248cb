"""Feng et al. 2024 in plain NumPy and in PyTorch → the cells → layers and networks."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.cells import CELLS
from convlstm_jax.cells.minimal import MinGRUCell, MinLSTMCell, positive
from convlstm_jax.layers.recurrent import IMPLEMENTATIONS, RecurrentLayer
from convlstm_jax.ops.engine import MEMORY
from tests.ops.cases import run_as_on_an_accelerator, run_by_tiles
from tests.ops.oracle import convolve, sigmoid
from tests.trees import assert_trees_close, fast_jit

NAMES = ("mingru", "minlstm")
SHAPE, FEATURES = (3, 5, 4, 3, 2), 3
STATE = (SHAPE[0], *SHAPE[2:4], FEATURES)
LENGTHS = (2, 5, 0)
LOG3 = np.log(3.0)


def make_cell(name, dtype=jnp.float64, **fields):
    return CELLS[name](FEATURES, 3, dtype=dtype, param_dtype=dtype, **fields)


def draw(name, seed=2):
    """Random distinct float64 (parameters, inputs, carry)."""
    generator = np.random.default_rng(seed)
    gates = CELLS[name].num_gates * FEATURES
    weights = {
        "input_kernel": 0.4 * generator.normal(size=(3, 3, SHAPE[-1], gates)),
        "bias": generator.normal(size=gates),
    }
    inputs, carry = generator.normal(size=SHAPE), generator.normal(size=STATE)
    return {"params": {"cell": weights}}, inputs, carry


def g(x):
    return np.where(x >= 0, x + 0.5, sigmoid(x))


def oracle(name, weights, inputs, carry, lengths, reverse):
    """Clip by clip and frame by frame."""
    outputs, carry = np.zeros((*SHAPE[:4], FEATURES)), carry.copy()
    for clip, length in enumerate(lengths):
        for t in range(length)[:: -1 if reverse else 1]:
            z = convolve(inputs[clip, t], weights["input_kernel"]) + weights["bias"]
            if name == "mingru":
                update, n = sigmoid(z[..., :FEATURES]), g(z[..., FEATURES:])
                carry[clip] = (1 - update) * carry[clip] + update * n
            else:
                f, i, n = np.split(z, 3, axis=-1)
                f, i = sigmoid(f), sigmoid(i)
                carry[clip] = f / (f + i) * carry[clip] + i / (f + i) * g(n)
            outputs[clip, t] = carry[clip]
    return carry, outputs


def distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def run_all(layers, arguments, monkeypatch, **call):
    """(outputs, gradients) of each layer: in a loop, by tiles and in parallel."""
    ways = [None, lambda patch: run_by_tiles(patch, 2), run_as_on_an_accelerator]

    @fast_jit
    def run(*arguments):
        found = []
        for layer in layers:
            for way in ways if getattr(layer, "implementation", "") == "fused" else [0]:

                def apply(variables, inputs, carry, layer=layer):
                    return layer.apply(variables, inputs, initial_carry=carry, **call)

                with monkeypatch.context() as patch:
                    if way:
                        way(patch)
                    result, pull_back = jax.vjp(apply, *arguments)
                    cotangent = jax.tree.map(lambda x: jnp.cos(3 * x), result)
                    found.append((result, pull_back(cotangent)))
        return found

    return jax.device_get(run(*jax.tree.map(jnp.asarray, arguments)))


@pytest.mark.parametrize(("name", "reverse"), [("mingru", False), ("minlstm", True)])
def test_every_way_to_run_equals_the_oracle(name, reverse, monkeypatch):
    variables, inputs, carry = arguments = draw(name)
    cell = make_cell(name)
    layers = [RecurrentLayer(cell, way, reverse) for way in IMPLEMENTATIONS]
    layers += [RecurrentLayer(cell, reverse=reverse, memory=MEMORY[-1])]
    layers += [nn.RNN(cell, return_carry=True, reverse=reverse, keep_order=True)]
    with jax.enable_x64(True):
        first, *others = run_all(layers, arguments, monkeypatch)
    weights = variables["params"]["cell"]
    lengths = [SHAPE[1]] * SHAPE[0]
    assert_trees_close(first[0], oracle(name, weights, inputs, carry, lengths, reverse))
    assert len(others) == 7
    for found in others:
        assert_trees_close(found, first)


@pytest.mark.parametrize(("name", "reverse"), [("mingru", True), ("minlstm", False)])
def test_what_follows_the_end_of_a_clip_reaches_nothing(name, reverse, monkeypatch):
    variables, inputs, carry = draw(name)
    ended = np.arange(SHAPE[1])[None, :] >= np.array(LENGTHS)[:, None]
    inputs[ended] = np.nan
    cell = make_cell(name)
    layers = [RecurrentLayer(cell, way, reverse) for way in IMPLEMENTATIONS]
    call = {"seq_lengths": jnp.array(LENGTHS)}
    with jax.enable_x64(True):
        first, *others = run_all(
            layers, (variables, inputs, carry), monkeypatch, **call
        )
    weights = variables["params"]["cell"]
    expected = oracle(name, weights, inputs, carry, LENGTHS, reverse)
    assert_trees_close(first[0], expected)
    _, (_, input_gradient, _) = first
    assert not input_gradient[ended].any() and input_gradient[~ended].all()
    for found in others:
        assert_trees_close(found, first)


@pytest.mark.parametrize("name", NAMES)
def test_in_float32_all_at_once_is_the_loop(name, monkeypatch):
    """Outputs and gradients within 1e-6 of the largest value of each."""
    as_float = functools.partial(jax.tree.map, np.float32)
    layer = RecurrentLayer(make_cell(name, jnp.float32))
    loop, _, parallel = run_all([layer], as_float(draw(name)), monkeypatch)
    for found, expected in zip(*map(jax.tree.leaves, (parallel, loop)), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_convolves_in_half_and_remembers_in_float32(name, monkeypatch):
    variables, inputs, carry = jax.tree.map(np.float32, draw(name))
    cells = [CELLS[name](FEATURES, 3, dtype=t) for t in (jnp.float32, jnp.bfloat16)]
    exact, *halves = run_all(
        [RecurrentLayer(cells[0], "scan")]
        + [RecurrentLayer(cells[1], way) for way in IMPLEMENTATIONS],
        (variables, inputs, carry),
        monkeypatch,
    )
    for (final, outputs), (gradient, _, _) in halves:
        assert final.dtype == outputs.dtype == np.float32
        assert distance(outputs, exact[0][1]) < 0.01
        assert (
            max(jax.tree.leaves(jax.tree.map(distance, gradient, exact[1][0]))) < 0.05
        )


def test_a_step_by_hand():
    """From h = 4: z = 3/4 and g(2) = 5/2; f = 1/2, i = 3/4 and g(−ln 3) = 1/4."""
    for cell, gates, expected in (
        (MinGRUCell(1), [LOG3, 2], 4 / 4 + 3 / 4 * 5 / 2),
        (MinLSTMCell(1), [0, LOG3, -LOG3], 2 / 5 * 4 + 3 / 5 * 1 / 4),
    ):
        z = jnp.float32(gates).reshape(1, 1, 1, -1)
        carry = jnp.full((1, 1, 1, 1), 4.0)
        parameters = {"bias": jnp.zeros(z.shape[-1])}
        hidden, output = cell.step(lambda z=z, **_: z, parameters, carry, None)
        assert output is hidden
        assert hidden.item() == pytest.approx(expected)
    np.testing.assert_allclose(positive(jnp.array([0.0, 1, -LOG3])), [0.5, 1.5, 0.25])


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ((-20, -20 - LOG3), (0.75, 0.25)),
        ((-200, -200), (0.5, 0.5)),
        ((-200, 1), (0, 1)),
        ((1, -200), (1, 0)),
    ],
)
def test_gates_that_are_shut_still_share_what_there_is(logits, expected):
    """Also in float32, with finite gradients."""
    update = MinLSTMCell(1).update
    f, i, n = (jnp.float32(x) for x in (*logits, 0.5))
    found, pull_back = jax.vjp(update, f, i, n)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-17)
    slopes = pull_back((jnp.float32(1), jnp.float32(0)))
    a, b = expected
    open_gates = [a * b * (x > -40) for x in logits]
    np.testing.assert_allclose(
        slopes, [open_gates[0], -open_gates[1], 0], rtol=1e-5, atol=1e-17
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_cell_equals_the_logarithms_of_the_paper_in_pytorch(name):
    """From positive states, as others have no logarithm."""
    torch = pytest.importorskip("torch")
    variables, inputs, carry = draw(name)
    carry = np.abs(carry)

    @fast_jit
    def run(variables, inputs, carry):
        layer = RecurrentLayer(make_cell(name))

        def apply(*arguments):
            variables, inputs, carry = arguments
            return layer.apply(variables, inputs, initial_carry=carry)[1]

        outputs, pull_back = jax.vjp(apply, variables, inputs, carry)
        return outputs, pull_back(jnp.cos(outputs))

    with jax.enable_x64(True):
        arguments = jax.tree.map(jnp.asarray, (variables, inputs, carry))
        outputs, gradients = jax.device_get(run(*arguments))

    weights = variables["params"]["cell"]
    kernel, bias, frames, state = leaves = [
        torch.tensor(x, requires_grad=True)
        for x in (weights["input_kernel"], weights["bias"], inputs, carry)
    ]
    functional = torch.nn.functional
    z = functional.conv2d(
        frames.flatten(0, 1).permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), bias, 1, 1
    )
    z = z.permute(0, 2, 3, 1).unflatten(0, SHAPE[:2])
    *gates, n = z.chunk(CELLS[name].num_gates, dim=-1)
    if name == "mingru":
        log_keep, log_update = (functional.logsigmoid(s * gates[0]) for s in (-1, 1))
    else:
        log_f, log_i = map(functional.logsigmoid, gates)
        log_both = torch.logaddexp(log_f, log_i)
        log_keep, log_update = log_f - log_both, log_i - log_both
    log_n = torch.where(n >= 0, (n.relu() + 0.5).log(), functional.logsigmoid(n))
    kept = log_keep.cumsum(1)
    terms = torch.cat([state.log()[:, None], log_update + log_n - kept], dim=1)
    expected = (kept + terms.logcumsumexp(1)[:, 1:]).exp()
    expected.backward(expected.detach().cos())
    assert_trees_close(outputs, expected.detach().numpy())
    by_cell, *others = gradients
    found = [*map(by_cell["params"]["cell"].get, ("input_kernel", "bias")), *others]
    assert_trees_close(found, [leaf.grad.numpy() for leaf in leaves])
