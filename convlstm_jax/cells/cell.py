"""What every recurrent cell is: parameters and one pure step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from convlstm_jax.ops.engine import (
    CellInputs,
    Convolve,
    Kernels,
    Tree,
    convolve_with,
)
from convlstm_jax.ops.explicit_mesh import over_batch
from convlstm_jax.types import Array, Frame, Hidden

_NORM_EPSILON = 1e-5


def leaky_relu(x: Array) -> Array:
    """Leaky ReLU with the slope 0.2, as in HKO-7 (Shi et al. 2017)."""
    # At 0 its derivative is that of PyTorch and MXNet, 0.2.
    return jnp.where(x > 0, x, 0.2 * x)


# Of relu not `jnp.maximum`, whose derivative at 0 is one half: a state that starts from
# zero stays exactly there while its candidate is negative.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leaky_relu": leaky_relu,
}


class CellWeights(NamedTuple):
    """A cell's parameters: kernels `[K, K, C, D]` by name, and all others."""

    kernels: Kernels
    others: dict[str, Any]


class RecurrentCell(nn.RNNCellBase):
    """One step of a convolutional recurrent network.

    A cell declares its parameters in `weights` and its equations in `step`; layers run
    these by `ops.engine`. Called directly it takes one step and follows Flax's RNN-cell
    interface, so that it works under `nn.scan`, `nn.RNN` and `nn.Bidirectional`.

    Attributes:
        features: Hidden channels F.
        input_kernel_size: Input-to-state kernel, pixels, odd.
        recurrent_kernel_size: State-to-state kernel, pixels, odd.
        dtype: Of the convolutions; states that sum over time are float32 at least.
        param_dtype: Of the parameters.
        kernel_init: Of kernels that read the inputs.
        recurrent_kernel_init: Of kernels that read the state.

    Raises:
        ValueError: At construction, for a value that is not allowed.
    """

    passed: ClassVar[tuple[str, ...]] = ()
    """Fields of the carry, a named tuple, that go from layer to layer in a stack.

    A layer takes them from the one below, the bottom layer from the top one of the step
    before.
    """
    has_locations: ClassVar[bool] = False
    """Whether the cell always has weights that belong to one location of the frame."""
    only_convolves_inputs: ClassVar[bool] = True
    """Whether `step` only convolves its inputs, so that layers may hoist it."""
    needs_input: ClassVar[bool] = False
    """Whether a layer of this cell needs input."""

    features: int
    input_kernel_size: int = 3
    recurrent_kernel_size: int = 3
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    recurrent_kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    def __post_init__(self) -> None:
        """Refuses invalid fields before any parameter is created."""
        for name in ("features", "input_kernel_size", "recurrent_kernel_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(
                    f"{name} is {value!r}: it must be an integer of at least 1"
                )
            if name != "features" and value % 2 == 0:
                raise ValueError(
                    f"{name} is {value}: it must be odd, so that the state keeps its "
                    "size and its place"
                )
        super().__post_init__()

    @classmethod
    def layers(cls, features: Sequence[int], **fields: Any) -> list["RecurrentCell"]:
        """The cells of a stack, bottom layer first, named `layer_0` and so on."""
        return [
            cls(features=count, name=f"layer_{index}", **fields)
            for index, count in enumerate(features)
        ]

    def weights(
        self, input_features: int | None, height: Any, width: Any
    ) -> CellWeights:
        """The parameters, created on first use; a method with `nn.compact`.

        `input_features` is `None` for a cell without input; height and width, in
        pixels, are for parameters that belong to a location.
        """
        raise NotImplementedError

    @nn.nowrap
    def step(
        self,
        convolve: Convolve,
        parameters: dict[str, Any],
        carry: Tree,
        inputs: CellInputs,
    ) -> tuple[Tree, Hidden]:
        """The new carry and the output `[B, H, W, F]`; a pure function.

        `convolve(kernel_name=array, …)` is the sum of convolutions with kernels of
        `weights`, each used once; it leaves out an array of `None`. The inputs may be
        given to `convolve` alone, see also `only_convolves_inputs`. `parameters` are
        the other weights.
        """
        raise NotImplementedError

    @nn.nowrap
    def initialize_carry(self, rng: Array | None, input_shape: tuple[Any, ...]) -> Tree:
        """Zeros for inputs `[B, H, W, C]`; by default the carry is h alone."""
        return jnp.zeros((*input_shape[:-1], self.features), state_dtype(self.dtype))

    @nn.nowrap
    def hidden(self, carry: Tree) -> Hidden:
        """The output of the step that led to a carry: by default its last array."""
        last: Hidden = jax.tree.leaves(carry)[-1]
        return last

    @property
    def reach(self) -> int | None:
        """How far, in pixels, a step carries what a pixel of the state holds, at most.

        `None` if that has no bound, or none is known.
        """
        return None

    @property
    def num_feature_axes(self) -> int:
        """Height, width and channels."""
        return 3

    def __call__(self, carry: Tree, inputs: Frame | None) -> tuple[Tree, Hidden]:
        """One step with a frame `[B, H, W, C]` or `None`."""
        frame_shape = None if inputs is None else inputs.shape
        carry = checked_carry("carry", self, carry, frame_shape)
        _, height, width, _ = frame_shape or jax.tree.leaves(carry)[0].shape
        channels = None if inputs is None else inputs.shape[-1]

        def step(weights: CellWeights, carry: Tree, inputs: Any) -> tuple[Tree, Hidden]:
            convolve = convolve_with(weights.kernels, self.dtype)
            return self.step(convolve, weights.others, carry, inputs)

        return over_batch(step, self.weights(channels, height, width), carry, inputs)

    def kernels(
        self, input_features: int | None, **kernels: tuple[bool, int]
    ) -> dict[str, Array]:
        """Kernels by name, each given by whether it reads the state, and D.

        Without inputs, the kernels that read them are left out; a cell that needs
        inputs raises a ValueError.
        """
        if input_features is None and self.needs_input:
            raise ValueError(
                f"inputs is None: a {type(self).__name__} cannot run without input"
            )
        found = {}
        for name, (recurrent, outputs) in kernels.items():
            size, channels, init = (
                (self.recurrent_kernel_size, self.features, self.recurrent_kernel_init)
                if recurrent
                else (self.input_kernel_size, input_features, self.kernel_init)
            )
            if channels is not None:
                shape = (size, size, channels, outputs)
                found[name] = self.param(name, init, shape, self.param_dtype)
        return found

    def norms(self, height: Any, width: Any, **channels: int) -> dict[str, Array]:
        """The weights of the layer norm of each part, given its channels."""
        found = {}
        for part, count in channels.items():
            for kind, init in (("scale", "ones"), ("offset", "zeros")):
                name, shape = f"{part}_norm_{kind}", (height, width, count)
                init = getattr(nn.initializers, init)
                found[name] = self.param(name, init, shape, self.param_dtype)
        return found


