"""Builds objective, data, optimizer and state of an experiment."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from convlstm_jax.cli.experiment import Experiment
from convlstm_jax.data.pipeline import BatchIterator, eval_batches, train_batches
from convlstm_jax.data.sources import ClipSource, Sources
from convlstm_jax.errors import UserError
from convlstm_jax.objectives import DataFacts, Objective
from convlstm_jax.objectives.base import Variables
from convlstm_jax.training.checkpoint_reading import restore_best
from convlstm_jax.training.loop import host_memory_bytes
from convlstm_jax.training.sharding import data_mesh, replicated
from convlstm_jax.training.state import TrainState, init_state


def build_objective(
    experiment: Experiment, sources: Sources | None = None
) -> Objective:
    """The objective with its network; training needs the data's counts of classes."""
    facts = {
        field.name: getattr(section, field.name)
        for field in dataclasses.fields(DataFacts)
        for section in (experiment.data, experiment.eval)
        if hasattr(section, field.name)
    }
    if sources is not None and sources.class_counts:
        facts["class_counts"] = sources.class_counts
    task, model = experiment.task, experiment.model
    return task.build(model, experiment.training, DataFacts(**facts))


def build_sources(experiment: Experiment) -> Sources:
    """The training, validation and test clips of an experiment."""
    return experiment.data.sources(
        num_frames=experiment.task.clip_length, seed=experiment.general.seed
    )


def check_memory(experiment: Experiment) -> None:
    """Refuses batches that are larger than the memory, before any is made."""
    data, length = experiment.data, experiment.task.clip_length
    height, width, channels = data.clip_shape
    available = host_memory_bytes()
    for section in ("train", "eval"):
        batch_size = getattr(experiment, section).batch_size
        clips = (1 + data.prefetch_batches) * batch_size // jax.process_count()
        needed = 4 * clips * length * height * width * channels
        if needed > available:
            raise UserError(
                f"config.{section}.batch_size is {batch_size} and config.data."
                f"prefetch_batches {data.prefetch_batches}: with {length} frames of "
                f"{height}×{width} pixels in a clip this takes {needed / 2**30:,.0f} "
                f"GiB, and must take less than the {available / 2**30:,.0f} GiB of "
                "this machine"
            )


def process_train_batches(
    experiment: Experiment, sources: Sources, start_step: int
) -> BatchIterator:
    """This process's part of the training batches, starting at a step."""
    return train_batches(
        sources.train,
        experiment.train.batch_size,
        experiment.general.seed,
        start_step,
        jax.process_index(),
        jax.process_count(),
        experiment.data.num_workers,
        experiment.data.prefetch_batches,
        augment=experiment.data.augment,
    )


def process_eval_batches(
    source: ClipSource, experiment: Experiment, num_sequences: int, mesh: Mesh
) -> tuple[BatchIterator, int]:
    """This process's part of the batches of an evaluation, and their number."""
    # A multiple of the devices; evaluation pads batches anyway.
    batch_size = -(-experiment.eval.batch_size // mesh.size) * mesh.size
    batches = eval_batches(
        source, batch_size, num_sequences, jax.process_index(), jax.process_count()
    )
    return batches, -(-num_sequences // batch_size)


def build_training(
    experiment: Experiment, objective: Objective, mesh: Mesh
) -> tuple[optax.GradientTransformationExtraArgs, TrainState]:
    """The optimizer, and the state of step 0 on every device."""
    train = experiment.train
    optimizer = experiment.optimizer.build(train.num_steps, train.eval_every_steps)
    return optimizer, init_state(
        objective,
        optimizer,
        seed=experiment.general.seed,
        frame_shape=experiment.data.frame_shape,
        with_ema=experiment.optimizer.ema_decay > 0,
        mesh=mesh,
    )


def load_variables(
    objective: Objective,
    experiment: Experiment,
    workdir: Path,
    mesh: Mesh | None = None,
) -> tuple[int, Variables]:
    """The step and the variables of the best checkpoint.

    The parameters are their moving average if the run keeps one. Without a mesh, they
    are on one device.
    """
    sharding = replicated(mesh or data_mesh(jax.local_devices()[:1]))
    template: dict[str, Any] = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        initial_shapes(objective, experiment),
    )
    params = template.pop("params")
    name = "ema_params" if experiment.optimizer.ema_decay else "params"
    step, restored = restore_best(
        workdir / "checkpoints", {name: params, "model_state": template}
    )
    return step, {"params": restored[name], **restored["model_state"]}


def initial_shapes(objective: Objective, experiment: Experiment) -> Variables:
    """The shapes of an objective's variables, without computing any."""
    shape = experiment.data.frame_shape
    shapes: Variables = jax.eval_shape(lambda: objective.init(jax.random.key(0), shape))
    return shapes
