"""NumPy oracle → scan of steps → fused sequence: outputs and every gradient."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from convlstm_jax.ops import sequence
from convlstm_jax.ops.cell import Weights
from convlstm_jax.ops.memory import MEMORY, checkpointed_sequence
from convlstm_jax.ops.sequence import convlstm_sequence
from convlstm_jax.ops.winograd import Winograd
from tests.ops import oracle
from tests.ops.cases import CASES, Case, draw, scan_of_steps

TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}

# Compiling is what these tests take their time for; the numbers do not depend on it.
fast_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def settings(case, dtype=jnp.float64):
    return {
        "num_steps": case.shape[1],
        "activation": case.activation,
        "valid": None if case.valid is None else jnp.asarray(case.valid),
        "reverse": case.reverse,
        "dtype": dtype,
    }


def as_jax(tree, dtype=None):
    layer, inputs, carry = jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)
    return Weights(*layer), inputs, carry


def assert_trees_close(found, expected, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(found),
        jax.tree.leaves(expected),
        strict=True,
    ):
        np.testing.assert_allclose(
            a, b, err_msg=jax.tree_util.keystr(path), **tolerance
        )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_oracle_scan_and_fused_sequence_agree(case):
    """In float64, whatever is kept for gradients, under cotangents on all results."""
    arguments = draw(case)
    expected = oracle.sequence(
        *arguments, case.shape[1], case.activation, case.valid, case.reverse
    )
    generator = np.random.default_rng(7)
    cotangent = jax.tree.map(lambda x: generator.normal(size=x.shape), expected)

    @fast_jit
    def run(arguments, cotangent):
        results = []
        for function in (scan_of_steps, *MEMORY.values()):
            function = functools.partial(function, **settings(case))
            outputs, pull_back = jax.vjp(function, *arguments)
            results.append((outputs, pull_back(cotangent)))
        return results

    with jax.enable_x64(True):
        (scanned, scanned_gradients), *by_memory = jax.device_get(
            run(as_jax(arguments), jax.tree.map(jnp.asarray, cotangent))
        )
    assert_trees_close(scanned, expected, **TOLERANCE)
    for fused, fused_gradients in by_memory:
        assert all(leaf.dtype == np.float64 for leaf in jax.tree.leaves(fused))
        assert_trees_close(fused, expected, **TOLERANCE)
        assert_trees_close(fused_gradients, scanned_gradients, **TOLERANCE)
        if any(case.lengths or (1,)) and case.inputs:
            assert all(np.abs(g).max() > 1e-3 for g in jax.tree.leaves(fused_gradients))


def tiled(monkeypatch, tile_size):
    """Has small cases, too, computed among tiles."""

    def algorithm(kernel_shape, frame_shape, dtype):
        assert dtype == jnp.float64
        return Winograd(tile_size, kernel_shape[0], *frame_shape[1:3])

    monkeypatch.setattr(sequence, "winograd_for", algorithm)


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
    arguments = draw(case)
    run = functools.partial(convlstm_sequence, **settings(case))

    def results(arguments):
        outputs, pull_back = jax.vjp(run, *arguments)
        return outputs, pull_back(jax.tree.map(jnp.cos, outputs))

    with jax.enable_x64(True):
        arguments = as_jax(arguments)
        expected = fast_jit(results)(arguments)
        tiled(monkeypatch, tile_size)
        found = fast_jit(lambda arguments: results(arguments))(arguments)
    assert_trees_close(found, expected, **TOLERANCE)


def test_tiles_are_multiplied_where_they_pay():
    """A layer of 16 features on 16x16 has no convolution on a CPU, elsewhere it has."""
    case = Case("tiles", shape=(1, 2, 16, 16), channels=4, features=16)
    arguments = as_jax(draw(case), jnp.float32)
    run = functools.partial(convlstm_sequence, **settings(case, jnp.float32))

    def loss(arguments):
        return jnp.square(run(*arguments)[1]).sum()

    lowered = jax.jit(jax.value_and_grad(loss)).trace(arguments)
    assert "stablehlo.convolution" not in lowered.lower().as_text()
    elsewhere = lowered.lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.convolution" in elsewhere
    value, gradients = fast_jit(jax.value_and_grad(loss))(arguments)
    expected, expected_gradients = fast_jit(
        jax.value_and_grad(
            lambda a: jnp.square(
                scan_of_steps(*a, **settings(case, jnp.float32))[1]
            ).sum()
        )
    )(arguments)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert_trees_close(gradients, expected_gradients, rtol=1e-4, atol=1e-4)


def case_named(name):
    (case,) = (case for case in CASES if case.name == name)
    return case


@pytest.mark.parametrize(
    "name", ["location peephole", "lengths, reverse, location", "no input"]
)
def test_gradients_equal_finite_differences(name):
    case = case_named(name)
    function = functools.partial(convlstm_sequence, **settings(case))
    with jax.enable_x64(True):
        check_grads(
            jax.jit(function), as_jax(draw(case)), order=1, modes=["rev"], rtol=1e-5
        )


def test_frames_in_the_middle_may_be_invalid():
    """A clip with holes is the clip without these frames."""
    case = Case("holes", shape=(2, 5, 3, 4))
    arguments = draw(case)
    valid = np.array([[0, 1, 0, 0, 1], [1, 0, 1, 1, 0]], bool)
    with jax.enable_x64(True):
        for reverse in (False, True):
            expected = oracle.sequence(*arguments, 5, "tanh", valid, reverse)
            function = functools.partial(
                convlstm_sequence,
                valid=jnp.asarray(valid),
                reverse=reverse,
                dtype=jnp.float64,
            )
            assert_trees_close(
                fast_jit(function)(*as_jax(arguments)), expected, **TOLERANCE
            )


@pytest.mark.parametrize("reverse", [False, True])
def test_a_sequence_may_be_cut_and_the_carry_handed_on(reverse):
    case = Case("cut", shape=(2, 4, 3, 4), kernels=(3, 5))
    with jax.enable_x64(True):
        weights, inputs, carry = as_jax(draw(case))
        run = fast_jit(
            functools.partial(convlstm_sequence, reverse=reverse, dtype=jnp.float64)
        )
        whole = run(weights, inputs, carry)
        parts = [inputs[:, :2], inputs[:, 2:]]
        outputs = [None, None]
        for part in (1, 0) if reverse else (0, 1):
            carry, outputs[part] = run(weights, parts[part], carry)
        joined = (carry, jnp.concatenate(outputs, axis=1))
        assert_trees_close(joined, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_no_output_depends_on_a_frame_not_yet_read(reverse):
    case = Case("future", shape=(2, 5, 3, 4))
    weights, inputs, carry = as_jax(draw(case), jnp.float32)
    run = fast_jit(functools.partial(convlstm_sequence, reverse=reverse))
    disturbed = run(weights, inputs.at[:, 2].add(1), carry)[1]
    changed = np.asarray(run(weights, inputs, carry)[1] != disturbed).any((0, 2, 3, 4))
    expected = [True] * 3 + [False] * 2 if reverse else [False] * 2 + [True] * 3
    assert changed.tolist() == expected


def test_shifted_frames_give_shifted_outputs_in_the_interior():
    """Without location peepholes nothing but the border knows where it is."""
    case = Case("shift", shape=(1, 2, 13, 14), kernels=(3, 3))
    down, right = 2, -1
    with jax.enable_x64(True):
        weights, inputs, carry = as_jax(draw(case))

        def roll(x):
            return jnp.roll(x, (down, right), axis=(-3, -2))

        run = fast_jit(functools.partial(convlstm_sequence, dtype=jnp.float64))
        outputs = run(weights, inputs, carry)[1]
        shifted = run(weights, roll(inputs), jax.tree.map(roll, carry))[1]
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
    def run(arguments):
        results = []
        for function, dtype in (
            (convlstm_sequence, jnp.float32),
            (convlstm_sequence, jnp.bfloat16),
            (scan_of_steps, jnp.bfloat16),
        ):
            weights, inputs, carry = arguments
            carry = (carry[0], carry[1].astype(dtype))
            function = functools.partial(function, **settings(case, dtype))
            result, pull_back = jax.vjp(function, weights, inputs, carry)
            ones = jax.tree.map(lambda x: jnp.sin(x + 1).astype(x.dtype), result)
            results.append((result, pull_back(ones)))
        return results

    single, half, scanned = run(arguments)
    (cell_state, hidden), outputs = half[0]
    assert cell_state.dtype == jnp.float32
    assert hidden.dtype == outputs.dtype == jnp.bfloat16
    for result in (half, scanned):
        weights, inputs, _ = result[1]
        assert {leaf.dtype for leaf in jax.tree.leaves((weights, inputs))} == {
            jnp.dtype(jnp.float32)
        }
        as_float = jax.tree.map(lambda x: np.asarray(x, np.float32), result)
        assert_trees_close(as_float[0], single[0], rtol=0, atol=0.03)
        for found, expected in zip(
            jax.tree.leaves(as_float[1]), jax.tree.leaves(single[1]), strict=True
        ):
            error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
            assert error < 0.05


def test_no_silent_promotion_in_float32():
    case = case_named("lengths, reverse, location")
    function = functools.partial(convlstm_sequence, **settings(case, jnp.float32))

    def total(arguments):
        carry, outputs = function(*arguments)
        return outputs.sum() + carry[0].sum()

    with jax.numpy_dtype_promotion("strict"):
        gradients = jax.eval_shape(jax.grad(total), as_jax(draw(case), jnp.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {
        jnp.dtype(jnp.float32)
    }


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.usefixtures("unchecked_types")
def test_a_length_is_needed(memory):
    weights, _, carry = as_jax(draw(case_named("no input")), jnp.float32)
    with pytest.raises(ValueError, match="num_steps is None: without inputs it must"):
        MEMORY[memory](weights, None, carry)


@pytest.mark.parametrize(("num_steps", "reverse"), [(1, False), (7, True), (9, False)])
def test_segments_of_any_number_of_steps(num_steps, reverse):
    """Whole segments, one alone, and a rest at the end or the beginning."""
    case = Case("steps", shape=(2, num_steps, 2, 3), reverse=reverse)
    arguments = draw(case)
    expected = oracle.sequence(*arguments, num_steps, "tanh", reverse=reverse)
    with jax.enable_x64(True):
        run = functools.partial(
            checkpointed_sequence, reverse=reverse, dtype=jnp.float64
        )
        assert_trees_close(fast_jit(run)(*as_jax(arguments)), expected, **TOLERANCE)


def kept_bytes(function, arguments):
    """What the backward pass is given, arguments of the function not counted."""
    _, pull_back = jax.eval_shape(lambda *a: jax.vjp(function, *a), *arguments)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pull_back)) - sum(
        x.size * x.dtype.itemsize for x in jax.tree.leaves(arguments)
    )


@pytest.mark.parametrize("memory", MEMORY)
def test_a_sequence_of_no_steps_hands_the_carry_on(memory):
    weights, inputs, carry = draw(Case("none", shape=(2, 3, 2, 3)))
    weights, inputs, carry = as_jax((weights, inputs[:, :0], carry), jnp.float32)

    def run(weights, carry):
        return MEMORY[memory](weights, inputs, carry)

    (final, outputs), pull_back = jax.vjp(run, weights, carry)
    assert_trees_close(final, carry)
    assert outputs.shape == (2, 0, *carry[1].shape[1:])
    weight_gradient, carry_gradient = pull_back((carry, outputs))
    assert_trees_close(carry_gradient, carry)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(weight_gradient))


def test_memory_that_is_kept():
    """Six values a pixel, step and feature; or √T carries of two."""
    case = Case("long", shape=(1, 36, 8, 9), features=4, channels=4)
    arguments = as_jax(draw(case), jnp.float32)
    frame = 4 * 8 * 9 * 4
    kept = {name: kept_bytes(run, arguments) / frame for name, run in MEMORY.items()}
    assert 6 * 36 <= kept["default"] <= 6 * 36 + 4
    assert 2 * 6 - 2 <= kept["checkpoint"] <= 2 * 6 + 0.5
