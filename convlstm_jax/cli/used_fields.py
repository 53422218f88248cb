"""Which fields of a config are looked at, by what others hold."""

from collections.abc import Iterable, Mapping
from typing import Any

_SEQUENCE_FIELDS = ("features", "peephole", "activation", "implementation", "memory")
_PATCH_FIELDS = ("input_kernel_size", "recurrent_kernel_size", "patch_size")
# The fields of config.model that each model takes, beside its name and dtype.
MODEL_FIELDS = {
    "encoder_forecaster": (*_SEQUENCE_FIELDS, *_PATCH_FIELDS),
    "fc_lstm": _SEQUENCE_FIELDS,
    "fc_lstm_autoencoder": (*_SEQUENCE_FIELDS, "conditional"),
    "recurrent_predictor": (
        "features",
        *_PATCH_FIELDS,
        "layer_norm",
        "forget_offset",
        "memory",
    ),
    "next_frame": (
        *_SEQUENCE_FIELDS,
        "kernel_sizes",
        "num_normalized_layers",
        "batch_norm_momentum",
        "head_frames",
        "causal_head",
    ),
    "clip_classifier": (*_SEQUENCE_FIELDS, *_PATCH_FIELDS, "pool_size"),
}
_DATA_SET_FIELDS = (
    "height",
    "width",
    "num_train_sequences",
    "num_validation_sequences",
    "num_test_sequences",
)
_VIDEO_FIELDS = (
    *_DATA_SET_FIELDS,
    "channels",
    "frame_stride",
    "clip_stride",
    "validation_fraction",
    "test_fraction",
)
# The fields of config.data that each data set takes.
DATA_FIELDS = {
    "moving_mnist": (
        *_DATA_SET_FIELDS,
        "digits",
        "digits_dir",
        "tfds_dir",
        "num_digits",
        "velocity",
        "test_file",
    ),
    "moving_squares": _DATA_SET_FIELDS,
    "bubbles": (*_DATA_SET_FIELDS, "test_conditions"),
    "theft_videos": _VIDEO_FIELDS,
    "video_folder": (
        *_VIDEO_FIELDS,
        "path",
        "crop_box",
        "value_range",
        "variable",
        "condition",
        "split_by",
        "test_conditions",
        "bad_files",
    ),
    "labelled_clips": (
        *_VIDEO_FIELDS,
        "path",
        "crop_box",
        "event_labels",
        "bad_files",
    ),
    "rain_cells": _DATA_SET_FIELDS,
    "radar": (
        *_DATA_SET_FIELDS,
        "path",
        "radar_format",
        "downsample",
        "frame_stride",
        "clip_stride",
        "crop_stride",
        "least_rain_share",
        "time_step_minutes",
        "dbz_gain",
        "dbz_offset",
        "no_data_value",
        "test_conditions",
        "validation_fraction",
        "test_fraction",
        "bad_files",
    ),
}
# Of each data set the fields that others take alone. Not the path: a data set is one
# of a path, or one without.
_UNUSED_BY = {
    name: set().union(*DATA_FIELDS.values()) - {*fields, "path"}
    for name, fields in DATA_FIELDS.items()
}
# The data set that config.data.path is of, by the task; "video_folder" for the others.
_DATA_SETS_OF_TASKS = {"classify": "labelled_clips", "nowcast": "radar"}
_NEXT_FRAME = ("model.name", ("next_frame",))
_NOWCAST = ("task.name", ("nowcast",))
_PLATEAU = ("optimizer.schedule", ("reduce_on_plateau",))
_REVERSE = ("task.sampling", ("reverse_scheduled",))
_RAIN_LOSS = ("task.loss", ("b_mse", "b_mae"))
# Fields that are looked at where another one holds one of some values.
USED_WITH = {
    "task.num_training_frames": _NEXT_FRAME,
    "task.score_inputs": _NEXT_FRAME,
    "task.rain_weight_rates": _RAIN_LOSS,
    "task.rain_weights": _RAIN_LOSS,
    "task.sampling_end_step": ("task.sampling", ("scheduled", "reverse_scheduled")),
    "task.reverse_sampling_start_step": _REVERSE,
    "task.reverse_sampling_decay_steps": _REVERSE,
    "data.zoom": _NOWCAST,
    "data.dbz_min": _NOWCAST,
    "data.dbz_max": _NOWCAST,
    "data.zr_a": _NOWCAST,
    "data.zr_b": _NOWCAST,
    "optimizer.rmsprop_decay": ("optimizer.name", ("rmsprop",)),
    "optimizer.plateau_factor": _PLATEAU,
    "optimizer.plateau_patience": _PLATEAU,
    "eval.rain_thresholds": _NOWCAST,
    "eval.fss_window_sizes": _NOWCAST,
}


def data_set_of(name: str, path: str, task: str) -> str:
    """The key in `DATA_FIELDS` of the data set that is read.

    Args:
      name: config.data.name.
      path: config.data.path.
      task: config.task.name.
    """
    return _DATA_SETS_OF_TASKS.get(task, "video_folder") if path else name


def without_effect(values: Mapping[str, Any], paths: Iterable[str]) -> list[str]:
    """Problems with fields that somebody has set, and that nothing looks at.

    Args:
      values: of all fields of a valid config, by dotted path.
      paths: the fields that were set.
    """
    name, folder, task = (
        values[path] for path in ("data.name", "data.path", "task.name")
    )
    data_set = data_set_of(name, folder, task)
    model = values["model.name"]
    used = ("name", "dtype", *MODEL_FIELDS[model])
    problems = []
    for path in paths:
        section, _, field = path.partition(".")
        if section == "model" and field not in used:
            problems.append(
                f"config.{path} cannot be set with config.model.name={model!r}, which "
                f"does not use it: it uses {', '.join(used)}"
            )
        elif section == "data" and field in _UNUSED_BY[data_set]:
            what = f"path={folder!r}" if folder else f"name={name!r}"
            uses = f": it uses {', '.join(DATA_FIELDS[data_set])}"
            if field in DATA_FIELDS[data_set_of("", "a folder", task)]:
                uses = ", unless config.data.path is set"
            problems.append(
                f"config.{path} cannot be set with config.data.{what}, which does not "
                f"use it{uses}"
            )
        elif path in USED_WITH:
            other, allowed = USED_WITH[path]
            if values[other] not in allowed:
                problems.append(
                    f"config.{path} cannot be set with config.{other}="
                    f"{values[other]!r}: it is used with "
                    f"{' or '.join(map(repr, allowed))} alone"
                )
    return problems
