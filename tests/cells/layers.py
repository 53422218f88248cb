"""A cell run as a layer in every way there is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from convlstm_jax.layers.recurrent import IMPLEMENTATIONS, RecurrentLayer
from tests.trees import fast_jit


def run_every_way(cell, inputs, carry, num_steps, generator):
    """Draws weights; returns them, and (outputs, gradients) of each implementation.

    The cell is of float64, inputs `[B, T, H, W, C]` or `None`. Outputs are those of the
    layer; gradients are by variables, inputs and carry, for cotangents cos(outputs).
    """
    layers = [RecurrentLayer(cell, name) for name in IMPLEMENTATIONS]
    with jax.enable_x64(True):
        call = {"initial_carry": jnp.asarray(carry), "num_steps": num_steps}
        frames = None if inputs is None else jnp.asarray(inputs)
        init = functools.partial(layers[0].init, **call)
        variables = jax.tree.map(
            lambda leaf: jnp.asarray(0.4 * generator.normal(size=leaf.shape)),
            jax.eval_shape(init, jax.random.key(0), frames),
        )

        @fast_jit
        def run(variables, frames, carry):
            found = []
            for layer in layers:

                def apply(variables, frames, carry, layer=layer):
                    arguments = {**call, "initial_carry": carry}
                    return layer.apply(variables, frames, **arguments)

                result, pull = jax.vjp(apply, variables, frames, carry)
                found.append((result, pull(jax.tree.map(jnp.cos, result))))
            return found

        results = jax.device_get(run(variables, frames, jnp.asarray(carry)))
    return jax.tree.map(np.array, variables["params"]["cell"]), results
