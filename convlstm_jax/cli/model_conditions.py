"""What the fields on model, task and training ask of each other."""

from convlstm_jax.cli.condition import Conditions
from convlstm_jax.cli.used_fields import MODEL_FIELDS

CONDITIONS = Conditions()


def _at_most(field: str, limit_field: str, *, strictly: bool = False) -> None:
    """Registers that one field must not exceed another."""

    @CONDITIONS.over(field, limit_field)
    def check(value: int, limit: int) -> str | None:
        if value < limit or (value == limit and not strictly):
            return None
        words = "less than" if strictly else "at most"
        return (
            f"config.{field} is {value}: it must be {words} config.{limit_field}, "
            f"which is {limit}"
        )


_at_most("optimizer.warmup_steps", "train.num_steps", strictly=True)
_at_most("train.batch_size", "data.num_train_sequences")
_at_most("train.num_validation_sequences", "data.num_validation_sequences")
_at_most("eval.num_sequences", "data.num_test_sequences")


def _divisible_by_patch(field: str) -> None:
    """Registers that a side of the frames holds a whole number of patches."""

    @CONDITIONS.over(field, "model.patch_size", "model.name")
    def check(size: int, patch_size: int, model: str) -> str | None:
        if size % patch_size == 0 or "patch_size" not in MODEL_FIELDS[model]:
            return None
        return (
            f"config.{field} is {size}: it must be a multiple of "
            f"config.model.patch_size, which is {patch_size}"
        )


_divisible_by_patch("data.height")
_divisible_by_patch("data.width")


@CONDITIONS.over("model.peephole", "model.name")
def _peephole_suits_the_model(peephole: str, name: str) -> str | None:
    if peephole != "location" or name not in ("fc_lstm", "fc_lstm_autoencoder"):
        return None
    return (
        "config.model.peephole is 'location': it must be 'channel' or 'none' with "
        f"config.model.name={name!r}, whose layers have no locations"
    )


@CONDITIONS.over("model.conditional", "model.name")
def _conditional_is_used(conditional: bool, name: str) -> str | None:
    if not conditional or name == "fc_lstm_autoencoder":
        return None
    return (
        "config.model.conditional is True: it must be False with config.model.name="
        f"{name!r}, as 'fc_lstm_autoencoder' alone has conditional decoders"
    )


# The tasks of each model that knows others than "forecast".
_TASKS = {
    "encoder_forecaster": ("forecast", "nowcast"),
    "fc_lstm": ("forecast", "nowcast"),
    "fc_lstm_autoencoder": ("reconstruct", "predict", "composite"),
    "clip_classifier": ("classify",),
}


@CONDITIONS.over("task.name", "model.name")
def _task_suits_the_model(task: str, name: str) -> str | None:
    allowed = _TASKS.get(name, ("forecast",))
    if task in allowed:
        return None
    *others, last = map(repr, allowed)
    listed = f"{', '.join(others)} or {last}" if others else last
    return (
        f"config.task.name is {task!r}: it must be {listed} with "
        f"config.model.name={name!r}"
    )


@CONDITIONS.over("task.from_last_frame", "task.name")
def _last_frame_is_used(from_last_frame: bool, task: str) -> str | None:
    if not from_last_frame or task == "nowcast":
        return None
    return (
        "config.task.from_last_frame is True: it must be False with "
        f"config.task.name={task!r}, as 'nowcast' alone knows it"
    )


@CONDITIONS.over("task.rain_weights", "task.rain_weight_rates")
def _a_weight_for_each_rate(
    weights: tuple[float, ...], rates: tuple[float, ...]
) -> str | None:
    if len(weights) == len(rates):
        return None
    return (
        f"config.task.rain_weights is {weights}: it must have as many entries as "
        f"config.task.rain_weight_rates, which is {rates}"
    )


@CONDITIONS.over("task.loss", "task.name")
def _loss_suits_the_task(loss: str, task: str) -> str | None:
    if task == "nowcast" and loss == "mse_sum":
        return (
            "config.task.loss is 'mse_sum': it must be another one with "
            "config.task.name='nowcast', whose losses are means over pixels with data"
        )
    if task != "nowcast" and loss in ("b_mse", "b_mae"):
        return (
            f"config.task.loss is {loss!r}: it must be another one with "
            f"config.task.name={task!r}, which knows no rain"
        )
    return None


