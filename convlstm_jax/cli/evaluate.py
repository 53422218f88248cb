"""`--mode=evaluate`: the test set's figures beside the baselines, and pictures."""

import csv
import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.cli.build import (
    build_sources,
    build_task,
    data_facts,
    eval_batch_size,
    process_eval_batches,
)
from convlstm_jax.cli.class_pictures import classified_clips, draw_classification
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
from convlstm_jax.cli.vmaf_scores import add_vmaf
from convlstm_jax.data.sources import Sources
from convlstm_jax.errors import UserError
from convlstm_jax.metrics.conventions import CONVENTIONS
from convlstm_jax.tasks.nowcast import NowcastTask
from convlstm_jax.tasks.task import VideoTask
from convlstm_jax.training.evaluation import evaluate
from convlstm_jax.training.sharding import data_mesh
from convlstm_jax.training.steps import make_eval_step
from convlstm_jax.viz.curves import learning_curves
from convlstm_jax.viz.metric_names import format_value, in_order
from convlstm_jax.viz.report import write_report
from convlstm_jax.viz.report_player import PlayerClip

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
    results = evaluate(
        eval_step, task.summarize, variables, progress, mesh, sources.conditions
    )
    results["step"] = step
    results["data"] = data_facts(sources, num_sequences)
    results["conventions"] = CONVENTIONS
    folder = workdir / "pictures"
    count = min(config.eval.num_pictures, len(sources.test))
    worst = [clip["index"] for clip in results.get("worst_clips", [])]
    clips: list[PlayerClip] = []
    # Drawn from the same clips on every process, so that all take part in the forecast.
    if isinstance(task, NowcastTask):
        chosen = [*range(count), *worst]
        chosen_clips = [test[index] for index in chosen]
        nowcasts = example_nowcasts(task, variables, chosen_clips, len(chosen), mesh)
        minutes = config.data.time_step_minutes * config.data.frame_stride
        clips = nowcast_player(nowcasts, chosen, count, results, minutes)
        drawn = nowcasts[:count]
        draw = partial(draw_nowcasts, task, drawn, results, folder, minutes)
    elif isinstance(task, VideoTask):
        outputs = example_outputs(task, variables, sources.test, count, mesh)
        forecasts = forecast_clips(task, variables, sources.test, worst, mesh)
        clips = forecast_player(task, outputs, forecasts, results)
        add_vmaf(
            results, task, variables, sources, mesh, num_sequences=num_sequences,
            num_vmaf_sequences=config.eval.num_vmaf_sequences,
        )  # fmt: skip
        draw = partial(draw_evaluation, task, outputs, results, folder)
    else:
        classified = classified_clips(task, variables, sources.test, count, mesh)
        draw = partial(draw_classification, task, classified, results, folder)
    if jax.process_index() != 0:
        return
    _write_results(workdir, results)
    for line in table(results):
        _log.info(line)
    pictures = [*draw(), *_draw_learning_curves(workdir)]
    title = f"{workdir.name}: evaluation at step {step}"
    shown = {k: v for k, v in results.items() if k != "conventions"}
    shown["data"] = {k: v for k, v in results["data"].items() if k != "description"}
    write_report(
        workdir / "report.html",
        title=title,
        config=config.to_dict(),
        data_description=sources.description,
        results=shown,
        pictures=pictures,
        clips=clips,
    )
    _log.info("report: %s", workdir / "report.html")


def table(results: dict[str, Any]) -> list[str]:
    """The figures as lines of text, one a metric, the contenders side by side."""
    contenders = list(results["per_lead_time"])
    lines = [f"{'':34}" + "".join(f"{name:>16}" for name in contenders)]
    # This one is cross_entropy_nats under its longer name.
    metrics = numbers(results["model"]).keys() - {"cross_entropy_nats_per_frame"}
    for metric in in_order(metrics):
        values = (format_value(results[name].get(metric)) for name in contenders)
        lines.append(f"{metric:34}" + "".join(f"{value:>16}" for value in values))
    for condition, of_condition in results.get("per_condition", {}).items():
        values = (format_value(of_condition[name].get("mse")) for name in contenders)
        line = f"mse, {condition} ({of_condition['count']} clips)"
        lines.append(f"{line:34}" + "".join(f"{value:>16}" for value in values))
    for name, of_class in results["model"].get("per_class", {}).items():
        figures = ", ".join(
            f"{key} {format_value(value)}" for key, value in of_class.items()
        )
        lines.append(f"class {name}: {figures}")
    return lines


def numbers(values: dict[str, Any]) -> dict[str, float | None]:
    """The entries that are single numbers (None: there is no such number)."""
    return {
        name: value
        for name, value in values.items()
        if value is None or isinstance(value, (int, float))
    }


def _write_results(workdir: Path, results: dict[str, Any]) -> None:
    with atomic_file(workdir / "evaluation.json") as partial:
        partial.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    with (
        atomic_file(workdir / "evaluation.csv") as partial,
        partial.open(
            "w", newline="", encoding="utf-8", errors="backslashreplace"
        ) as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["contender", "metric", "lead_time", "condition", "value"])
        for contender, metrics in results["per_lead_time"].items():
            for metric, value in numbers(results[contender]).items():
                writer.writerow([contender, metric, "all", "all", _cell(value)])
            for metric, values in metrics.items():
                for lead_time, value in enumerate(values, start=1):
                    writer.writerow([contender, metric, lead_time, "all", _cell(value)])
            for condition, of_condition in results.get("per_condition", {}).items():
                for metric, value in numbers(of_condition[contender]).items():
                    writer.writerow([contender, metric, "all", condition, _cell(value)])


def _cell(value: float | None) -> str:
    """A figure in all its digits; nothing where there is none."""
    return "" if value is None else repr(value)


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
