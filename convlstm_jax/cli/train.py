"""`--mode=train`: trains or resumes, then evaluates and draws."""

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from convlstm_jax.cli import pretrained
from convlstm_jax.cli.build import (
    build_objective,
    build_sources,
    build_training,
    check_memory,
    process_eval_batches,
    process_train_batches,
)
from convlstm_jax.cli.evaluate import evaluate_run
from convlstm_jax.cli.experiment import Experiment, leaves
from convlstm_jax.cli.process import logging_to
from convlstm_jax.cli.workdir import holds_checkpoints
from convlstm_jax.data.sources import Sources
from convlstm_jax.errors import UserError
from convlstm_jax.evaluation.evaluate import evaluate
from convlstm_jax.training.loop import FitResult, fit
from convlstm_jax.training.sharding import replicated, training_mesh
from convlstm_jax.training.state import TrainState
from convlstm_jax.training.steps import make_eval_step, make_train_step
from convlstm_jax.training.trackers import Trackers
from convlstm_jax.training.writers import Writers

_log = logging.getLogger(__name__)


def run(experiment: Experiment, *, workdir: Path, init_from: str | None = None) -> None:
    """Trains until the last step or an interruption, then evaluates.

    Where the run's folder holds a checkpoint, training resumes. Otherwise it begins
    with the weights of `init_from`, see `pretrained.load`, if given.
    """
    train, batch_size = experiment.train, experiment.train.batch_size
    mesh = training_mesh(batch_size)
    check_memory(experiment)
    start = None
    if init_from is not None and not holds_checkpoints(workdir):
        start = pretrained.load(init_from, named="--init_from={}")
    config = leaves(experiment.config)
    with logging_to(workdir), Trackers(train.trackers, workdir, config) as trackers:
        if mesh.size < jax.device_count():
            _log.warning(
                "each batch is shared by %d of %d devices: to use all of them, make "
                "config.train.batch_size, which is %d, a multiple of their number",
                mesh.size, jax.device_count(), batch_size,
            )  # fmt: skip
        if experiment.training is not None:
            for doubt in experiment.training.doubts(train.num_steps):
                _log.warning("config.task.%s", doubt)
        sources = build_sources(experiment)
        _log.info("data: %s", sources.description)
        _warn_of_blank_clips(sources)
        result = _fit(experiment, sources, workdir, mesh, start, trackers)
        if result.outcome == "diverged":
            raise UserError(
                f"the loss or its gradient is not finite at step {result.step + 1}: "
                f"the weights of step {result.step}, the last good one, are kept in "
                f"{workdir / 'checkpoints'}; a smaller config.optimizer.learning_rate "
                "or a config.optimizer.clip_norm may help"
            )
        if result.outcome == "interrupted":
            _log.info(
                "stopped at step %d of %d and saved; the same command with "
                "--workdir=%s resumes",
                result.step, train.num_steps, workdir,
            )  # fmt: skip
            return
        _log.info("training %s at step %d", result.outcome, result.step)
        found = evaluate_run(experiment, sources, workdir=workdir)
        for name, summary in found.contenders.items():
            total = {m: v for m, v in summary.total.items() if v is not None}
            trackers.write(result.step, f"test/{name}", total)


def with_weights(
    state: TrainState,
    optimizer: optax.GradientTransformation,
    start: pretrained.Loaded,
    mesh: Mesh,
) -> TrainState:
    """The state of step 0 with those arrays of another run that fit."""
    folder, _, step, variables = start
    own = {"params": state.params, **state.model_state}
    found, given = flatten_dict(own, sep="/"), flatten_dict(variables, sep="/")
    shapes = {name: array.shape for name, array in given.items()}
    fit = {name for name, array in found.items() if shapes.get(name) == array.shape}
    if not fit:
        raise UserError(
            f"--init_from={folder} holds no array of this network: it must be a run "
            "of a network with the same layers"
        )
    _log.info(
        "%d of %d arrays are those of step %d of %s", len(fit), len(found), step, folder
    )
    for name in sorted(found.keys() - fit):
        there = f"shape {shapes[name]}" if name in shapes else "no such array"
        _log.warning(
            "%s of shape %s begins anew: %s there", name, found[name].shape, there
        )
    taken = found | {name: given[name] for name in fit}
    taken = jax.device_put(unflatten_dict(taken, sep="/"), replicated(mesh))
    params = taken.pop("params")
    averaged = None if state.ema_params is None else jax.tree.map(jnp.copy, params)
    return state.replace(  # type: ignore[attr-defined]
        params=params,
        model_state=taken,
        opt_state=optimizer.init(params),
        ema_params=averaged,
    )


def _warn_of_blank_clips(sources: Sources) -> None:
    """Warns where data that are read with wrong settings may be all black or white."""
    some = {0, len(sources.train) // 2, len(sources.train) - 1}
    frames = (frame for index in some for frame in sources.train[index]["frames"])
    if all(frame.min() == frame.max() for frame in frames):
        _log.warning(
            "nothing is visible in the first, the middle and the last training clip: "
            "all pixels of a frame are equal; is config.data.value_range that of the "
            "files, if they hold numbers?"
        )


def _fit(
    experiment: Experiment,
    sources: Sources,
    workdir: Path,
    mesh: Mesh,
    start: pretrained.Loaded | None,
    trackers: Trackers,
) -> FitResult:
    objective = build_objective(experiment, sources)
    train = experiment.train
    optimizer, state = build_training(experiment, objective, mesh)
    if start is not None:
        state = with_weights(state, optimizer, start, mesh)
    seed, ema_decay = experiment.general.seed, experiment.optimizer.ema_decay
    eval_step = make_eval_step(objective, mesh, with_baselines=False)
    num_validation = min(train.num_validation_sequences, len(sources.validation))
    drawn = objective.drawn_clips(sources.validation, train.num_pictures)

    def validate(variables: Any) -> dict[str, float]:
        batches, _ = process_eval_batches(
            sources.validation, experiment, num_validation, mesh
        )
        result = evaluate(eval_step, objective.summarize, variables, batches, mesh)
        metrics = result.model.total
        return {name: value for name, value in metrics.items() if value is not None}

    def draw(step: int, variables: Any, writers: Writers) -> None:
        if drawn:
            # All processes take part in the forecast; the first one draws.
            examples = objective.examples(variables, sources.validation, drawn, mesh)
            if jax.process_index() == 0:
                folder = workdir / "pictures"
                objective.draw_validation(examples, step, writers.write_gif, folder)

    return fit(
        state,
        make_train_step(objective, optimizer, mesh, seed=seed, ema_decay=ema_decay),
        lambda start_step: process_train_batches(experiment, sources, start_step),
        validate,
        draw,
        train,
        workdir=workdir,
        mesh=mesh,
        others=[trackers],
    )