@CONDITIONS.over("task.name", "task.num_output_frames", "task.num_input_frames")
def _reconstructs_what_was_given(
    task: str, num_outputs: int, num_inputs: int
) -> str | None:
    if task != "reconstruct" or num_outputs <= num_inputs:
        return None
    return (
        f"config.task.num_output_frames is {num_outputs}: it must be at most "
        f"config.task.num_input_frames, which is {num_inputs}, with "
        "config.task.name='reconstruct'"
    )


def _only_for(model: str, field: str, off: bool | float | str) -> None:
    """Registers that a field stays off for all other models, which do not know it."""

    @CONDITIONS.over(field, "model.name")
    def check(value: bool | float | str, name: str) -> str | None:
        if value == off or name == model:
            return None
        return (
            f"config.{field} is {value!r}: it must be {off!r} with "
            f"config.model.name={name!r}, as {model!r} alone knows it"
        )


_only_for("recurrent_predictor", "model.layer_norm", False)
_only_for("recurrent_predictor", "model.forget_offset", 1.0)
_only_for("recurrent_predictor", "task.sampling", "none")
_only_for("clip_classifier", "task.class_weights", "none")
_only_for("clip_classifier", "data.flip", False)
_only_for("clip_classifier", "data.crop", 0.0)
_only_for("clip_classifier", "data.brightness", 0.0)


@CONDITIONS.over(
    "task.reverse_sampling_start_step", "task.sampling_end_step", "task.sampling"
)
def _reverse_sampling_ends(start: int, end: int, sampling: str) -> str | None:
    if sampling != "reverse_scheduled" or start < end:
        return None
    return (
        f"config.task.reverse_sampling_start_step is {start}: it must be less than "
        f"config.task.sampling_end_step, which is {end}"
    )


@CONDITIONS.over("model.memory", "model.implementation", "model.name")
def _memory_can_be_saved(memory: str, implementation: str, name: str) -> str | None:
    if memory == "default" or implementation == "fused":
        return None
    if "implementation" not in MODEL_FIELDS[name]:
        return None
    return (
        f"config.model.memory is {memory!r}: it must be 'default' with "
        f"config.model.implementation={implementation!r}, as 'fused' alone can "
        "save memory"
    )


@CONDITIONS.over("model.kernel_sizes", "model.features", "model.name")
def _a_kernel_for_each_layer(
    kernel_sizes: tuple[int, ...], features: tuple[int, ...], name: str
) -> str | None:
    if name != "next_frame" or len(kernel_sizes) == len(features):
        return None
    return (
        f"config.model.kernel_sizes is {kernel_sizes}: it must have as many entries as "
        f"config.model.features, which is {features}"
    )


@CONDITIONS.over("model.num_normalized_layers", "model.features", "model.name")
def _layers_to_normalize(
    num_layers: int, features: tuple[int, ...], name: str
) -> str | None:
    if name != "next_frame" or num_layers <= len(features):
        return None
    return (
        f"config.model.num_normalized_layers is {num_layers}: it must be at most "
        f"{len(features)}, the number of layers in config.model.features"
    )


@CONDITIONS.over(
    "task.num_training_frames",
    "task.num_input_frames",
    "task.num_output_frames",
    "model.name",
)
def _training_frames_are_there(
    num_training: int, num_inputs: int, num_outputs: int, name: str
) -> str | None:
    length = num_inputs + num_outputs
    if name != "next_frame" or num_training == 0 or 2 <= num_training <= length:
        return None
    return (
        f"config.task.num_training_frames is {num_training}: it must be 0 (all) or "
        f"from 2 to {length}, the sum of config.task.num_input_frames and "
        "config.task.num_output_frames"
    )


@CONDITIONS.over(
    "task.num_training_frames",
    "task.score_inputs",
    "task.num_input_frames",
    "model.name",
)
def _something_is_scored(
    num_training: int, score_inputs: bool, num_inputs: int, name: str
) -> str | None:
    if name != "next_frame" or score_inputs or num_training == 0:
        return None
    if num_training > num_inputs:
        return None
    return (
        f"config.task.num_training_frames is {num_training}: it must be 0 (all) or "
        f"more than config.task.num_input_frames, which is {num_inputs}, with "
        "config.task.score_inputs=False"
    )


@CONDITIONS.over("optimizer.weight_decay", "optimizer.name")
def _weight_decay_is_used(weight_decay: float, name: str) -> str | None:
    if weight_decay == 0 or name == "adamw":
        return None
    return (
        f"config.optimizer.weight_decay is {weight_decay:g}: it must be 0 with "
        f"config.optimizer.name={name!r}, as 'adamw' alone decays weights"
    )
