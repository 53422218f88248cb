"""`--mode=train`: trains or resumes, then evaluates and draws."""

import logging
from functools import partial
from pathlib import Path

import jax
from ml_collections import ConfigDict

from convlstm_jax.cli.build import (
    build_optimizer,
    build_sources,
    build_task,
    eval_batch_size,
    frame_shape,
    process_eval_batches,
    process_train_batches,
)
from convlstm_jax.cli.log import logging_to
from convlstm_jax.data.sources import Sources
from convlstm_jax.data.video_frames import is_blank
from convlstm_jax.errors import UserError
from convlstm_jax.tasks.task import VideoTask
from convlstm_jax.training.evaluation import evaluate
from convlstm_jax.training.loop import FitResult, FitSettings, fit
from convlstm_jax.training.sharding import check_batch_size, data_mesh
from convlstm_jax.training.state import init_state
from convlstm_jax.training.steps import make_eval_step, make_train_step
from convlstm_jax.training.writers import Writers

_log = logging.getLogger(__name__)


class DivergedError(UserError):
    """The loss or a gradient became infinite or NaN; the last good step is kept."""


def run(config: ConfigDict, *, workdir: Path) -> None:
    """Trains until the config's last step or an interruption.

    Args:
        config: the experiment.
        workdir: folder of the run; where it holds a checkpoint, training resumes.

    Raises:
        UserError: the data cannot be had, the devices cannot share the batch, or the
            checkpoint is of another model.
        DivergedError: the loss or a gradient was not finite.
    """
    mesh = data_mesh()
    check_batch_size("config.train.batch_size", config.train.batch_size, mesh)
    with logging_to(workdir):
        sources = build_sources(config)
        _log.info("data: %s", sources.description)
        _tell_blank_clips(config, sources)
        result = _fit(config, sources, workdir)
        if result.outcome == "diverged":
            raise DivergedError(
                f"the loss or its gradient is not finite at step {result.step + 1}: "
                f"the weights of step {result.step}, the last good one, are kept in "
                f"{workdir / 'checkpoints'}; a smaller config.optimizer.learning_rate "
                "or a config.optimizer.clip_norm may help"
            )
        if result.outcome == "interrupted":
            _log.info(
                "stopped at step %d of %d and saved; the same command with "
                "--workdir=%s resumes",
                result.step, config.train.num_steps, workdir,
            )  # fmt: skip
            return
        _log.info("training %s at step %d", result.outcome, result.step)
        from convlstm_jax.cli.evaluate import evaluate_run

        evaluate_run(config, sources, workdir=workdir)


def _tell_blank_clips(config: ConfigDict, sources: Sources) -> None:
    """Warns where data.value_range seems to leave nothing to be seen in any clip."""
    if not config.data.value_range:
        return
    some = {0, len(sources.train) // 2, len(sources.train) - 1}
    if all(is_blank(frame) for i in some for frame in sources.train[i]["frames"]):
        _log.warning(
            "nothing is to be seen in the first, the middle and the last training "
            "clip: each pixel of a frame has the same value; is config.data.value_range"
            ", %s, that of the arrays?",
            config.data.value_range,
        )


def _fit(config: ConfigDict, sources: Sources, workdir: Path) -> FitResult:
    mesh = data_mesh()
    task = build_task(config, sources)
    optimizer = build_optimizer(config)
    ema_decay = config.optimizer.ema_decay
    eval_step = make_eval_step(task, mesh, with_baselines=False)
    num_validation = min(config.train.num_validation_sequences, len(sources.validation))
    num_pictures = min(config.train.num_pictures, len(sources.validation))

    # What evaluates and draws is imported when it is due, as main.py imports the modes:
    # the first step need not wait for Matplotlib.

    def validate(variables) -> dict[str, float]:
        from convlstm_jax.cli.evaluate import numbers

        batches = process_eval_batches(
            sources.validation, eval_batch_size(config, mesh), num_validation
        )
        figures = evaluate(eval_step, task.summarize, variables, batches, mesh)["model"]
        return {k: v for k, v in numbers(figures).items() if v is not None}

    def draw(step: int, variables, writers: Writers) -> None:
        if not num_pictures or not isinstance(task, VideoTask):
            return
        from convlstm_jax.cli.video_pictures import draw_validation, example_outputs

        source = sources.validation
        outputs = example_outputs(task, variables, source, num_pictures, mesh)
        if jax.process_index() == 0:
            draw_validation(task, outputs, step, writers, workdir / "pictures")

    return fit(
        init_state(
            task,
            optimizer,
            seed=config.seed,
            frame_shape=frame_shape(config),
            with_ema=ema_decay > 0,
            mesh=mesh,
        ),
        make_train_step(task, optimizer, mesh, seed=config.seed, ema_decay=ema_decay),
        partial(process_train_batches, config, sources),
        validate,
        draw,
        FitSettings(
            num_steps=config.train.num_steps,
            batch_size=config.train.batch_size,
            eval_every_steps=config.train.eval_every_steps,
            checkpoint_every_steps=config.train.checkpoint_every_steps,
            log_every_steps=config.train.log_every_steps,
            early_stopping_patience=config.train.early_stopping_patience,
        ),
        workdir=workdir,
        mesh=mesh,
    )
