"""Feng et al. 2024 in plain NumPy and in PyTorch → the cells → layers and networks."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import (
    clip_classification,
    moving_mnist,
    moving_mnist_next_frame,
    moving_mnist_recurrent,
)
from convlstm_jax.cells import CELLS
from convlstm_jax.cells.minimal import MinGRUCell, MinLSTMCell, positive
from convlstm_jax.cli.experiment import experiment
from convlstm_jax.errors import UserError
from convlstm_jax.layers.recurrent import IMPLEMENTATIONS, RecurrentLayer
from convlstm_jax.models.recurrent_predictor import RecurrentPredictor
from convlstm_jax.ops.engine import MEMORY
from tests.ops.cases import (
    assert_trees_close,
    fast_jit,
    run_as_on_an_accelerator,
    run_by_tiles,
)
from tests.ops.oracle import convolve, sigmoid

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


@pytest.mark.parametrize("name", NAMES)
def test_the_cell_follows_the_rnn_interface_and_promotes_nothing(name):
    cell, frames = make_cell(name, jnp.float32), jnp.zeros((1, 3, 4, 5, 2))
    both = nn.Bidirectional(nn.RNN(cell), nn.RNN(cell.clone()))
    with jax.numpy_dtype_promotion("strict"):
        outputs, variables = jax.eval_shape(
            both.init_with_output, jax.random.key(0), frames
        )
    assert outputs.shape == (1, 3, 4, 5, 2 * FEATURES)
    assert outputs.dtype == jnp.float32
    assert len(jax.tree.leaves(variables)) == 4


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_cell_that_reads_nothing_is_refused(name, implementation):
    layer = RecurrentLayer(make_cell(name, jnp.float32), implementation)
    init = functools.partial(layer.init, initial_carry=jnp.zeros(STATE), num_steps=2)
    message = f"inputs is None: a {CELLS[name].__name__} cannot run without input"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(init, jax.random.key(0), None)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        (
            moving_mnist_next_frame,
            {"kernel_sizes": "3,1", "num_normalized_layers": "1"},
        ),
        (clip_classification, {"input_kernel_size": "3"}),
        (moving_mnist_recurrent, {"input_kernel_size": "3"}),
    ],
)
def test_networks_learn_with_the_cells_by_config(config, overrides, name):
    values = {"cell": name, "features": "3,2", **overrides}
    network = experiment(
        config.get_config(),
        {f"model.{field}": value for field, value in values.items()},
        reads_data=False,
    ).model.build()
    generator = np.random.default_rng(0)

    def normal(shape):
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    frames = normal((1, 3, 16, 8, 1))
    arguments = (frames, *getattr(network, "init_arguments", ()))
    shapes = jax.eval_shape(network.init, jax.random.key(0), *arguments)
    params = jax.tree.map(lambda leaf: normal(leaf.shape), shapes["params"])
    others = {
        n: jax.tree.map(jnp.ones_like, shapes[n]) for n in shapes if n != "params"
    }
    assert set(params["layer_0"]) == {"input_kernel", "bias"}
    assert params["layer_0"]["bias"].shape == (CELLS[name].num_gates * 3,)

    def loss(params):
        return jnp.cos(network.apply({"params": params, **others}, *arguments)).sum()

    gradients = fast_jit(jax.grad(loss))(params)
    assert all(leaf.any() for leaf in jax.tree.leaves(gradients))


def test_the_recurrent_predictor_reads_its_own_predictions():
    """Cell by cell in a Python loop, the last two steps from predictions."""
    network = RecurrentPredictor((FEATURES, 2), 3, patch_size=1, cell="mingru")
    frames = jnp.asarray(np.random.default_rng(1).normal(size=SHAPE), jnp.float32)
    teacher_forcing = jnp.broadcast_to(jnp.arange(SHAPE[1]) < 3, SHAPE[:2])
    init = fast_jit(network.init)
    variables = init(jax.random.key(0), frames, teacher_forcing)
    cells = [MinGRUCell(FEATURES, 3), MinGRUCell(2, 3)]

    def by_hand(weights):
        carries = [jnp.zeros(STATE), jnp.zeros((*STATE[:-1], 2))]
        predictions = []
        for t in range(SHAPE[1]):
            hidden = frames[:, t] if t < 3 else predictions[-1]
            for index, cell in enumerate(cells):
                layer = {"params": weights[f"layer_{index}"]}
                carries[index], hidden = cell.apply(layer, carries[index], hidden)
            predictions.append(hidden @ weights["output_kernel"][0, 0])
        return jnp.stack(predictions, axis=1)

    both = fast_jit(
        lambda variables: (
            network.apply(variables, frames, teacher_forcing),
            by_hand(variables["params"]),
        )
    )
    np.testing.assert_allclose(*both(variables), rtol=1e-5, atol=1e-6)


def test_configs_refuse_the_cells_where_they_make_no_sense():
    config = moving_mnist.get_config()
    for cell in NAMES:
        message = (
            rf"config\.model\.cell is '{cell}': it must be one of 'convlstm', 'convgru'"
        )
        with pytest.raises(UserError, match=message):
            experiment(config, {"model.cell": cell}, reads_data=False)
    message = (
        r"config\.model\.recurrent_kernel_size does not exist with "
        r"config\.model\.cell='mingru': it needs config\.model\.cell='convlstm' or"
    )
    overrides = {"model.cell": "mingru", "model.recurrent_kernel_size": "5"}
    config = moving_mnist_recurrent.get_config()
    with pytest.raises(UserError, match=message):
        experiment(config, overrides, reads_data=False)