def sum_of_convolutions(
    cell: Any, convolve: Convolve, parameters: dict[str, Any], /, **arrays: Any
) -> Frame:
    """The sum of convolutions: each array, named PART, with the kernel `PART_kernel`.

    With `layer_norm`, each convolution is normalised before the sum. Returns
    `state_dtype`.
    """
    dtype = state_dtype(cell.dtype)
    if not cell.layer_norm:
        named = {f"{part}_kernel": array for part, array in arrays.items()}
        return convolve(**named).astype(dtype)
    terms = [
        _normalise(convolve(**{f"{part}_kernel": x}).astype(dtype), parameters, part)
        for part, x in arrays.items()
    ]
    return sum(terms[1:], start=terms[0])


def _normalise(z: Frame, parameters: dict[str, Any], part: str) -> Frame:
    """Layer norm over height, width and channels of each sample."""
    axes = (1, 2, 3)
    centred = z - z.mean(axes, keepdims=True)
    variance = jnp.square(centred).mean(axes, keepdims=True)
    normalised = centred * lax.rsqrt(variance + _NORM_EPSILON)
    scale, offset = (
        parameters[f"{part}_norm_{kind}"][None] for kind in ("scale", "offset")
    )
    return normalised * scale + offset


@dataclass(frozen=True)
class CellStep:
    """The step of a cell as the engine takes it: equal for equal cells."""

    cell: RecurrentCell

    def __call__(
        self, convolve: Convolve, parameters: Any, carry: Any, inputs: Any
    ) -> Any:
        """See `RecurrentCell.step`."""
        if type(inputs) is tuple:  # As a layer gives them, see `only_convolves_inputs`.
            (inputs,) = inputs
        return self.cell.step(convolve, parameters, carry, inputs)

    @property
    def coefficients(self) -> Any:
        """Those of a cell that is linear in its carry, see `ops.engine.run`."""
        return getattr(self.cell, "coefficients", None)


def step_of(cell: RecurrentCell) -> CellStep:
    """The pure step of a cell, bound or not."""
    return CellStep(cell.clone(parent=None, name=None))


def state_dtype(compute_dtype: Any) -> Any:
    """The dtype of states that sum over time, and of the arithmetic of gates.

    Float32 at least, whatever the dtype of the computation; float64 if that is.
    """
    return jnp.promote_types(compute_dtype, jnp.float32)


def checked_carry(
    name: str, cell: RecurrentCell, carry: Tree, frame_shape: tuple[Any, ...] | None
) -> Tree:
    """The carry in the dtypes of `initialize_carry`.

    `frame_shape` is `(B, H, W, C)`, or `None` where there is no input. Raises a
    ValueError over a carry of other shapes.
    """
    shapes = jax.tree.map(jnp.shape, carry)
    wrong = name if frame_shape is None else "inputs"
    if frame_shape is None:
        frame_shape = next(map(jnp.shape, jax.tree.leaves(carry)), ())
    if len(frame_shape) != 4:
        raise ValueError(
            f"{wrong} has shape {frame_shape}: it must be [B, H, W, channels]"
        )
    like = jax.eval_shape(lambda: cell.initialize_carry(None, frame_shape))
    expected = jax.tree.map(lambda state: state.shape, like)
    if shapes != expected:
        raise ValueError(f"{name} has the shapes {shapes}: it must be {expected}")
    return jax.tree.map(lambda state, own: state.astype(own.dtype), carry, like)


def require_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raises a ValueError over a module's field that is not one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}: it must be one of {allowed}")
