"""The gates of a ConvLSTM: their order, peepholes, activations and state update."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from convlstm_jax.types import Hidden

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
    peephole: str, features: int, height: int, width: int
) -> tuple[int, ...] | None:
    """The shape of the peephole weights, first axis as in `PEEPHOLE_ORDER`.

    Args:
      peephole: "none"; "channel", one weight per channel and gate (the form that gives
        the parameter counts of arXiv:1506.04214, table 1); or "location", one weight
        per pixel, channel and gate (the Hadamard product of its equation 3, which ties
        the weights to one frame size).
      features: hidden channels F.
      height: H, pixels.
      width: W, pixels.

    Returns:
      `None`, `(3, F)` or `(3, H, W, F)`.

    Raises:
      ValueError: an unknown `peephole`.
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
    """Cuts `[..., 4·F]` into the four gates of `GATE_ORDER`, each `[..., F]`."""
    i, f, g, o = jnp.split(pre_activations, len(GATE_ORDER), axis=-1)
    return i, f, g, o


def frame_peepholes(peephole: Array | None, dtype) -> tuple[Array, Array, Array] | None:
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

    Args:
      pre_activations: zᵢ, z_f, z_g, zₒ, each `[B, H, W, F]`: the convolutions of input
        and hidden state, plus bias.
      cell_state: c, `[B, H, W, F]`; its dtype is the dtype of the arithmetic.
      peepholes: pᵢ, p_f, pₒ from `frame_peepholes`, or `None`.
      activation: name of φ, a key of `ACTIVATIONS`.

    Returns:
      The gates, the new cell state c' and the new hidden state h'.
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
    """The adjoint of `update_state`.

    Args:
      cell_gradient: gradient of the loss with respect to c'.
      hidden_gradient: gradient of the loss with respect to h'.
      gates: the gates that `update_state` returned.
      cell_state: c.
      new_cell_state: c'.
      peepholes: as given to `update_state`.
      activation: as given to `update_state`.

    Returns:
      Gradients with respect to the four pre-activations, and with respect to c.
    """
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
