"""The trajectory GRU of Shi et al. 2017, arXiv:1706.03458."""

from typing import Any

import flax.linen as nn

from convlstm_jax.cells.cell import CellWeights, RecurrentCell, leaky_relu
from convlstm_jax.cells.convgru import reset_after_step
from convlstm_jax.ops.engine import CellInputs, Convolve, per_channel
from convlstm_jax.ops.warping import warp
from convlstm_jax.types import Array, Hidden

# Channels between the two convolutions that find the flows, as in HKO-7's code.
_FLOW_FEATURES = 32


class TrajGRUCell(RecurrentCell):
    """One step of a GRU whose recurrent connections follow learned flows.

    X. Shi et al., "Deep Learning for Precipitation Nowcasting: A Benchmark and A New
    Model", NeurIPS 2017, arXiv:1706.03458, in the form of the authors' code, HKO-7. Two
    convolutions find L flows (u, v) per pixel; the state is warped along each, and 1×1
    convolutions sum up the warped states:

        (u, v)_1…L = V∗φ(W_f∗x + U_f∗h + b_f) + b_v
        s_l = warp(h, −u_l, −v_l)
        z = σ(W_z∗x + Σ_l U_z,l s_l + b_z)
        r = σ(W_r∗x + Σ_l U_r,l s_l + b_r)
        n = φ(W_n∗x + b_n + r∘(Σ_l U_n,l s_l + c_n))
        h' = z∘h + (1 − z)∘n

    φ is leaky ReLU with a slope of 0.2. `ops.warping.warp` interpolates bilinearly, and
    outside of the frame the state is zero. In the paper's equations the flows have the
    other sign, which V and b_v absorb, and biases are left out; in the code z and r
    have two biases each that are added, and so has φ in the flows: here are their sums.
    PyTorch ports that leave out `align_corners=True` of `grid_sample` read at other
    positions than the original, more so near the border.

    Flows start at zero, as in HKO-7. The carry and the output are h `[B, H, W, F]`,
    float32 whatever `dtype` is, as the flows are. Gates stand in the order z, r, n
    along the last axis of kernels and bias; flows as u_1, v_1, u_2, …

    Attributes: See `RecurrentCell`; and
        recurrent_kernel_size: Of the kernels W_f, U_f and V that find the flows.
        num_links: L; 13 in most layers of the paper.
    """

    recurrent_kernel_size: int = 5
    num_links: int = 13

    def __post_init__(self) -> None:
        """Refuses invalid fields before any parameter is created."""
        links = self.num_links
        if not isinstance(links, int) or isinstance(links, bool) or links < 1:
            raise ValueError(
                f"num_links is {links!r}: it must be an integer of at least 1"
            )
        super().__post_init__()

    @nn.compact
    def weights(
        self, input_features: int | None, height: Any, width: Any
    ) -> CellWeights:
        """See `RecurrentCell`."""
        features, size = self.features, self.recurrent_kernel_size
        kernels = self.kernels(
            input_features,
            gates_input_kernel=(False, 3 * features),
            flow_kernel=(True, _FLOW_FEATURES),
        )
        others: dict[str, Array | None] = {}

        def kernel(name: str, init: Any, *shape: int) -> None:
            kernels[name] = self.param(name, init, shape, self.param_dtype)

        def bias(name: str, num_channels: int) -> None:
            init = nn.initializers.zeros
            others[name] = self.param(name, init, (num_channels,), self.param_dtype)

        if input_features is not None:
            shape = (size, size, input_features, _FLOW_FEATURES)
            kernel("flow_input_kernel", self.kernel_init, *shape)
        shape = (size, size, _FLOW_FEATURES, 2 * self.num_links)
        kernel("flow_output_kernel", nn.initializers.zeros, *shape)
        shape = (1, 1, self.num_links * features, 3 * features)
        kernel("gates_kernel", self.recurrent_kernel_init, *shape)
        bias("bias", 3 * features)
        bias("recurrent_bias", features)
        bias("flow_bias", _FLOW_FEATURES)
        bias("flow_output_bias", 2 * self.num_links)
        return CellWeights(kernels, others)

    @nn.nowrap
    def step(
        self,
        convolve: Convolve,
        parameters: dict[str, Any],
        carry: Hidden,
        inputs: CellInputs,
    ) -> tuple[Hidden, Hidden]:
        """See `RecurrentCell`."""
        flow = self.flow(convolve, parameters, carry, inputs)
        warped = warp(carry, -flow).reshape(*carry.shape[:-1], -1)
        hidden = reset_after_step(
            convolve, parameters, carry, inputs, warped, leaky_relu
        )
        return hidden, hidden

    @nn.nowrap
    def flow(
        self,
        convolve: Convolve,
        parameters: dict[str, Any],
        carry: Hidden,
        inputs: CellInputs,
    ) -> Array:
        """The flows of a step, pixels to the right and down, `[B, H, W, L, 2]`."""

        def biased(z: Array, name: str) -> Array:
            bias = parameters[name].astype(carry.dtype)
            return z.astype(carry.dtype) + per_channel(bias, z.shape)

        z = convolve(flow_input_kernel=inputs, flow_kernel=carry)
        hidden = leaky_relu(biased(z, "flow_bias"))
        flow = biased(convolve(flow_output_kernel=hidden), "flow_output_bias")
        return flow.reshape(*carry.shape[:-1], self.num_links, 2)
