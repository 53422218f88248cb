"""Everything a training step changes."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from convlstm_jax.objectives.base import Objective, Variables
from convlstm_jax.training.sharding import on_cpu, replicated


@flax.struct.dataclass
class TrainState:
    """The training state: what a step updates and a checkpoint holds.

    Attributes:
        step: steps taken, int32.
        params: the model's parameters.
        model_state: the model's other variables, such as batch statistics.
        opt_state: the optimizer's state.
        ema_params: exponential moving average of the parameters, or `None`.
        finite: false once a loss or gradient was not finite; the state then stays that
            of the last good step.
    """

    step: Array
    params: Any
    model_state: Variables
    opt_state: optax.OptState
    ema_params: Any
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
    """Step 0, replicated over the devices of the mesh.

    Args:
        objective: Gives the parameters' shapes.
        optimizer: gives its own state.
        seed: of the parameters' initial values.
        frame_shape: `(H, W, C)`.
        with_ema: whether an average of the parameters is kept.
        mesh: devices.
    """

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
    options = {"xla_backend_optimization_level": 0} if on_cpu(mesh) else None
    initialize = jax.jit(init, out_shardings=replicated(mesh), compiler_options=options)
    return initialize(jax.random.key(seed))
