"""From a config to the objects that do the work: the only place that knows both."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from convlstm_jax.cli.used_fields import DATA_FIELDS, data_set_of
from convlstm_jax.data.augmentation import augment_frames, augment_rain
from convlstm_jax.data.composites import READER_FIELDS, CompositeReader
from convlstm_jax.data.data_sets import make_sources
from convlstm_jax.data.labelled_clips import class_names
from convlstm_jax.data.pipeline import BatchIterator, eval_batches, train_batches
from convlstm_jax.data.sources import ClipSource, Sources
from convlstm_jax.models import MODELS
from convlstm_jax.rain import RainScale
from convlstm_jax.tasks.autoencoder import AUTOENCODER_TASKS
from convlstm_jax.tasks.classification import ClassificationTask, balanced_weights
from convlstm_jax.tasks.forecast import ForecastTask
from convlstm_jax.tasks.nowcast import NowcastTask
from convlstm_jax.tasks.task import VideoTask
from convlstm_jax.training.optimizer import make_optimizer


def build_task(
    config: ConfigDict, sources: Sources | None = None
) -> VideoTask | ClassificationTask:
    """The model of a config and what it is trained to do.

    Args:
        config: the experiment.
        sources: its data, for what training takes from them: the classes' weights.
    """
    name = config.model.name
    model_class = MODELS[name]
    model_config = model_class(**{f: config.model[f] for f in model_class.model_fields})
    lengths = {
        "num_input_frames": config.task.num_input_frames,
        "num_output_frames": config.task.num_output_frames,
        "loss": config.task.loss,
    }
    if name == "fc_lstm_autoencoder":
        task, decoders = AUTOENCODER_TASKS[config.task.name]
        return task(model_config.build(decoders=decoders), **lengths)
    if name == "clip_classifier":
        classes = class_names(config.data.event_labels)
        counts = None if sources is None else sources.class_counts
        weights = None
        if counts is not None and config.task.class_weights == "balanced":
            weights = balanced_weights(counts)
        model = model_config.build(num_classes=len(classes))
        return ClassificationTask(
            model, config.task.num_input_frames, classes, weights, counts
        )
    extra = {"first_logit": 0.0} if config.task.from_last_frame else {}  # No change.
    model = model_config.build(**extra)
    if config.task.name == "nowcast":
        return NowcastTask(
            model,
            **lengths,
            scale=rain_scale(config),
            from_last_frame=config.task.from_last_frame,
            rain_weights=tuple(
                zip(
                    config.task.rain_weight_rates,
                    config.task.rain_weights,
                    strict=True,
                )
            ),
            thresholds_mm_per_h=config.eval.rain_thresholds,
            window_sizes=config.eval.fss_window_sizes,
        )
    training = None
    if model_class.training_config is not None:
        fields = model_class.training_config.model_fields
        training = model_class.training_config(**{f: config.task[f] for f in fields})
    return ForecastTask(model, **lengths, training=training)


def rain_scale(config: ConfigDict) -> RainScale:
    """What the pixels of a config's radar frames mean."""
    data = config.data
    return RainScale(data.dbz_min, data.dbz_max, data.zr_a, data.zr_b)


def composite_reader(config: ConfigDict) -> CompositeReader:
    """What reads the radar composites that a config tells of.

    Raises:
        UserError: what their format needs is not installed.
    """
    how_read = {name: config.data[name] for name in READER_FIELDS}
    return CompositeReader(rain_scale(config), **how_read)


def build_optimizer(config: ConfigDict) -> optax.GradientTransformationExtraArgs:
    """The optimizer of a config with its schedule."""
    fields = config.optimizer.to_dict()
    fields.pop("ema_decay")  # The training step keeps the average.
    return make_optimizer(
        **fields,
        num_steps=config.train.num_steps,
        plateau_window_steps=config.train.eval_every_steps,
    )


def build_sources(config: ConfigDict) -> Sources:
    """The training, validation and test clips of a config.

    Raises:
        UserError: the data cannot be had.
    """
    data_set = data_set_of(config.data.name, config.data.path, config.task.name)
    fields = {name: config.data[name] for name in DATA_FIELDS[data_set]}
    if config.task.name == "nowcast":
        fields["scale"] = rain_scale(config)
    num_frames = config.task.num_input_frames
    if config.task.name not in ("reconstruct", "classify"):  # Which want no more.
        num_frames += config.task.num_output_frames
    return make_sources(data_set, num_frames=num_frames, seed=config.seed, **fields)


def frame_shape(config: ConfigDict) -> tuple[int, int, int]:
    """(H, W, C) of the config's frames."""
    return config.data.height, config.data.width, config.data.channels


def process_train_batches(
    config: ConfigDict, sources: Sources, start_step: int
) -> BatchIterator:
    """This process's part of the training batches, from a step on."""
    return train_batches(
        sources.train,
        config.train.batch_size,
        config.seed,
        start_step,
        jax.process_index(),
        jax.process_count(),
        config.data.num_workers,
        config.data.prefetch_batches,
        augment=_augmentation(config),
    )


def _augmentation(config: ConfigDict) -> Callable[..., Any] | None:
    if config.task.name == "nowcast":
        return partial(
            augment_rain, symmetries=config.data.symmetries, zoom=config.data.zoom
        )
    strengths = {name: config.data[name] for name in ("flip", "crop", "brightness")}
    return partial(augment_frames, **strengths) if any(strengths.values()) else None


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
    facts = {"description": sources.description}
    if sources.digits_source:
        facts["digits"] = sources.digits_source
    return {**facts, "split": "test", "num_sequences": num_sequences}
