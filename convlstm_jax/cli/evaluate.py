"""`--mode=evaluate`: the test set's figures beside the baselines, and pictures."""

import logging
from functools import partial
from pathlib import Path

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from convlstm_jax.cli.build import (
    build_sources,
    build_task,
    data_facts,
    eval_batch_size,
    process_eval_batches,
)
from convlstm_jax.cli.class_pictures import (
    classified_clips,
    draw_classification,
    spread,
)
from convlstm_jax.cli.clip_forecasts import forecast_clips
from convlstm_jax.cli.log import logging_to
from convlstm_jax.cli.played_clips import forecast_player, nowcast_player
from convlstm_jax.cli.radar_pictures import (
    draw_nowcasts,
    example_nowcasts,
    with_optical_flow,
)
from convlstm_jax.cli.trained_weights import load_variables
from convlstm_jax.cli.video_pictures import draw_evaluation, example_outputs
from convlstm_jax.data.sources import Sources
from convlstm_jax.errors import UserError
from convlstm_jax.evaluation.evaluate import evaluate
from convlstm_jax.evaluation.report import write_report
from convlstm_jax.evaluation.result import clip_namer
from convlstm_jax.evaluation.vmaf import add_vmaf
from convlstm_jax.tasks.nowcast import NowcastTask
from convlstm_jax.tasks.task import VideoTask
from convlstm_jax.training.sharding import data_mesh
from convlstm_jax.training.steps import make_eval_step
from convlstm_jax.viz.curves import learning_curves
from convlstm_jax.viz.player import PlayerClip

_log = logging.getLogger(__name__)


def run(config: ConfigDict, *, workdir: Path) -> None:
    """Evaluates the best checkpoint of a run on the test set.

    Args:
        config: the run's config, perhaps with overrides.
        workdir: the run's folder; `evaluation.json`, `evaluation.csv`, `report.html`
            and `pictures/` are written there.

    Raises:
        UserError: no intact checkpoint, or the data cannot be had.
    """
    with logging_to(workdir):
        sources = build_sources(config)
        _log.info("data: %s", sources.description)
        evaluate_run(config, sources, workdir=workdir)


def evaluate_run(config: ConfigDict, sources: Sources, *, workdir: Path) -> None:
    """As `run`, with the sources at hand; training ends with it."""
    task = build_task(config, sources)
    mesh = data_mesh()
    step, variables = load_variables(task, config, workdir, mesh)
    num_sequences = min(config.eval.num_sequences, len(sources.test))
    _log.info(
        "evaluating the weights of step %d on %d test sequences", step, num_sequences
    )
    test = sources.test
    if isinstance(task, NowcastTask):
        test = with_optical_flow(task, test)
    batch_size = eval_batch_size(config, mesh)
    batches = process_eval_batches(test, batch_size, num_sequences)
    eval_step = make_eval_step(
        task, mesh, with_baselines=True, num_conditions=len(sources.conditions)
    )
    progress = tqdm(
        batches,
        total=-(-num_sequences // batch_size),
        desc="evaluating",
        unit="batch",
        disable=None,
        dynamic_ncols=True,
    )
    films = getattr(sources.test, "clip_names", None)
    name_clip = clip_namer(test, films, sources.conditions)
    result = evaluate(
        eval_step, task.summarize, variables, progress, mesh, sources.conditions,
        name_clip,
    )  # fmt: skip
    result.step = step
    result.data = data_facts(sources, num_sequences)
    folder = workdir / "pictures"
    count = min(config.eval.num_pictures, len(test))
    worst = [clip.name.index for clip in result.worst_clips]
    drawn: list[int] = list(range(count))
    if not isinstance(task, VideoTask):
        drawn = spread(len(test), count)
    result.drawn_clips = [name_clip(index) for index in drawn]
    clips: list[PlayerClip] = []
    # Drawn from the same clips on every process, so that all take part in the forecast.
    if isinstance(task, NowcastTask):
        chosen_clips = [test[index] for index in [*drawn, *worst]]
        nowcasts = example_nowcasts(
            task, variables, chosen_clips, len(chosen_clips), mesh
        )
        minutes = config.data.time_step_minutes * config.data.frame_stride
        clips = nowcast_player(nowcasts, result, minutes)
        draw = partial(draw_nowcasts, task, nowcasts[:count], result, folder, minutes)
    elif isinstance(task, VideoTask):
        outputs = example_outputs(task, variables, sources.test, count, mesh)
        forecasts = forecast_clips(task, variables, sources.test, worst, mesh)
        clips = forecast_player(task, outputs, forecasts, result)
        add_vmaf(
            result,
            lambda indices: forecast_clips(
                task, variables, sources.test, indices, mesh
            ),
            frame_size=(sources.height, sources.width),
            conditions=sources.conditions,
            num_sequences=num_sequences,
            num_vmaf_sequences=config.eval.num_vmaf_sequences,
        )
        draw = partial(draw_evaluation, task, outputs, result, folder)
    else:
        classified = classified_clips(task, variables, sources.test, count, mesh)
        draw = partial(draw_classification, task, classified, result, folder)
    if jax.process_index() != 0:
        return
    result.write(workdir)
    for line in result.table():
        _log.info(line)
    write_report(
        workdir / "report.html",
        title=f"{workdir.name}: evaluation at step {step}",
        config=config.to_dict(),
        data_description=sources.description,
        result=result,
        pictures=[*draw(), *_draw_learning_curves(workdir)],
        clips=clips,
    )
    _log.info("report: %s", workdir / "report.html")


def _draw_learning_curves(workdir: Path) -> list[tuple[str, Path]]:
    """The curves of `metrics.csv`, if there are any."""
    curves = workdir / "pictures" / "learning_curves.png"
    if not (workdir / "metrics.csv").exists():
        return []
    try:
        learning_curves(workdir / "metrics.csv", curves)
    except UserError as error:
        # The evaluation stands without them.
        _log.warning("no learning curves are drawn: %s", error)
        return []
    return [("Learning curves", curves)]
