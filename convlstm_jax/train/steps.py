"""The pure, jitted steps: one of training, one of evaluation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from convlstm_jax.metrics.accumulate import batch_sums, frame_metrics
from convlstm_jax.metrics.baselines import BASELINES
from convlstm_jax.tasks.task import Reconstructs, Task, split_batch
from convlstm_jax.train.sharding import batch_sharded, replicated
from convlstm_jax.train.state import TrainState

Batch = dict[str, Array]


def make_train_step(
    task: Task,
    optimizer: optax.GradientTransformationExtraArgs,
    mesh: Mesh,
    *,
    seed: int,
    ema_decay: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """The training step, jitted over a mesh; it consumes (donates) the state.

    The loss is the mean over the global batch, so the number of devices does not
    change it. The step's randomness is derived from `seed` and the step number: a
    resumed run draws what the uninterrupted one would have drawn. A step whose loss or
    gradients are not finite leaves the state as it was and marks it.

    Args:
      task: gives the loss.
      optimizer: from `make_optimizer`.
      mesh: devices; the batch is divided over them.
      seed: of the step's randomness.
      ema_decay: decay of the parameters' moving average, if the state keeps one.

    Returns:
      A function (state, batch) → (state, {"loss", "gradient_norm", "finite"}).
    """

    def train_step(state: TrainState, batch: Batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)

        def mean_loss(params):
            variables = {"params": params, **state.model_state}
            losses, model_state = task.loss_fn(variables, batch, key, state.step)
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
    task: Task, mesh: Mesh, *, with_baselines: bool
) -> Callable[[Any, Batch], dict[str, Any]]:
    """The evaluation step, jitted over a mesh: sums over one batch, per lead time.

    Args:
      task: gives predictions and the loss.
      mesh: devices; the batch is divided over them.
      with_baselines: the form of a final evaluation, which scores the baselines of
        `metrics.baselines` too; without them it is that of a validation, and the
        model's metrics include the training loss, the same for every lead time.

    Returns:
      A function (variables, {"frames", "weight"}) → {contender: sums}, with "model"
      among the contenders; of a task that `Reconstructs`, "reconstruction" is one too,
      and its loss is part of the training loss.
    """

    def eval_step(variables, batch: Batch):
        inputs, target = split_batch(task, batch)
        steps = task.num_output_frames
        outputs = {}
        if isinstance(task, Reconstructs):
            forecast, reconstruction, original = task.forecast_and_reconstruct(
                variables, inputs, steps
            )
            outputs["reconstruction"] = reconstruction, original
        else:
            forecast = task.forecast(variables, inputs, steps)
        outputs["model"] = forecast, target
        contenders = {
            name: frame_metrics(output.frames, truth, logits=output.logits)
            for name, (output, truth) in outputs.items()
        }
        if not with_baselines:
            metrics = contenders["model"]
            losses = [task.score(*output) for output in outputs.values()]
            loss = sum(losses[1:], start=losses[0])
            metrics["loss"] = jnp.broadcast_to(loss[:, None], (loss.shape[0], steps))
        else:
            for name, baseline in BASELINES.items():
                contenders[name] = frame_metrics(baseline(inputs, steps), target)
        return {
            name: batch_sums(values, batch["weight"])
            for name, values in contenders.items()
        }

    return jax.jit(
        eval_step,
        in_shardings=(replicated(mesh), batch_sharded(mesh)),
        out_shardings=replicated(mesh),
    )
