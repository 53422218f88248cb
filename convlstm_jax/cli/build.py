"""From a config to the objects that do the work: the only place that knows both."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from convlstm_jax.data.pipeline import BatchIterator, eval_batches
from convlstm_jax.data.sources import ClipSource, Sources, make_sources
from convlstm_jax.models import MODELS
from convlstm_jax.tasks.autoencoder import AUTOENCODER_TASKS
from convlstm_jax.tasks.forecast import ForecastTask
from convlstm_jax.tasks.next_frame import NextFrameTask
from convlstm_jax.tasks.recurrent import RecurrentTask
from convlstm_jax.tasks.sampling import Sampling
from convlstm_jax.tasks.task import Task

# The fields of config.model that each model takes, beside its name.
_SEQUENCE_FIELDS = ("features", "peephole", "activation", "implementation")
_MODEL_FIELDS = {
    "encoder_forecaster": (
        *_SEQUENCE_FIELDS,
        "input_kernel_size",
        "recurrent_kernel_size",
        "patch_size",
    ),
    "fc_lstm": _SEQUENCE_FIELDS,
    "fc_lstm_autoencoder": (*_SEQUENCE_FIELDS, "conditional"),
    "recurrent_predictor": (
        "features",
        "input_kernel_size",
        "recurrent_kernel_size",
        "patch_size",
        "layer_norm",
    ),
    "next_frame": (
        *_SEQUENCE_FIELDS,
        "kernel_sizes",
        "num_normalized_layers",
        "causal_head",
    ),
}
# The fields of config.data that each data set takes.
_DATA_SET_FIELDS = (
    "height",
    "width",
    "num_train_sequences",
    "num_validation_sequences",
    "num_test_sequences",
)
_DATA_FIELDS = {
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
}


def build_task(config: ConfigDict) -> Task:
    """The model of a config and what it is trained to do."""
    task: Callable[..., Task] = ForecastTask
    fields = {name: config.model[name] for name in _MODEL_FIELDS[config.model.name]}
    if config.task.name in AUTOENCODER_TASKS:
        task, fields["decoders"] = AUTOENCODER_TASKS[config.task.name]
    if config.model.name == "next_frame":
        num_training_frames = config.task.num_training_frames
        task = partial(NextFrameTask, num_training_frames=num_training_frames)
    if config.model.name == "recurrent_predictor":
        task = partial(RecurrentTask, sampling=_sampling(config))
    model = MODELS[config.model.name](**fields, dtype=jnp.dtype(config.model.dtype))
    return task(
        model,
        num_input_frames=config.task.num_input_frames,
        num_output_frames=config.task.num_output_frames,
        loss=config.task.loss,
    )


def _sampling(config: ConfigDict) -> Sampling:
    return Sampling(
        config.task.sampling,
        end_step=config.task.sampling_end_step,
        reverse_start_step=config.task.reverse_sampling_start_step,
        reverse_decay_steps=config.task.reverse_sampling_decay_steps,
    )


def build_sources(config: ConfigDict) -> Sources:
    """The training, validation and test clips of a config.

    Raises:
        UserError: the data cannot be had.
    """
    fields = {name: config.data[name] for name in _DATA_FIELDS[config.data.name]}
    num_frames = config.task.num_input_frames
    if config.task.name != "reconstruct":  # Which wants nothing but its inputs.
        num_frames += config.task.num_output_frames
    return make_sources(
        config.data.name,
        num_frames=num_frames,
        seed=config.seed,
        **fields,
    )


def frame_shape(config: ConfigDict) -> tuple[int, int, int]:
    """(H, W, C) of the config's frames."""
    return config.data.height, config.data.width, 1


def process_eval_batches(
    source: ClipSource, batch_size: int, num_sequences: int
) -> BatchIterator:
    """This process's part of the batches of an evaluation."""
    return eval_batches(
        source, batch_size, num_sequences, jax.process_index(), jax.process_count()
    )


def eval_batch_size(config: ConfigDict, mesh: Mesh) -> int:
    """The evaluation batch, rounded up to a multiple of the devices.

    Evaluation pads its batches anyway, so the figures do not depend on it.
    """
    return -(-config.eval.batch_size // mesh.size) * mesh.size


def data_facts(sources: Sources, num_sequences: int) -> dict[str, Any]:
    """What an evaluation says of the data it was made on."""
    digits = {"digits": sources.digits_source} if sources.digits_source else {}
    return {
        "description": sources.description,
        **digits,
        "split": "test",
        "num_sequences": num_sequences,
    }
