"""Checks a config before any work: every field alone, then fields against each other.

`RULES` names every field a config may hold. A new field goes into `configs/base.py`
and into `RULES`; a condition over several fields is one more function in
`model_conditions`, `data_conditions` or `prepared_conditions`.
"""

from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from convlstm_jax.cli import data_conditions, model_conditions, prepared_conditions
from convlstm_jax.cli.data_rules import Box, Span
from convlstm_jax.cli.rules import (
    Boolean,
    Choice,
    Integer,
    Integers,
    Number,
    Numbers,
    Rule,
    Text,
    Texts,
)
from convlstm_jax.data.radar_formats import RADAR_FORMATS
from convlstm_jax.errors import UserError
from convlstm_jax.nearest import did_you_mean

_CONDITIONS = (
    *model_conditions.CONDITIONS,
    *data_conditions.CONDITIONS,
    *prepared_conditions.CONDITIONS,
)

_KERNEL = Integer(1, maximum=63, odd=True)  # Even kernels have no middle pixel.

RULES: dict[str, Rule] = {
    # NumPy and Grain take seeds of 32 bits.
    "seed": Integer(0, maximum=2**32 - 1),
    "preset": Text(),
    "note": Text(),
    "model.name": Choice(
        (
            "encoder_forecaster",
            "fc_lstm",
            "fc_lstm_autoencoder",
            "recurrent_predictor",
            "next_frame",
            "clip_classifier",
        )
    ),
    "model.features": Integers(1, maximum=65_536),
    "model.input_kernel_size": _KERNEL,
    "model.recurrent_kernel_size": _KERNEL,
    "model.patch_size": Integer(1),
    "model.peephole": Choice(("channel", "none", "location")),
    "model.activation": Choice(("tanh", "relu")),
    "model.dtype": Choice(("float32", "bfloat16")),
    "model.implementation": Choice(("fused", "scan")),
    "model.memory": Choice(("default", "checkpoint")),
    "model.layer_norm": Boolean(),
    "model.forget_offset": Number(),
    "model.conditional": Boolean(),
    "model.kernel_sizes": Integers(1, maximum=63, odd=True, example="(5,3,1)"),
    "model.num_normalized_layers": Integer(0),
    "model.batch_norm_momentum": Number(minimum=0, below=1),
    "model.head_frames": Integer(1, maximum=63, odd=True),
    "model.causal_head": Boolean(),
    "model.pool_size": Integer(1),
    "task.name": Choice(
        ("forecast", "nowcast", "reconstruct", "predict", "composite", "classify")
    ),
    "task.num_input_frames": Integer(1),
    "task.num_output_frames": Integer(1),
    "task.num_training_frames": Integer(0),
    "task.score_inputs": Boolean(),
    "task.loss": Choice(("cross_entropy", "mse", "mae", "mse_sum", "b_mse", "b_mae")),
    "task.from_last_frame": Boolean(),
    "task.rain_weight_rates": Numbers(above=0),
    "task.rain_weights": Numbers(above=0),
    "task.sampling": Choice(("none", "scheduled", "reverse_scheduled")),
    "task.sampling_end_step": Integer(1),
    "task.reverse_sampling_start_step": Integer(0),
    "task.reverse_sampling_decay_steps": Integer(1),
    "task.class_weights": Choice(("none", "balanced")),
    "data.name": Choice(
        ("moving_mnist", "moving_squares", "bubbles", "theft_videos", "rain_cells")
    ),
    "data.path": Text(),
    "data.channels": Integer(1, maximum=3, odd=True),
    "data.crop_box": Box(),
    "data.value_range": Span(),
    "data.variable": Text(),
    "data.frame_stride": Integer(1),
    "data.clip_stride": Integer(0),
    "data.condition": Text(),
    "data.split_by": Choice(("file", "condition", "time")),
    "data.test_conditions": Texts(may_be_empty=True, example="slow,fast"),
    "data.validation_fraction": Number(above=0, below=1),
    "data.test_fraction": Number(above=0, below=1),
    "data.bad_files": Choice(("refuse", "skip")),
    "data.event_labels": Texts(),
    "data.flip": Boolean(),
    "data.crop": Number(minimum=0, below=1),
    "data.brightness": Number(minimum=0, below=1),
    "data.symmetries": Boolean(),
    "data.zoom": Number(minimum=1, maximum=4),
    "data.radar_format": Choice(tuple(RADAR_FORMATS)),
    "data.downsample": Integer(1),
    "data.crop_stride": Integer(0),
    "data.least_rain_share": Number(minimum=0, below=1),
    "data.time_step_minutes": Number(above=0),
    "data.dbz_gain": Number(above=0),
    "data.dbz_offset": Number(),
    "data.no_data_value": Integer(0, maximum=255),
    "data.dbz_min": Number(),
    "data.dbz_max": Number(),
    "data.zr_a": Number(above=0),
    "data.zr_b": Number(above=0),
    "data.digits": Choice(("auto", "idx", "tfds", "sklearn")),
    "data.digits_dir": Text(),
    "data.tfds_dir": Text(),
    "data.height": Integer(1),
    "data.width": Integer(1),
    "data.num_digits": Integer(1),
    "data.velocity": Number(above=0, maximum=1),
    "data.num_train_sequences": Integer(1),
    "data.num_validation_sequences": Integer(1),
    "data.num_test_sequences": Integer(1),
    "data.test_file": Text(),
    "data.num_workers": Integer(0),
    "data.prefetch_batches": Integer(0),
    "optimizer.name": Choice(("adam", "adamw", "rmsprop", "adadelta", "muon")),
    "optimizer.learning_rate": Number(above=0),
    "optimizer.schedule": Choice(
        ("constant", "cosine", "one_cycle", "reduce_on_plateau")
    ),
    "optimizer.warmup_steps": Integer(0),
    "optimizer.weight_decay": Number(minimum=0),
    "optimizer.rmsprop_decay": Number(minimum=0, below=1),
    "optimizer.clip_norm": Number(minimum=0),
    "optimizer.plateau_factor": Number(above=0, below=1),
    "optimizer.plateau_patience": Integer(1),
    "optimizer.ema_decay": Number(minimum=0, below=1),
    "train.num_steps": Integer(1),
    "train.batch_size": Integer(1),
    "train.eval_every_steps": Integer(1),
    "train.checkpoint_every_steps": Integer(1),
    "train.log_every_steps": Integer(1),
    "train.early_stopping_patience": Integer(0),
    "train.num_validation_sequences": Integer(1),
    "train.num_pictures": Integer(0),
    "eval.num_sequences": Integer(1),
    "eval.batch_size": Integer(1),
    "eval.num_pictures": Integer(0),
    "eval.num_vmaf_sequences": Integer(0),
    "eval.rain_thresholds": Numbers(above=0),
    "eval.fss_window_sizes": Integers(1, maximum=999, odd=True, example="(1,5,9)"),
}


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns every value of a nested config by its dotted path, without `config.`."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, (ConfigDict, dict)):
            flat |= leaves(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def refusal(path: str, value: Any) -> str:
    """Returns the sentence that refuses `value` for the field at `path`."""
    rule = RULES[path]
    return f"config.{path} is {value!r}: it must be {rule.allowed}{rule.hint(value)}"


def text_problem(path: str, text: str) -> str | None:
    """Returns the sentence that refuses a field's value given as text, if any does."""
    rule = RULES[path]
    try:
        accepted = rule.accepts(rule.parse(text))
    except ValueError:
        accepted = False
    return None if accepted else refusal(path, text)


def find_problems(config: ConfigDict, skip: Collection[str] = ()) -> list[str]:
    """Returns all problems of a config, one sentence each.

    Args:
      config: the config, as `configs/base.py` declares it.
      skip: dotted paths that are known to be wrong and already reported.
    """
    values = leaves(config)
    problems = []
    for path in values.keys() - RULES.keys():
        hint = did_you_mean(f"config.{path}", (f"config.{known}" for known in RULES))
        problems.append(f"config.{path} is not a field of the config{hint}")
    problems.sort()
    wrong = set(skip)
    for path, rule in RULES.items():
        if path in wrong:
            continue
        if path not in values:
            problems.append(f"config.{path} is missing: it must be {rule.allowed}")
            wrong.add(path)
        elif not rule.accepts(values[path]):
            problems.append(refusal(path, values[path]))
            wrong.add(path)
    for fields, check in _CONDITIONS:
        if wrong.isdisjoint(fields):
            problem = check(*(values[field] for field in fields))
            if problem is not None:
                problems.append(problem)
    return problems


def raise_problems(problems: list[str], header: str) -> None:
    """Raises all problems as one error: a sentence, or a header and a line for each.

    Raises:
      UserError: if there is any problem.
    """
    if len(problems) == 1:
        raise UserError(problems[0])
    if problems:
        raise UserError("\n  ".join([f"{len(problems)} {header}:", *problems]))


def validate(config: ConfigDict) -> None:
    """Checks every field of a config, alone and against the others.

    Raises:
      UserError: naming every problem at once, each with the field, its value and what
        is allowed.
    """
    raise_problems(find_problems(config), "things in the config are wrong")
