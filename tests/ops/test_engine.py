"""NumPy oracle → scan of steps → engine: outputs and every gradient."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend import core
from jax.test_util import check_grads

from convlstm_jax.ops import engine
from convlstm_jax.ops.engine import MEMORY, run
from tests.ops import oracle
from tests.ops.cases import (
    CASES,
    Case,
    as_jax,
    cell_of,
    draw,
    engine_of,
    run_as_on_an_accelerator,
    run_by_tiles,
    scan_of,
    settings,
)
from tests.trees import assert_trees_close, fast_jit


def case_named(name):
    (case,) = (case for case in CASES if case.name == name)
    return case


def results(function, arguments, cotangent=None):
    """Outputs and gradients."""
    outputs, pull_back = jax.vjp(function, *arguments)
    cotangent = jax.tree.map(jnp.cos, outputs) if cotangent is None else cotangent
    return outputs, pull_back(cotangent)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_oracle_scan_and_engine_agree(case):
    """In float64, under cotangents on all results; every third with checkpoints too."""
    drawn = draw(case)
    expected = oracle.sequence(
        *drawn, case.shape[1], case.activation, case.valid, case.reverse
    )
    generator = np.random.default_rng(7)
    cotangent = jax.tree.map(lambda x: generator.normal(size=x.shape), expected)
    cell = cell_of(case)
    functions = [scan_of(cell, **settings(case))]
    memories = MEMORY if CASES.index(case) % 3 == 0 else MEMORY[:1]
    functions += [engine_of(cell, memory=m, **settings(case)) for m in memories]

    @fast_jit
    def all_results(arguments, cotangent):
        return [results(function, arguments, cotangent) for function in functions]

    with jax.enable_x64(True):
        (scanned, scanned_gradients), *by_memory = jax.device_get(
            all_results(as_jax(drawn), jax.tree.map(jnp.asarray, cotangent))
        )
    assert_trees_close(scanned, expected)
    for found, gradients in by_memory:
        assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(found))
        assert_trees_close(found, expected)
        assert_trees_close(gradients, scanned_gradients)
        if any(case.lengths or (1,)) and case.inputs:
            assert all(np.abs(g).max() > 1e-3 for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize(
    ("name", "kernel_size", "tile_size"),
    [
        ("no peephole", 3, 2),
        ("channel peephole", 5, 2),
        ("location peephole", 3, 4),
        ("lengths, reverse, location", 3, 2),
        ("reverse", 5, 2),
        ("one frame, reverse, no input", 3, 4),
        ("no bias, no input, lengths, relu", 3, 2),
        ("no bias", 3, 4),
    ],
)
def test_tiles_change_nothing(name, kernel_size, tile_size, monkeypatch):
    """In float64, outputs and gradients equal those of the direct convolution."""
    case = dataclasses.replace(case_named(name), kernels=(kernel_size,) * 2)
    with jax.enable_x64(True):
        arguments = as_jax(draw(case))
        scan = scan_of(cell_of(case), **settings(case))
        expected = fast_jit(functools.partial(results, scan))(arguments)
        run_by_tiles(monkeypatch, tile_size)
        found = fast_jit(
            functools.partial(results, engine_of(cell_of(case), **settings(case)))
        )(arguments)
    assert_trees_close(found, expected)


@pytest.mark.parametrize(
    "name",
    ["channel peephole", "9x9 and 7x7", "lengths, reverse, location", "no input"],
)
def test_accelerators_compute_the_same(name, monkeypatch):
    case = case_named(name)
    run_as_on_an_accelerator(monkeypatch)
    functions = [f(cell_of(case), **settings(case)) for f in (scan_of, engine_of)]
    with jax.enable_x64(True):
        arguments = as_jax(draw(case))
        expected, found = fast_jit(
            lambda arguments: [results(f, arguments) for f in functions]
        )(arguments)
    assert_trees_close(found, expected)


def test_tiles_are_multiplied_where_they_pay():
    """A layer of 16 features on 16x16 has no convolution on a CPU, elsewhere it has."""
    case = Case("tiles", shape=(1, 2, 16, 16), channels=16, features=16)
    arguments = as_jax(draw(case), jnp.float32)
    cell = cell_of(case, jnp.float32)

    def loss(function):
        return jax.value_and_grad(lambda a: jnp.square(function(*a)[1]).sum())

    by_engine = loss(engine_of(cell, **settings(case)))
    lowered = jax.jit(by_engine).trace(arguments)
    assert "stablehlo.convolution" not in lowered.lower().as_text()
    elsewhere = lowered.lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.convolution" in elsewhere
    value, gradients = fast_jit(by_engine)(arguments)
    expected = fast_jit(loss(scan_of(cell, **settings(case))))(arguments)
    assert float(value) == pytest.approx(float(expected[0]), rel=1e-5)
    assert_trees_close(gradients, expected[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["location peephole", "lengths, reverse, location", "no input"]
)
def test_gradients_equal_finite_differences(name):
    case = case_named(name)
    function = engine_of(cell_of(case), **settings(case))
    with jax.enable_x64(True):
        arguments = as_jax(draw(case))
        check_grads(jax.jit(function), arguments, order=1, modes=["rev"], rtol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_frames_in_the_middle_may_be_invalid(reverse):
    """A clip with holes is the clip without these frames."""
    case = Case("holes", shape=(2, 5, 3, 4), reverse=reverse)
    drawn = draw(case)
    valid = np.array([[0, 1, 0, 0, 1], [1, 0, 1, 1, 0]], bool)
    expected = oracle.sequence(*drawn, 5, "tanh", valid, reverse)
    keywords = {**settings(case), "valid": jnp.asarray(valid)}
    with jax.enable_x64(True):
        found = fast_jit(engine_of(cell_of(case), **keywords))(*as_jax(drawn))
    assert_trees_close(found, expected)


@pytest.mark.parametrize("memory", MEMORY)
def test_what_stands_in_invalid_frames_reaches_nothing(memory):
    """Neither outputs nor gradients, even if it is not a number."""
    case = Case("not a number", lengths=(1, 3), shape=(2, 3, 3, 4))
    function = engine_of(cell_of(case), memory=memory, **settings(case))
    both = fast_jit(functools.partial(results, function))
    with jax.enable_x64(True):
        *weights, inputs = as_jax(draw(case))
        expected = both((*weights, inputs))
        found = both((*weights, inputs.at[0, 1:].set(jnp.nan)))
    assert_trees_close(found, expected, rtol=0, atol=0)
    assert not found[1][3][0, 1:].any()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_sequence_may_be_cut_and_the_carry_handed_on(reverse):
    case = Case("cut", shape=(2, 4, 3, 4), kernels=(3, 5))
    cell = cell_of(case)
    with jax.enable_x64(True):
        *weights, carry, inputs = as_jax(draw(case))
        whole = fast_jit(engine_of(cell, num_steps=4, reverse=reverse))
        half = fast_jit(engine_of(cell, num_steps=2, reverse=reverse))
        expected = whole(*weights, carry, inputs)
        parts, outputs = [inputs[:, :2], inputs[:, 2:]], [None, None]
        for part in (1, 0) if reverse else (0, 1):
            carry, outputs[part] = half(*weights, carry, parts[part])
    joined = (carry, jnp.concatenate(outputs, axis=1))
    assert_trees_close(joined, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_no_output_depends_on_a_frame_not_yet_read(reverse):
    case = Case("future", shape=(2, 5, 3, 4))
    *weights, inputs = as_jax(draw(case), jnp.float32)
    cell = cell_of(case, jnp.float32)
    function = fast_jit(engine_of(cell, num_steps=5, reverse=reverse))
    disturbed = function(*weights, inputs.at[:, 2].add(1))[1]
    changed = np.asarray(function(*weights, inputs)[1] != disturbed).any((0, 2, 3, 4))
    expected = [True] * 3 + [False] * 2 if reverse else [False] * 2 + [True] * 3
    assert changed.tolist() == expected


def test_shifted_frames_give_shifted_outputs_in_the_interior():
    """Without location peepholes nothing but the border knows where it is."""
    case = Case("shift", shape=(1, 2, 13, 14), kernels=(3, 3))
    down, right = 2, -1

    def roll(x):
        return jnp.roll(x, (down, right), axis=(-3, -2))

    with jax.enable_x64(True):
        *weights, carry, inputs = as_jax(draw(case))
        function = fast_jit(engine_of(cell_of(case), num_steps=2))
        outputs = function(*weights, carry, inputs)[1]
        shifted = function(*weights, jax.tree.map(roll, carry), roll(inputs))[1]
    # Frame 2 sees 1 pixel of its input, and 2 of what came before.
    margin = max(down, -right) + 2
    inside = (..., slice(margin, -margin), slice(margin, -margin), slice(None))
    np.testing.assert_allclose(
        roll(outputs)[inside], shifted[inside], rtol=1e-12, atol=1e-12
    )
    assert np.abs(roll(outputs) - shifted).max() > 1e-3  # at the border


def test_bfloat16_keeps_states_and_gradients_in_float32():
    """Eight bits of mantissa: outputs to 0.03, gradients to 5 % of their norm."""
    case = Case("bfloat16", peephole="location", shape=(2, 4, 4, 5))
    arguments = as_jax(draw(case), jnp.float32)

    @fast_jit
    def all_results(arguments):
        found = []
        for make, dtype in (
            (engine_of, jnp.float32),
            (engine_of, jnp.bfloat16),
            (scan_of, jnp.bfloat16),
        ):
            *weights, (c, h), inputs = arguments
            arguments_now = (*weights, (c, h.astype(dtype)), inputs)
            function = make(cell_of(case, dtype), **settings(case))
            outputs, pull_back = jax.vjp(function, *arguments_now)
            ones = jax.tree.map(lambda x: jnp.sin(x + 1).astype(x.dtype), outputs)
            found.append((outputs, pull_back(ones)))
        return found

    single, half, scanned = all_results(arguments)
    (cell_state, hidden), outputs = half[0]
    assert cell_state.dtype == jnp.float32
    assert hidden.dtype == outputs.dtype == jnp.bfloat16
    for result in (half, scanned):
        kernels, parameters, _, inputs = result[1]
        leaves = jax.tree.leaves((kernels, parameters, inputs))
        assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}
        as_float = jax.tree.map(lambda x: np.asarray(x, np.float32), result)
        assert_trees_close(as_float[0], single[0], rtol=0, atol=0.03)
        for found, expected in zip(
            jax.tree.leaves(as_float[1]), jax.tree.leaves(single[1]), strict=True
        ):
            error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
            assert error < 0.05


@pytest.mark.parametrize("accelerator", [False, True], ids=["cpu", "accelerator"])
def test_in_bfloat16_a_long_clip_has_the_gradients_of_float32(accelerator, monkeypatch):
    """A sum over all steps in bfloat16 would stop growing."""
    if accelerator:
        run_as_on_an_accelerator(monkeypatch)
    steps = 300
    case = Case("long", peephole="none", shape=(2, 1, 3, 4), features=3)
    *weights, carry, inputs = as_jax(draw(case), jnp.float32)
    inputs = jnp.repeat(inputs, steps, axis=1)

    def gradients(dtype):
        def total(weights):
            own = (carry[0], carry[1].astype(dtype))
            function = engine_of(cell_of(case, dtype), num_steps=steps)
            return function(*weights, own, inputs)[1].astype(jnp.float32).sum()

        return fast_jit(jax.grad(total))(weights)

    half, single = gradients(jnp.bfloat16), gradients(jnp.float32)
    for found, expected in zip(*map(jax.tree.leaves, (half, single)), strict=True):
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        assert error < 0.03


def test_no_silent_promotion_in_float32():
    case = case_named("lengths, reverse, location")
    function = engine_of(cell_of(case, jnp.float32), **settings(case))

    def total(arguments):
        carry, outputs = function(*arguments)
        return outputs.sum() + carry[0].sum()

    with jax.numpy_dtype_promotion("strict"):
        gradients = jax.eval_shape(jax.grad(total), as_jax(draw(case), jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {
        jnp.dtype(jnp.float32)
    }


@pytest.mark.parametrize(("num_steps", "reverse"), [(1, False), (7, True), (9, False)])
def test_segments_of_any_number_of_steps(num_steps, reverse):
    """Whole segments, one alone, and a rest at the end or the beginning."""
    case = Case("steps", shape=(2, num_steps, 2, 3), reverse=reverse)
    drawn = draw(case)
    expected = oracle.sequence(*drawn, num_steps, "tanh", reverse=reverse)
    function = engine_of(cell_of(case), memory="checkpoint", **settings(case))
    with jax.enable_x64(True):
        assert_trees_close(fast_jit(function)(*as_jax(drawn)), expected)


@pytest.mark.parametrize("memory", MEMORY)
def test_a_sequence_of_no_steps_hands_the_carry_on(memory):
    case = Case("none", shape=(2, 3, 2, 3))
    *weights, carry, inputs = as_jax(draw(case), jnp.float32)
    function = engine_of(cell_of(case, jnp.float32), num_steps=0, memory=memory)

    def run_none(weights, carry):
        return function(*weights, carry, inputs[:, :0])

    (final, outputs), pull_back = jax.vjp(run_none, weights, carry)
    assert_trees_close(final, carry)
    assert outputs.shape == (2, 0, *carry[1].shape[1:])
    weight_gradient, carry_gradient = pull_back((carry, outputs))
    assert_trees_close(carry_gradient, carry)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(weight_gradient))


def test_memory_that_is_kept():
    """Six values a pixel, step and feature; or √T carries of two."""
    case = Case("long", shape=(1, 36, 8, 9), features=4, channels=4)
    arguments = as_jax(draw(case), jnp.float32)
    frame, kept = 4 * 8 * 9 * 4, {}
    for memory in MEMORY:
        cell = cell_of(case, jnp.float32)
        function = engine_of(cell, memory=memory, **settings(case))
        _, pull = jax.eval_shape(lambda *a, f=function: jax.vjp(f, *a), *arguments)
        sizes = [
            sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
            for tree in (pull, arguments)
        ]
        kept[memory] = (sizes[0] - sizes[1]) / frame
    assert 6 * 36 <= kept["default"] <= 6 * 36 + 4
    assert 2 * 6 - 2 <= kept["checkpoint"] <= 2 * 6 + 0.5


def convolutions(jaxpr, in_loop=False):
    """(whether it is in a loop, shape of the result) of every convolution."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield in_loop, equation.outvars[0].aval.shape
        inner = in_loop or equation.primitive.name in ("scan", "while")
        for value in equation.params.values():
            if isinstance(value, core.ClosedJaxpr):
                yield from convolutions(value.jaxpr, inner)


