"""Checks a config before any work: every field alone, then fields against each other.

`RULES` names every field a config may hold. A new field goes into `configs/base.py`
and into `RULES`; a condition over several fields is one more function under
`@condition`.
"""

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from convlstm_jax.cli.nearest import did_you_mean
from convlstm_jax.cli.rules import (
    Boolean,
    Choice,
    Integer,
    Integers,
    Number,
    Rule,
    Text,
)
from convlstm_jax.errors import UserError

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
        )
    ),
    "model.features": Integers(1),
    "model.input_kernel_size": _KERNEL,
    "model.recurrent_kernel_size": _KERNEL,
    "model.patch_size": Integer(1),
    "model.peephole": Choice(("channel", "none", "location")),
    "model.activation": Choice(("tanh", "relu")),
    "model.dtype": Choice(("float32", "bfloat16")),
    "model.implementation": Choice(("fused", "scan")),
    "model.layer_norm": Boolean(),
    "model.conditional": Boolean(),
    "model.kernel_sizes": Integers(1, maximum=63, odd=True, example="(5,3,1)"),
    "model.num_normalized_layers": Integer(0),
    "model.causal_head": Boolean(),
    "task.name": Choice(("forecast", "reconstruct", "predict", "composite")),
    "task.num_input_frames": Integer(1),
    "task.num_output_frames": Integer(1),
    "task.num_training_frames": Integer(0),
    "task.loss": Choice(("cross_entropy", "mse", "mae", "mse_sum")),
    "task.sampling": Choice(("none", "scheduled", "reverse_scheduled")),
    "task.sampling_end_step": Integer(1),
    "task.reverse_sampling_start_step": Integer(0),
    "task.reverse_sampling_decay_steps": Integer(1),
    "data.name": Choice(("moving_mnist", "moving_squares")),
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
    "optimizer.name": Choice(("adam", "adamw", "rmsprop", "adadelta")),
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
}

# A condition gets the values of its fields and returns None, or the problem.
_Condition = Callable[..., str | None]
CONDITIONS: list[tuple[tuple[str, ...], _Condition]] = []


def condition(*fields: str) -> Callable[[_Condition], _Condition]:
    """Registers a check over several fields; it runs once each of them is right."""

    def register(check: _Condition) -> _Condition:
        CONDITIONS.append((fields, check))
        return check

    return register


def _at_most(field: str, limit_field: str, *, strictly: bool = False) -> None:
    """Registers that one field must not exceed another."""

    @condition(field, limit_field)
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

    @condition(field, "model.patch_size", "model.name")
    def check(size: int, patch_size: int, model: str) -> str | None:
        if size % patch_size == 0 or model == "next_frame":  # Which has no patches.
            return None
        return (
            f"config.{field} is {size}: it must be a multiple of "
            f"config.model.patch_size, which is {patch_size}"
        )


_divisible_by_patch("data.height")
_divisible_by_patch("data.width")


def _room_for_a_digit(field: str) -> None:
    """Registers that a digit of 28 pixels fits into the frames."""

    @condition(field, "data.name")
    def check(size: int, name: str) -> str | None:
        if name != "moving_mnist" or size >= 28:
            return None
        return (
            f"config.{field} is {size}: it must be an integer of at least 28, the "
            "size of a digit in pixels"
        )


_room_for_a_digit("data.height")
_room_for_a_digit("data.width")


@condition("data.digits_dir", "data.digits", "data.name")
def _digits_are_there(digits_dir: str, digits: str, name: str) -> str | None:
    if name != "moving_mnist":
        return None
    if digits_dir:
        if Path(digits_dir).expanduser().is_dir():
            return None
        return (
            f"config.data.digits_dir is {digits_dir!r}: it must be an existing folder "
            "that holds the IDX files of MNIST"
        )
    if digits == "idx" and not os.environ.get("CONVLSTM_MNIST_DIR"):
        return (
            "config.data.digits_dir is '': it must be the folder that holds the IDX "
            "files of MNIST, as config.data.digits is 'idx' and the environment "
            "variable CONVLSTM_MNIST_DIR is not set"
        )
    return None


@condition("data.test_file", "data.name")
def _test_file_is_there(test_file: str, name: str) -> str | None:
    if not test_file or (
        name == "moving_mnist" and Path(test_file).expanduser().is_file()
    ):
        return None
    if name != "moving_mnist":
        return (
            f"config.data.test_file is {test_file!r}: it must be '' with "
            f"config.data.name={name!r}, as it holds moving digits"
        )
    return (
        f"config.data.test_file is {test_file!r}: it must be an existing file in the "
        "format of mnist_test_seq.npy, or ''"
    )


