"""The ConvLSTMs, small and odd, on which the ops are compared with each other."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import lax

from convlstm_jax.ops.cell import Weights, convlstm_step
from tests.ops.oracle import Layer


@dataclass(frozen=True)
class Case:
    """One ConvLSTM and the sequence it reads; what is not said is the plain choice."""

    name: str
    peephole: str = "channel"
    activation: str = "tanh"
    kernels: tuple[int, int] = (3, 3)
    shape: tuple[int, int, int, int] = (2, 3, 3, 4)  # B, T, H, W
    channels: int = 2
    features: int = 3
    bias: bool = True
    inputs: bool = True
    carry: bool = True
    reverse: bool = False
    lengths: tuple[int, ...] | None = None

    @property
    def valid(self):
        if self.lengths is None:
            return None
        return np.arange(self.shape[1])[None, :] < np.array(self.lengths)[:, None]


CASES = (
    Case("no peephole", peephole="none", shape=(2, 4, 4, 5)),
    Case("channel peephole", kernels=(5, 3)),
    Case("location peephole", peephole="location", kernels=(3, 5), shape=(2, 3, 5, 4)),
    Case("relu, no peephole", peephole="none", activation="relu", kernels=(1, 3)),
    Case("relu, channel", activation="relu", kernels=(3, 1), shape=(1, 4, 4, 3)),
    Case("relu, location", peephole="location", activation="relu"),
    Case("relu from zero", activation="relu", carry=False, shape=(2, 4, 3, 4)),
    Case("from zero", peephole="location", carry=False),
    Case("1x1 kernels", kernels=(1, 1), shape=(2, 3, 2, 3)),
    Case("one pixel", kernels=(1, 1), shape=(3, 4, 1, 1), lengths=(1, 4, 0)),
    Case("7x7 on a smaller frame", kernels=(7, 3), shape=(2, 3, 3, 5)),
    Case("9x9 on a smaller frame", kernels=(3, 9), shape=(2, 2, 4, 3)),
    Case("9x9 and 7x7", peephole="location", kernels=(9, 7), shape=(1, 3, 2, 5)),
    Case("one frame", kernels=(5, 5), shape=(2, 1, 3, 4)),
    Case(
        "one frame, reverse, no input", shape=(2, 1, 3, 4), inputs=False, reverse=True
    ),
    Case("reverse", kernels=(5, 3), reverse=True, shape=(2, 4, 3, 4)),
    Case("lengths", lengths=(0, 4, 2), shape=(3, 4, 3, 4)),
    Case(
        "lengths, reverse, location",
        peephole="location",
        activation="relu",
        lengths=(2, 0, 3),
        shape=(3, 3, 3, 2),
        reverse=True,
        kernels=(1, 3),
    ),
    Case("no input", inputs=False, kernels=(1, 3), shape=(2, 4, 3, 4)),
    Case(
        "no input, reverse, lengths",
        inputs=False,
        reverse=True,
        lengths=(3, 1),
        peephole="location",
    ),
    Case("no bias", bias=False, activation="relu", peephole="none"),
    Case(
        "no bias, no input, lengths, relu",
        bias=False,
        inputs=False,
        activation="relu",
        lengths=(2, 3),
        carry=False,
    ),
    Case(
        "no bias, reverse, from zero",
        bias=False,
        reverse=True,
        carry=False,
        features=1,
        channels=1,
        peephole="none",
    ),
)


def draw(case, seed=0):
    """Random distinct float64 (weights, inputs, carry) of a case, as NumPy arrays."""
    generator = np.random.default_rng([seed, CASES.index(case) if case in CASES else 0])
    batch, steps, height, width = case.shape
    features, channels = case.features, case.channels
    input_size, recurrent_size = case.kernels

    def normal(*shape, scale=1.0):
        return scale * generator.normal(size=shape)

    def kernel(size, channels):
        # Pre-activations of about one, so that no gate is shut or stuck.
        scale = 1 / np.sqrt(min(size, height) * min(size, width) * channels)
        return normal(size, size, channels, 4 * features, scale=scale)

    peephole = {
        "none": None,
        "channel": normal(3, features),
        "location": normal(3, height, width, features),
    }[case.peephole]
    layer = Layer(
        input_kernel=kernel(input_size, channels) if case.inputs else None,
        recurrent_kernel=kernel(recurrent_size, features),
        bias=normal(4 * features) if case.bias else None,
        peephole=peephole,
    )
    inputs = normal(batch, steps, height, width, channels) if case.inputs else None
    scale = 1.0 if case.carry else 0.0
    carry = tuple(normal(batch, height, width, features, scale=scale) for _ in "ch")
    return layer, inputs, carry


def scan_of_steps(
    weights, inputs, carry, *, num_steps, activation, valid, reverse, dtype
):
    """`convlstm_step` under `lax.scan`: the reference for the fused op's gradients."""

    def step(carry, t):
        frame = None if inputs is None else inputs[:, t]
        new, output = convlstm_step(
            Weights(*weights), carry, frame, activation=activation, dtype=dtype
        )
        if valid is not None:
            keep = jnp.asarray(valid)[:, t, None, None, None]
            new = tuple(jnp.where(keep, a, b) for a, b in zip(new, carry, strict=True))
            output = jnp.where(keep, output, 0)
        return new, output

    steps = jnp.arange(num_steps)
    carry, outputs = lax.scan(step, tuple(carry), steps, reverse=reverse)
    return carry, jnp.moveaxis(outputs, 0, 1)