def test_accelerators_loops_hold_no_gradient_of_a_kernel(monkeypatch):
    """One convolution per kernel over all frames, outside of the loop."""
    run_as_on_an_accelerator(monkeypatch)
    case = Case("loops", shape=(2, 5, 3, 4))
    arguments = as_jax(draw(case), jnp.float32)
    function = engine_of(cell_of(case, jnp.float32), **settings(case))
    gradient = jax.grad(lambda arguments: function(*arguments)[1].sum())
    found = list(convolutions(jax.make_jaxpr(gradient)(arguments).jaxpr))
    inside = [shape for in_loop, shape in found if in_loop]
    # Forwards and backwards; outside the hoisted one, its adjoint and two gradients.
    assert [shape[:3] for shape in inside] == [(2, 3, 4)] * 2
    assert len(found) - len(inside) == 4


def leaky(convolve, parameters, carry, inputs):
    """Not a cell of the package: a carry of its own structure, an output beside it."""
    now = jnp.tanh(convolve(read=inputs, kept=carry["mean"]))
    rate = jax.nn.sigmoid(parameters)[:, None, None, None]
    mean = rate * carry["mean"] + (1 - rate) * now
    count = carry["count"] + 1
    return {"mean": mean, "count": count}, convolve(out=mean) / count[
        :, None, None, None
    ]


