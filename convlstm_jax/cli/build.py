"""Builds objective, data, optimizer and state of an experiment."""

from pathlib import Path
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from convlstm_jax.cli.experiment import Experiment
from convlstm_jax.data.pipeline import BatchIterator, eval_batches, train_batches
from convlstm_jax.data.sources import ClipSource, Sources
from convlstm_jax.objectives import DataFacts, Objective
from convlstm_jax.objectives.base import Variables
from convlstm_jax.training.checkpoint_reading import restore_best
from convlstm_jax.training.sharding import replicated
from convlstm_jax.training.state import TrainState, init_state


def build_objective(
    experiment: Experiment, sources: Sources | None = None
) -> Objective:
    """The objective of an experiment with its network.

    Args:
        experiment: The experiment.
        sources: Its data, from which training takes the counts of the classes.
    """
    data, evaluation = experiment.data, experiment.eval
    facts = {
        name: getattr(data, name)
        for name in ("classes", "rain_scale", "minutes_per_frame")
        if hasattr(data, name)
    }
    facts |= {
        name: getattr(evaluation, name)
        for name in ("rain_thresholds", "fss_window_sizes")
        if hasattr(evaluation, name)
    }
    if sources is not None and sources.class_counts:
        facts["class_counts"] = sources.class_counts
    return experiment.task.build(
        experiment.model, experiment.training, DataFacts(**facts)
    )


def build_sources(experiment: Experiment) -> Sources:
    """The training, validation and test clips of an experiment.

    Raises:
        UserError: the data cannot be read.
    """
    return experiment.data.sources(
        num_frames=experiment.task.clip_length, seed=experiment.general.seed
    )


def process_train_batches(
    experiment: Experiment, sources: Sources, start_step: int
) -> BatchIterator:
    """This process's part of the training batches, starting at a step."""
    data = experiment.data
    return train_batches(
        sources.train,
        experiment.train.batch_size,
        experiment.general.seed,
        start_step,
        jax.process_index(),
        jax.process_count(),
        data.num_workers,
        data.prefetch_batches,
        augment=data.augment,
    )


def process_eval_batches(
    source: ClipSource, experiment: Experiment, num_sequences: int, mesh: Mesh
) -> tuple[BatchIterator, int]:
    """This process's part of the batches of an evaluation, and their number.

    The batch is rounded up to a multiple of the devices; evaluation pads batches
    anyway, so the metrics do not depend on it.
    """
    batch_size = -(-experiment.eval.batch_size // mesh.size) * mesh.size
    batches = eval_batches(
        source, batch_size, num_sequences, jax.process_index(), jax.process_count()
    )
    return batches, -(-num_sequences // batch_size)


def build_training(
    experiment: Experiment, objective: Objective, mesh: Mesh
) -> tuple[optax.GradientTransformationExtraArgs, TrainState]:
    """The optimizer, and the state of step 0 on every device."""
    train, optimizer_config = experiment.train, experiment.optimizer
    optimizer = optimizer_config.build(train.num_steps, train.eval_every_steps)
    state = init_state(
        objective,
        optimizer,
        seed=experiment.general.seed,
        frame_shape=experiment.data.frame_shape,
        with_ema=optimizer_config.ema_decay > 0,
        mesh=mesh,
    )
    return optimizer, state


def load_variables(
    objective: Objective, experiment: Experiment, workdir: Path, mesh: Mesh
) -> tuple[int, Variables]:
    """The step and the variables of the best checkpoint, without the optimizer's.

    The parameters are their moving average if the run keeps one.

    Raises:
        UserError: there is no intact checkpoint, or it belongs to another model.
    """
    template: dict[str, Any] = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=replicated(mesh)
        ),
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
