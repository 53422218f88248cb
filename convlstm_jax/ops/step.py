"""One time step of a ConvLSTM: the definition that everything else must equal."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from convlstm_jax.ops.convolution import same_convolution
from convlstm_jax.ops.gates import frame_peepholes, split_gates, update_state
from convlstm_jax.types import Carry, Frame, Hidden


class Weights(NamedTuple):
    """The weights of one ConvLSTM layer, gates along the last axis in `GATE_ORDER`.

    Attributes:
      input_kernel: `[K, K, C, 4F]`, or `None` for a layer without input.
      recurrent_kernel: `[K, K, F, 4F]`.
      bias: `[4F]` or `None`.
      peephole: `None`, `[3, F]` or `[3, H, W, F]`, see `gates.peephole_shape`.
    """

    input_kernel: Float[Array, "K K C G"] | None
    recurrent_kernel: Float[Array, "K K F G"]
    bias: Float[Array, " G"] | None
    peephole: Array | None


def state_dtype(compute_dtype):
    """The dtype of cell state and gate arithmetic: float32, or float64 if computed so.

    The state is a sum over all time steps, so it does not follow the compute dtype
    down to bfloat16.
    """
    return jnp.promote_types(compute_dtype, jnp.float32)


def carry_of_dtype(carry: Carry, compute_dtype) -> Carry:
    """`(c, h)` in the dtypes of a computation: see `state_dtype`."""
    cell_state, hidden = carry
    return cell_state.astype(state_dtype(compute_dtype)), hidden.astype(compute_dtype)


def check_inputs(weights: Weights, inputs: Array | None) -> None:
    """Refuses inputs that the weights do not fit.

    Raises:
      ValueError: only one of inputs and input kernel is `None`, or their channels
        differ.
    """
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
    dtype=jnp.float32,
) -> tuple[Carry, Hidden]:
    """One step of equation 3 of Shi et al. 2015 (arXiv:1506.04214).

    Args:
      weights: the layer's weights.
      carry: `(c, h)`, each `[B, H, W, F]`.
      inputs: `[B, H, W, C]`, or `None` for a layer without input.
      activation: "tanh" or "relu", for the candidate and the output.
      dtype: dtype of the convolutions and of h; c stays in `state_dtype(dtype)`.

    Returns:
      The new carry and the output, which is its h.

    Raises:
      ValueError: see `check_inputs`.
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
