"""A stack of recurrent layers that reads frames, or its own last prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Float

from convlstm_jax.cells.cell import CellStep, RecurrentCell, step_of
from convlstm_jax.ops.engine import Convolve, Kernels, Tree, run
from convlstm_jax.types import Array, ForecastVideo, Frame, Video

TeacherForcing = Bool[Array, "B S"]


class RolloutState(NamedTuple):
    """The carry of each layer, and the prediction `[B, H, W, C]` of the next frame.

    `passed` holds what the top layer has passed on; it is not in the carries.
    """

    carries: tuple[Tree, ...]
    prediction: Frame
    passed: dict[str, Tree]


def rollout(
    cells: Sequence[RecurrentCell],
    output_kernel: Float[Array, "1 1 F C"],
    frames: Video,
    teacher_forcing: TeacherForcing,
    state: RolloutState | None = None,
    *,
    shared_kernels: Kernels | None = None,
    memory: str = "default",
) -> tuple[RolloutState, ForecastVideo]:
    """Runs a stack for S steps, one predicted frame a step.

    Step t reads frame t where `teacher_forcing[:, t]`, and the prediction of step t−1
    elsewhere; its output is the prediction of frame t+1. As the prediction is fed back,
    nothing is computed before the loop over time: the layers go through each step
    together.

    Args:
        cells: Modules, bottom layer first, all of one `dtype`.
        output_kernel: Of the convolution from the last layer's output to a frame.
        frames: `[B, T, H, W, C]`; T may be less than S where later frames are not read;
            frames after S are ignored.
        teacher_forcing: `[B, S]`, true where a clip's frame is read at a step.
        state: The state before; zeros at the start of a clip.
        shared_kernels: Kernels that every layer reads under the same name.
        memory: What is kept for the backward pass, see `ops.engine.run`.

    Returns:
        The state after the last step, and the predictions `[B, S, H, W, C]`.
    """
    dtype = cells[0].dtype
    num_steps = teacher_forcing.shape[1]
    frames = frames[:, :num_steps].astype(dtype)
    missing = num_steps - frames.shape[1]
    frames = jnp.pad(frames, ((0, 0), (0, missing), (0, 0), (0, 0), (0, 0)))
    batch, _, height, width, channels = frames.shape
    if state is None:
        frame_shape = (batch, height, width, channels)
        state = _initial_state(cells, frame_shape)
    kernels, parameters = {"output_kernel": output_kernel}, []
    for index, cell in enumerate(cells):
        weights = cell.weights(channels, height, width)
        of_layer = {**weights.kernels, **(shared_kernels or {})}
        kernels |= {_name(index, name): kernel for name, kernel in of_layer.items()}
        parameters.append(weights.others)
        channels = cell.features
    return run(
        _Step(tuple(map(step_of, cells))),
        kernels,
        parameters,
        state,
        (frames, teacher_forcing.astype(dtype)),
        num_steps=num_steps,
        memory=memory,
        dtype=dtype,
    )


def _initial_state(
    cells: Sequence[RecurrentCell], frame_shape: tuple[Any, ...]
) -> RolloutState:
    """The state at the start of a clip."""
    carries, shape = [], frame_shape
    for cell in cells:
        carries.append(cell.initialize_carry(None, shape))
        shape = (*shape[:-1], cell.features)
    passed = {name: getattr(carries[0], name) for name in cells[0].passed}
    own = map(_without_passed, cells, carries)
    return RolloutState(tuple(own), jnp.zeros(frame_shape, cells[0].dtype), passed)


def _without_passed(cell: RecurrentCell, carry: Tree) -> Tree:
    return carry._replace(**dict.fromkeys(cell.passed)) if cell.passed else carry


@dataclass(frozen=True)
class _Step:
    """One step of the stack as the engine takes it."""

    steps: tuple[CellStep, ...]

    def __call__(
        self, convolve: Convolve, parameters: Any, state: Any, inputs: Any
    ) -> Any:
        frame, teacher_forcing = inputs
        forced = teacher_forcing[:, None, None, None] > 0
        hidden = jnp.where(forced, frame, state.prediction)
        carries, passed = [], dict(state.passed)
        for index, step in enumerate(self.steps):

            def convolve_layer(index: int = index, **arrays: Any) -> Array:
                return convolve(**{_name(index, n): x for n, x in arrays.items()})

            carry, names = state.carries[index], step.cell.passed
            if names:
                carry = carry._replace(**{n: passed[n] for n in names if n in passed})
            carry, hidden = step(convolve_layer, parameters[index], carry, hidden)
            passed |= {name: getattr(carry, name) for name in names}
            carries.append(_without_passed(step.cell, carry))
        prediction = convolve(output_kernel=hidden)
        passed = {name: passed[name] for name in state.passed}
        return RolloutState(tuple(carries), prediction, passed), prediction


def _name(layer: int, kernel: str) -> str:
    return f"{layer}/{kernel}"