def test_any_carry_and_an_output_beside_it():
    draw_normal = np.random.default_rng(5).normal
    with jax.enable_x64(True):
        kernels = {
            "read": jnp.asarray(draw_normal(size=(3, 3, 2, 4))),
            "kept": jnp.asarray(draw_normal(size=(3, 3, 4, 4))),
            "out": jnp.asarray(draw_normal(size=(1, 1, 4, 3))),
        }
        parameters = jnp.asarray(draw_normal(size=2))
        carry = {
            "mean": jnp.asarray(draw_normal(size=(2, 3, 5, 4))),
            "count": jnp.ones(2),
        }
        inputs = jnp.asarray(draw_normal(size=(2, 4, 3, 5, 2)))

        def by_engine(kernels, parameters, carry, inputs):
            return run(
                leaky,
                kernels,
                parameters,
                carry,
                inputs,
                num_steps=4,
                dtype=jnp.float64,
            )

        def by_scan(kernels, parameters, carry, inputs):
            convolve = engine.convolve_with(kernels, jnp.float64)
            carry, outputs = lax.scan(
                lambda carry, frame: leaky(convolve, parameters, carry, frame),
                carry,
                jnp.moveaxis(inputs, 1, 0),
            )
            return carry, jnp.moveaxis(outputs, 0, 1)

        arguments = (kernels, parameters, carry, inputs)
        found, expected = fast_jit(
            lambda arguments: [results(f, arguments) for f in (by_engine, by_scan)]
        )(arguments)
    assert_trees_close(found, expected)


@pytest.mark.usefixtures("unchecked_types")
def test_a_kernel_is_read_once_a_step():
    def step(convolve, parameters, carry, inputs):
        return (convolve(kernel=carry) + convolve(kernel=carry),) * 2

    with pytest.raises(ValueError, match="kernel 'kernel' is read twice: it must be"):
        run(
            step,
            {"kernel": jnp.ones((1, 1, 1, 1))},
            {},
            jnp.ones((1, 1, 1, 1)),
            None,
            num_steps=1,
        )


def test_what_is_late_cannot_do_without_the_gradient():
    """As that would be wrong: what is not a number would be lost."""
    array = jnp.asarray([[1.0, -2.0], [3.5, 0.0]])
    late = jax.jit(engine._late)
    np.testing.assert_array_equal(late(jnp.full((1,), -1e30), array), array)
    assert np.isnan(late(jnp.full((2, 2), jnp.inf), jnp.zeros(3))).all()
