"""Stacks whose layers pass a memory on: a plain loop over the cells → the roll-out."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.cells import build_layers
from convlstm_jax.layers.rollout import rollout
from convlstm_jax.ops.convolution import same_convolution
from tests.trees import assert_trees_close, fast_jit

FEATURES, LAYERS = 3, 3
# The recurrent weights of MIM-N have an effect from the third step on.
STEPS = {"predrnn": 2, "predrnnpp": 2, "mim": 3}
SHAPE = (2, 3, 3, 4, 2)  # B, T, H, W, C
# The second frame of the second clip is a prediction.
TEACHER_FORCING = np.array([[1, 1, 1], [1, 0, 1]], bool)


class Stack(nn.Module):
    cell: str
    how: str = "loop"
    dtype: type = jnp.float64

    @nn.compact
    def __call__(self, frames, teacher_forcing, state=None):
        sizes = {"input_kernel_size": 3, "recurrent_kernel_size": 3}
        features = (FEATURES,) * LAYERS
        dtypes = {"dtype": self.dtype, "param_dtype": self.dtype}
        cells = build_layers(self.cell, features, **sizes, **dtypes)
        shape = (1, 1, FEATURES, SHAPE[-1])
        kernel = self.param("output", nn.initializers.ones, shape, self.dtype)
        if self.how == "loop":
            return self._loop(cells, kernel, frames, teacher_forcing)
        return rollout(cells, kernel, frames, teacher_forcing, state, memory=self.how)

    def _loop(self, cells, kernel, frames, teacher_forcing):
        shapes = [frames[:, 0].shape] + [(*SHAPE[:1], *SHAPE[2:4], FEATURES)] * 3
        carries = [cell.initialize_carry(None, shapes[min(n, 1)])
                   for n, cell in enumerate(cells)]  # fmt: skip
        memory, prediction, predictions = carries[0].memory, None, []
        for t in range(teacher_forcing.shape[1]):
            hidden = frames[:, t]
            if t:
                forced = teacher_forcing[:, t, None, None, None]
                hidden = jnp.where(forced, hidden, prediction)
            difference = None
            for n, cell in enumerate(cells):
                fields = getattr(carries[n], "_fields", ())
                if "memory" in fields:
                    carries[n] = carries[n]._replace(memory=memory)
                if "difference" in fields and difference is not None:
                    carries[n] = carries[n]._replace(difference=difference)
                carries[n], hidden = cell(carries[n], hidden)
                memory = getattr(carries[n], "memory", memory)
                difference = getattr(carries[n], "difference", None)
            prediction = same_convolution(hidden, kernel)
            predictions.append(prediction)
        return None, jnp.stack(predictions, axis=1)


@functools.cache
def arguments(cell):
    """Random distinct weights and frames in float64."""
    generator = np.random.default_rng(3)
    frames = generator.normal(size=SHAPE)
    shapes = jax.eval_shape(
        Stack(cell, dtype=jnp.float32).init, jax.random.key(0), frames, TEACHER_FORCING
    )
    weights = jax.tree.map(lambda x: 0.5 * generator.normal(size=x.shape), shapes)
    return weights, frames[:, : STEPS[cell]]


@pytest.mark.parametrize("cell", STEPS)
def test_outputs_and_gradients_are_those_of_a_plain_loop(cell):
    forcing = TEACHER_FORCING[:, : STEPS[cell]]
    results, extra = [], ["checkpoint"] if cell == "predrnn" else []
    with jax.enable_x64(True):

        @fast_jit
        def run(weights, frames):
            for how in ("loop", "default", *extra):

                def apply(weights, frames, how=how):
                    stack = Stack(cell, how)
                    return stack.apply(weights, frames, forcing)[1]

                outputs, pull = jax.vjp(apply, weights, frames)
                results.append((outputs, pull(jnp.cos(outputs))))
            return results

        weights, frames = jax.tree.map(jnp.asarray, arguments(cell))
        expected, *found = jax.device_get(run(weights, frames))
    for one in found:
        assert_trees_close(one, expected)
    gradients = jax.tree.leaves(expected[1][0])
    assert all(np.abs(gradient).max() > 1e-4 for gradient in gradients)