@condition("data.test_file", "data.height", "data.width")
def _test_file_size(test_file: str, height: int, width: int) -> str | None:
    if not test_file or (height, width) == (64, 64):
        return None
    return (
        f"config.data.height and config.data.width are {height} and {width}: both must "
        "be 64 with config.data.test_file, whose frames are 64x64"
    )


@condition("data.test_file", "data.num_digits")
def _test_file_digits(test_file: str, num_digits: int) -> str | None:
    if not test_file or num_digits == 2:
        return None
    return (
        f"config.data.num_digits is {num_digits}: it must be 2 with "
        "config.data.test_file, whose frames have two digits"
    )


@condition("data.test_file", "task.num_input_frames", "task.num_output_frames")
def _test_file_length(test_file: str, num_inputs: int, num_outputs: int) -> str | None:
    if not test_file or num_inputs + num_outputs <= 20:
        return None
    return (
        "config.task.num_input_frames and config.task.num_output_frames are "
        f"{num_inputs} and {num_outputs}: together they must be at most 20 with "
        "config.data.test_file, whose sequences have 20 frames"
    )


@condition("model.peephole", "model.name")
def _peephole_suits_the_model(peephole: str, name: str) -> str | None:
    if peephole != "location" or name not in ("fc_lstm", "fc_lstm_autoencoder"):
        return None
    return (
        "config.model.peephole is 'location': it must be 'channel' or 'none' with "
        f"config.model.name={name!r}, whose layers have no locations"
    )


@condition("model.conditional", "model.name")
def _conditional_is_used(conditional: bool, name: str) -> str | None:
    if not conditional or name == "fc_lstm_autoencoder":
        return None
    return (
        "config.model.conditional is True: it must be False with config.model.name="
        f"{name!r}, as 'fc_lstm_autoencoder' alone has conditional decoders"
    )


@condition("task.name", "model.name")
def _task_suits_the_model(task: str, name: str) -> str | None:
    is_autoencoder = name == "fc_lstm_autoencoder"
    if (task in ("reconstruct", "predict", "composite")) == is_autoencoder:
        return None
    allowed = "'reconstruct', 'predict' or 'composite'"
    return (
        f"config.task.name is {task!r}: it must "
        f"{'be' if is_autoencoder else 'not be'} {allowed} with "
        f"config.model.name={name!r}"
    )


@condition("task.name", "task.num_output_frames", "task.num_input_frames")
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


def _only_for_recurrent_predictor(field: str, off: bool | str) -> None:
    """Registers that a field stays off for all other models, which do not know it."""

    @condition(field, "model.name")
    def check(value: bool | str, name: str) -> str | None:
        if value == off or name == "recurrent_predictor":
            return None
        return (
            f"config.{field} is {value!r}: it must be {off!r} with "
            f"config.model.name={name!r}, as 'recurrent_predictor' alone knows it"
        )


_only_for_recurrent_predictor("model.layer_norm", False)
_only_for_recurrent_predictor("task.sampling", "none")


@condition(
    "task.reverse_sampling_start_step", "task.sampling_end_step", "task.sampling"
)
def _reverse_sampling_ends(start: int, end: int, sampling: str) -> str | None:
    if sampling != "reverse_scheduled" or start < end:
        return None
    return (
        f"config.task.reverse_sampling_start_step is {start}: it must be less than "
        f"config.task.sampling_end_step, which is {end}"
    )


@condition("model.kernel_sizes", "model.features", "model.name")
def _a_kernel_for_each_layer(
    kernel_sizes: tuple[int, ...], features: tuple[int, ...], name: str
) -> str | None:
    if name != "next_frame" or len(kernel_sizes) == len(features):
        return None
    return (
        f"config.model.kernel_sizes is {kernel_sizes}: it must have as many entries as "
        f"config.model.features, which is {features}"
    )


@condition("model.num_normalized_layers", "model.features", "model.name")
def _layers_to_normalize(
    num_layers: int, features: tuple[int, ...], name: str
) -> str | None:
    if name != "next_frame" or num_layers <= len(features):
        return None
    return (
        f"config.model.num_normalized_layers is {num_layers}: it must be at most "
        f"{len(features)}, the number of layers in config.model.features"
    )


@condition(
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


@condition("optimizer.weight_decay", "optimizer.name")
def _weight_decay_is_used(weight_decay: float, name: str) -> str | None:
    if weight_decay == 0 or name == "adamw":
        return None
    return (
        f"config.optimizer.weight_decay is {weight_decay:g}: it must be 0 with "
        f"config.optimizer.name={name!r}, as 'adamw' alone decays weights"
    )


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
    for fields, check in CONDITIONS:
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
