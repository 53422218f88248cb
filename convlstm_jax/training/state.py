"""Everything that training changes: what a checkpoint holds."""

import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
import pydantic
from jax import Array
from jax.sharding import Mesh

from convlstm_jax.objectives.base import Objective, Variables
from convlstm_jax.training.sharding import replicated


@flax.struct.dataclass
class TrainState:
    """The training state: what a step updates and a checkpoint holds.

    `finite` is false once a loss or gradient was not finite; the state then stays that
    of the last good step.
    """

    step: Array  # Steps taken, int32.
    params: Any
    model_state: Variables  # Such as batch statistics.
    opt_state: optax.OptState
    ema_params: Any  # Their exponential moving average, or None.
    finite: Array

    @property
    def eval_variables(self) -> Variables:
        """The variables for evaluation and prediction: averaged parameters if kept."""
        params = self.params if self.ema_params is None else self.ema_params
        return {"params": params, **self.model_state}


def init_state(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    frame_shape: tuple[int, int, int],
    with_ema: bool,
    mesh: Mesh,
) -> TrainState:
    """Step 0, replicated over the devices of the mesh; `frame_shape` is `(H, W, C)`."""

    def init(key):
        model_state = objective.init(key, frame_shape)
        params = model_state.pop("params")
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            model_state=model_state,
            opt_state=optimizer.init(params),
            ema_params=jax.tree.map(jnp.copy, params) if with_ema else None,
            finite=jnp.ones((), bool),
        )

    # XLA:CPU would spend seconds on optimising random draws that run once.
    is_cpu = mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 0} if is_cpu else None
    initialize = jax.jit(init, out_shardings=replicated(mesh), compiler_options=options)
    return initialize(jax.random.key(seed))


class FrozenModel(pydantic.BaseModel):
    """Base of what is stored as JSON: no other fields or types when it is read."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)


class EarlyStopping(FrozenModel):
    """The lowest validation loss so far, its earliest step, and evaluations since."""

    best_value: float | None = None
    best_step: int | None = None
    evaluations_without_improvement: int = 0

    def update(self, step: int, loss: float) -> "EarlyStopping":
        """Returns the state after an evaluation; NaN and infinity never improve it."""
        best = math.inf if self.best_value is None else self.best_value
        if loss < best:
            return EarlyStopping(best_value=float(loss), best_step=step)
        count = self.evaluations_without_improvement + 1
        return self.model_copy(update={"evaluations_without_improvement": count})

    def should_stop(self, patience: int) -> bool:
        """Whether `patience` evaluations passed without improvement (0: never)."""
        return 0 < patience <= self.evaluations_without_improvement
