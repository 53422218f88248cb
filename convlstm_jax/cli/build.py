"""From a config to the objects that do the work: the only place that knows both."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from convlstm_jax.data.pipeline import BatchIterator, eval_batches
from convlstm_jax.data.sources import ClipSource, Sources, make_sources
from convlstm_jax.models import MODELS
from convlstm_jax.tasks.forecast import ForecastTask

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
}


def build_task(config: ConfigDict) -> ForecastTask:
    """The model of a config and what it is trained to do."""
    fields = {name: config.model[name] for name in _MODEL_FIELDS[config.model.name]}
    model = MODELS[config.model.name](**fields, dtype=jnp.dtype(config.model.dtype))
    return ForecastTask(
        model,
        num_input_frames=config.task.num_input_frames,
        num_output_frames=config.task.num_output_frames,
        loss=config.task.loss,
    )


def build_sources(config: ConfigDict) -> Sources:
    """The training, validation and test clips of a config.

    Raises:
        UserError: the data cannot be had.
    """
    pipeline_fields = ("name", "num_workers", "prefetch_batches")
    fields = {k: v for k, v in config.data.items() if k not in pipeline_fields}
    return make_sources(
        config.data.name,
        num_frames=config.task.num_input_frames + config.task.num_output_frames,
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
    return {
        "description": sources.description,
        "digits": sources.digits_source,
        "split": "test",
        "num_sequences": num_sequences,
    }
