"""Optimizers and learning-rate schedules by name, all of them optax's."""

import optax

from convlstm_jax.training.muon import muon

OPTIMIZERS = ("adam", "adamw", "rmsprop", "adadelta", "muon")
SCHEDULES = ("constant", "cosine", "one_cycle", "reduce_on_plateau")


def make_schedule(
    schedule: str, learning_rate: float, num_steps: int, warmup_steps: int = 0
) -> optax.Schedule:
    """The learning rate by step.

    Args:
      schedule: "constant" and "reduce_on_plateau" (whose reductions come after) stay
        at `learning_rate`; "cosine" falls to zero at `num_steps`; "one_cycle" is Smith
        and Topin's (arXiv:1708.07120): up during the first 30 % of the steps, then down
        to almost zero.
      learning_rate: its highest value.
      num_steps: steps of the whole run.
      warmup_steps: steps of linear rise from zero before; not used by "one_cycle",
        which has its own.
    """
    if schedule == "one_cycle":
        return optax.cosine_onecycle_schedule(num_steps, learning_rate)
    if schedule == "cosine":
        main = optax.cosine_decay_schedule(
            learning_rate, max(1, num_steps - warmup_steps)
        )
    else:
        main = optax.constant_schedule(learning_rate)
    if not warmup_steps:
        return main
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, main], [warmup_steps])


def make_optimizer(
    *,
    name: str,
    learning_rate: float,
    schedule: str,
    num_steps: int,
    warmup_steps: int = 0,
    weight_decay: float = 0.0,
    rmsprop_decay: float = 0.9,
    clip_norm: float = 0.0,
    plateau_factor: float = 0.5,
    plateau_patience: int = 5,
    plateau_window_steps: int = 1000,
) -> optax.GradientTransformationExtraArgs:
    """The whole chain from gradients to updates.

    Args:
      name: one of `OPTIMIZERS`.
      learning_rate: highest learning rate.
      schedule: one of `SCHEDULES`.
      num_steps: steps of the whole run.
      warmup_steps: see `make_schedule`.
      weight_decay: of "adamw", decoupled from the gradient.
      rmsprop_decay: decay of RMSProp's mean of squares; 0.9 in arXiv:1506.04214.
      clip_norm: gradients of a larger global norm are scaled down to it; 0 is off.
      plateau_factor: "reduce_on_plateau" multiplies the learning rate by it.
      plateau_patience: after so many windows without a lower training loss.
      plateau_window_steps: steps over which the training loss is averaged.

    Returns:
      A transformation whose `update` takes the training loss as `value`.
    """
    rate = make_schedule(schedule, learning_rate, num_steps, warmup_steps)
    optimizer = {
        "adam": lambda: optax.adam(rate),
        "adamw": lambda: optax.adamw(rate, weight_decay=weight_decay),
        "rmsprop": lambda: optax.rmsprop(rate, decay=rmsprop_decay),
        "adadelta": lambda: optax.adadelta(rate, rho=0.95),
        "muon": lambda: muon(rate),
    }[name]()
    chain = []
    if clip_norm:
        chain.append(optax.clip_by_global_norm(clip_norm))
    chain.append(optimizer)
    if schedule == "reduce_on_plateau":
        chain.append(
            optax.contrib.reduce_on_plateau(
                factor=plateau_factor,
                patience=plateau_patience,
                accumulation_size=plateau_window_steps,
            )
        )
    return optax.with_extra_args_support(optax.chain(*chain))
