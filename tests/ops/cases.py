"""The ConvLSTMs, small and odd, on which the ops are compared with each other."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from convlstm_jax.cells.cell import step_of
from convlstm_jax.cells.convlstm import ConvLSTMCell
from convlstm_jax.ops import convolution, engine
from convlstm_jax.ops.engine import convolve_with, run
from convlstm_jax.ops.winograd import Winograd
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


def cell_of(case, dtype=jnp.float64):
    return ConvLSTMCell(
        case.features,
        *case.kernels,
        peephole=case.peephole,
        activation=case.activation,
        use_bias=case.bias,
        dtype=dtype,
    )


def as_jax(tree, dtype=None):
    """What `draw` gives as `(kernels, parameters, carry, inputs)` of the engine."""
    layer, inputs, carry = jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)
    weights = {name: x for name, x in layer._asdict().items() if x is not None}
    parameters = {n: weights.pop(n) for n in ("bias", "peephole") if n in weights}
    return weights, parameters, carry, inputs


def settings(case):
    return {
        "num_steps": case.shape[1],
        "valid": None if case.valid is None else jnp.asarray(case.valid),
        "reverse": case.reverse,
    }


def engine_of(cell, **keywords):
    """The engine as a function of arrays alone."""

    def engine(kernels, parameters, carry, inputs):
        return run(
            step_of(cell),
            kernels,
            parameters,
            carry,
            inputs,
            dtype=cell.dtype,
            **keywords,
        )

    return engine


def scan_of(cell, *, num_steps, valid=None, reverse=False):
    """The cell's step under `lax.scan` with plain autodiff: the reference."""

    def scan(kernels, parameters, carry, inputs):
        def step(carry, t):
            frame = None if inputs is None else inputs[:, t]
            convolve = convolve_with(kernels, cell.dtype)
            new, output = cell.step(convolve, parameters, carry, frame)
            if valid is not None:
                keep = jnp.asarray(valid)[:, t, None, None, None]
                new = jax.tree.map(lambda a, b: jnp.where(keep, a, b), new, carry)
                output = jnp.where(keep, output, 0)
            return new, output

        final, outputs = lax.scan(step, carry, jnp.arange(num_steps), reverse=reverse)
        return final, jnp.moveaxis(outputs, 0, 1)

    return scan


def run_as_on_an_accelerator(monkeypatch):
    def chosen(function, *arguments):
        return function(*arguments, on_cpu=False)

    monkeypatch.setattr(engine, "_by_platform", chosen)


def run_by_tiles(monkeypatch, tile_size):
    """Has small cases, too, computed among tiles."""

    def algorithm(kernel_shape, frame_shape, dtype):
        if kernel_shape[0] == 1:
            return None
        return Winograd(tile_size, kernel_shape[0], *frame_shape[1:3])

    monkeypatch.setattr(convolution, "winograd_for", algorithm)
