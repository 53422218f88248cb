"""The pure, jitted steps: one of training, one of evaluation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from convlstm_jax.metrics.accumulate import batch_sums, sums_by_condition
from convlstm_jax.objectives.base import Batch, Objective
from convlstm_jax.training.sharding import batch_sharded, replicated
from convlstm_jax.training.state import TrainState


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformationExtraArgs,
    mesh: Mesh,
    *,
    seed: int,
    ema_decay: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """The training step, jitted over a mesh; it consumes (donates) the state.

    The loss is the mean over the global batch. Randomness is derived from `seed` and
    the step number, so a resumed run draws what the uninterrupted one would have drawn.
    A step whose loss or gradients are not finite changes the flag `finite` alone.

    Returns (state, batch) → (state, {"loss", "gradient_norm", "finite"}).
    """

    def train_step(state: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)

        def mean_loss(params):
            variables = {"params": params, **state.model_state}
            losses, model_state = objective.loss_fn(variables, batch, key, state.step)
            return losses.mean(), model_state

        (loss, model_state), gradients = jax.value_and_grad(mean_loss, has_aux=True)(
            state.params
        )
        norm = optax.tree.norm(gradients)
        finite = state.finite & jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, opt_state = optimizer.update(
            gradients, state.opt_state, state.params, value=loss
        )
        params = optax.apply_updates(state.params, updates)
        ema_params = state.ema_params
        if ema_params is not None:
            ema_params = optax.incremental_update(params, ema_params, 1 - ema_decay)
        new = TrainState(
            state.step + 1, params, model_state, opt_state, ema_params, finite
        )
        kept = state.replace(finite=finite)  # type: ignore[attr-defined]
        state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, kept)
        return state, {"loss": loss, "gradient_norm": norm, "finite": finite}

    return jax.jit(
        train_step,
        in_shardings=(replicated(mesh), batch_sharded(mesh)),
        out_shardings=replicated(mesh),
        donate_argnums=0,
    )


def make_eval_step(
    objective: Objective, mesh: Mesh, *, with_baselines: bool, num_conditions: int = 0
) -> Callable[[Any, Batch], dict[str, Any]]:
    """The evaluation step, jitted over a mesh: sums over one batch.

    Returns (variables, {"frames", "weight", …}) → {contender: sums}, one of them being
    "model". With conditions, "by_condition" holds the same with a leading axis
    `num_conditions`. With baselines, for a model that is scored by "mse", "clip_mse"
    `[B]` is the MSE of each clip, -inf for one of weight 0.
    """

    def eval_step(variables, batch: Batch):
        contenders = objective.measure(variables, batch, with_baselines=with_baselines)
        weight = batch["weight"]
        sums: dict[str, Any] = {
            name: batch_sums(m, weight) for name, m in contenders.items()
        }
        if num_conditions:
            condition = batch["condition"]
            sums["by_condition"] = {
                name: sums_by_condition(metrics, weight, condition, num_conditions)
                for name, metrics in contenders.items()
            }
        if with_baselines and "mse" in contenders["model"]:
            clip_mse = contenders["model"]["mse"].mean(axis=1)
            sums["clip_mse"] = jnp.where(weight > 0, clip_mse, -jnp.inf)
        return sums

    return jax.jit(
        eval_step,
        in_shardings=(replicated(mesh), batch_sharded(mesh)),
        out_shardings=replicated(mesh),
    )
