"""One step of a ConvLSTM: gates, peepholes, activations, and the step as a whole.

`convlstm_step` is the definition that everything else must equal.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from convlstm_jax.ops.convolution import same_convolution
from convlstm_jax.types import Array, Carry, Frame, Hidden

# The order of the four gates along the last axis of every kernel and bias, declared
# here and nowhere else: input, forget, candidate, output.
GATE_ORDER = ("i", "f", "g", "o")

# Which gates look at the cell state, in the order of the peephole's first axis.
PEEPHOLE_ORDER = ("i", "f", "o")

PEEPHOLES = ("none", "channel", "location")


class Gates(NamedTuple):
    """The four gates after their non-linearities, each `[B, H, W, F]`."""

    i: Hidden
    f: Hidden
    g: Hidden
    o: Hidden


class Activation(NamedTuple):
    """A non-linearity and its derivative written in terms of its own output."""

    apply: Callable[[Array], Array]
    derivative_from_output: Callable[[Array], Array]


ACTIVATIONS = {
    "tanh": Activation(jnp.tanh, lambda output: 1 - output * output),
    # Not `jnp.maximum`, whose derivative at 0 is one half: a state that starts from
    # zero stays exactly there while its candidate is negative.
    "relu": Activation(jax.nn.relu, lambda output: (output > 0).astype(output.dtype)),
}


def peephole_shape(
    peephole: str, features: int, height: Any, width: Any
) -> tuple[int, ...] | None:
    """The shape of the peephole weights: `None`, `(3, F)` or `(3, H, W, F)`.

    "channel" is one weight per channel and gate, the form that gives the parameter
    counts of arXiv:1506.04214, table 1; "location" is one per pixel, channel and gate,
    the Hadamard product of its equation 3, which ties the weights to one frame size.
    """
    if peephole == "none":
        return None
    if peephole == "channel":
        return (len(PEEPHOLE_ORDER), features)
    if peephole == "location":
        return (len(PEEPHOLE_ORDER), height, width, features)
    raise ValueError(f"peephole is {peephole!r}: it must be one of {PEEPHOLES}")


def split_gates(
    pre_activations: Float[Array, "... G"],
) -> tuple[Array, Array, Array, Array]:
    """Splits `[..., 4·F]` into the four gates of `GATE_ORDER`, each `[..., F]`."""
    i, f, g, o = jnp.split(pre_activations, len(GATE_ORDER), axis=-1)
    return i, f, g, o


def frame_peepholes(
    peephole: Array | None, dtype: Any
) -> tuple[Array, Array, Array] | None:
    """Peephole weights per gate, in shapes that multiply `[B, H, W, F]`."""
    if peephole is None:
        return None
    i, f, o = peephole.astype(dtype).reshape(
        3, 1, *(peephole.shape[1:] if peephole.ndim == 4 else (1, 1, peephole.shape[1]))
    )
    return i, f, o


def update_state(
    pre_activations: tuple[Array, ...],
    cell_state: Hidden,
    peepholes: tuple[Array, Array, Array] | None,
    activation: str,
) -> tuple[Gates, Hidden, Hidden]:
    """One state update, equation 3 of Shi et al. 2015 (arXiv:1506.04214).

        i = σ(zᵢ + pᵢ∘c)          c' = f∘c + i∘φ(z_g)
        f = σ(z_f + p_f∘c)        o  = σ(zₒ + pₒ∘c')
                                  h' = o∘φ(c')

    The dtype of c is that of the arithmetic. Peepholes are those of `frame_peepholes`;
    φ is named by a key of `ACTIVATIONS`. Returns the gates, c' and h'.
    """
    z_i, z_f, z_g, z_o = (z.astype(cell_state.dtype) for z in pre_activations)
    apply = ACTIVATIONS[activation].apply
    if peepholes is not None:
        z_i = z_i + peepholes[0] * cell_state
        z_f = z_f + peepholes[1] * cell_state
    i, f, g = jax.nn.sigmoid(z_i), jax.nn.sigmoid(z_f), apply(z_g)
    new_cell_state = f * cell_state + i * g
    if peepholes is not None:
        z_o = z_o + peepholes[2] * new_cell_state
    o = jax.nn.sigmoid(z_o)
    return Gates(i, f, g, o), new_cell_state, o * apply(new_cell_state)


def update_state_gradient(
    cell_gradient: Hidden,
    hidden_gradient: Hidden,
    gates: Gates,
    cell_state: Hidden,
    new_cell_state: Hidden,
    peepholes: tuple[Array, Array, Array] | None,
    activation: str,
) -> tuple[tuple[Array, Array, Array, Array], Hidden]:
    """The adjoint of `update_state`: gradients of c' and h' to those of z and c."""
    apply, derivative = ACTIVATIONS[activation]
    i, f, g, o = (gate.astype(cell_state.dtype) for gate in gates)
    activated = apply(new_cell_state)
    dz_o = hidden_gradient * activated * o * (1 - o)
    dc = cell_gradient + hidden_gradient * o * derivative(activated)
    if peepholes is not None:
        dc = dc + dz_o * peepholes[2]
    dz_i = dc * g * i * (1 - i)
    dz_f = dc * cell_state * f * (1 - f)
    dz_g = dc * i * derivative(g)
    dc_previous = dc * f
    if peepholes is not None:
        dc_previous = dc_previous + dz_i * peepholes[0] + dz_f * peepholes[1]
    return (dz_i, dz_f, dz_g, dz_o), dc_previous


class Weights(NamedTuple):
    """The weights of one ConvLSTM layer, gates along the last axis in `GATE_ORDER`.

    A layer without input has no input kernel; for the peephole see `peephole_shape`.
    """

    input_kernel: Float[Array, "K K C G"] | None
    recurrent_kernel: Float[Array, "K K F G"]
    bias: Float[Array, " G"] | None
    peephole: Array | None


def state_dtype(compute_dtype: Any) -> Any:
    """The dtype of cell state and gate arithmetic: float32, or float64 if computed so.

    The state is a sum over all time steps and does not follow the compute dtype down.
    """
    return jnp.promote_types(compute_dtype, jnp.float32)


def carry_of_dtype(carry: Carry, compute_dtype: Any) -> Carry:
    """`(c, h)` in the dtypes of a computation, see `state_dtype`."""
    cell_state, hidden = carry
    return cell_state.astype(state_dtype(compute_dtype)), hidden.astype(compute_dtype)


def check_inputs(weights: Weights, inputs: Array | None) -> None:
    """Raises a ValueError over inputs without an input kernel, or of other channels."""
    if (inputs is None) != (weights.input_kernel is None):
        given = "input_kernel" if inputs is None else "inputs"
        missing = "inputs" if inputs is None else "input_kernel"
        raise ValueError(
            f"{missing} is None, but {given} is not: a layer has both or neither"
        )
    if inputs is not None and weights.input_kernel is not None:
        channels = weights.input_kernel.shape[2]
        if inputs.shape[-1] != channels:
            raise ValueError(
                f"inputs has shape {inputs.shape}: the input kernel needs {channels} "
                "channels"
            )


def convlstm_step(
    weights: Weights,
    carry: Carry,
    inputs: Frame | None,
    *,
    activation: str = "tanh",
    dtype: Any = jnp.float32,
) -> tuple[Carry, Hidden]:
    """One step of equation 3 of Shi et al. 2015 (arXiv:1506.04214).

    Takes the carry `(c, h)` and inputs `[B, H, W, C]`, or `None` for a layer without
    input; returns the new carry and the output, which is its h. `dtype` is that of the
    convolutions and of h; c stays in `state_dtype(dtype)`.
    """
    check_inputs(weights, inputs)
    cell_state, hidden = carry
    cell_state = cell_state.astype(state_dtype(dtype))
    z = same_convolution(hidden.astype(dtype), weights.recurrent_kernel.astype(dtype))
    if inputs is not None and weights.input_kernel is not None:
        z = z + same_convolution(
            inputs.astype(dtype), weights.input_kernel.astype(dtype)
        )
    if weights.bias is not None:
        z = z + weights.bias.astype(dtype).reshape(1, 1, 1, -1)
    _, cell_state, hidden = update_state(
        split_gates(z),
        cell_state,
        frame_peepholes(weights.peephole, cell_state.dtype),
        activation,
    )
    hidden = hidden.astype(dtype)
    return (cell_state, hidden), hidden
