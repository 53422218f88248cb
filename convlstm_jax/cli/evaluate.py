"""`--mode=evaluate`: the test set's figures beside the baselines, and pictures."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm

from convlstm_jax.cli.build import (
    build_sources,
    build_task,
    data_facts,
    eval_batch_size,
    frame_shape,
    process_eval_batches,
)
from convlstm_jax.cli.log import logging_to
from convlstm_jax.data.sources import ClipSource, Sources
from convlstm_jax.errors import UserError
from convlstm_jax.metrics.conventions import CONVENTIONS
from convlstm_jax.tasks.forecast import ForecastTask
from convlstm_jax.train.checkpoint import restore_params
from convlstm_jax.train.evaluation import evaluate
from convlstm_jax.train.sharding import data_mesh, replicated
from convlstm_jax.train.steps import make_eval_step
from convlstm_jax.viz.atomic_file import atomic_file
from convlstm_jax.viz.comparison_gif import comparison_gif, comparison_grid_gif
from convlstm_jax.viz.curves import learning_curves, metric_curves
from convlstm_jax.viz.film_strip import film_strip
from convlstm_jax.viz.metric_names import format_value, in_order
from convlstm_jax.viz.report import write_report

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
    task = build_task(config)
    mesh = data_mesh()
    step, params = load_params(task, config, workdir, mesh)
    num_sequences = min(config.eval.num_sequences, len(sources.test))
    _log.info(
        "evaluating the weights of step %d on %d test sequences", step, num_sequences
    )
    batch_size = eval_batch_size(config, mesh)
    batches = process_eval_batches(sources.test, batch_size, num_sequences)
    results = evaluate(
        make_eval_step(task, mesh, with_baselines=True),
        params,
        tqdm(
            batches,
            total=-(-num_sequences // batch_size),
            desc="evaluating",
            unit="batch",
            disable=None,
            dynamic_ncols=True,
        ),
        mesh,
    )
    results["step"] = step
    results["data"] = data_facts(sources, num_sequences)
    results["conventions"] = CONVENTIONS
    pictures_count = min(config.eval.num_pictures, len(sources.test))
    # Drawn from the same clips on every process, so that all take part in the forecast.
    clips = example_clips(task, params, sources.test, pictures_count, mesh)
    if jax.process_index() != 0:
        return
    _write_results(workdir, results)
    for line in table(results):
        _log.info(line)
    pictures = _draw(workdir, results, clips)
    title = f"{workdir.name}: evaluation at step {step}"
    write_report(
        workdir / "report.html",
        title=title,
        config=config.to_dict(),
        data_description=sources.description,
        results={k: v for k, v in results.items() if k not in ("data", "conventions")},
        pictures=pictures,
    )
    _log.info("report: %s", workdir / "report.html")


def load_params(
    task: ForecastTask, config: ConfigDict, workdir: Path, mesh: Mesh
) -> tuple[int, Any]:
    """The best checkpoint's parameters (their average if one was kept), and its step.

    Raises:
        UserError: no intact checkpoint, or one of another model.
    """
    shapes = jax.eval_shape(lambda: task.init(jax.random.key(0), frame_shape(config)))
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=replicated(mesh)
        ),
        shapes,
    )
    return restore_params(
        workdir / "checkpoints", template, item=("ema_params", "params")
    )


def example_clips(
    task: ForecastTask, params: Any, source: ClipSource, count: int, mesh: Mesh
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, truth and prediction of the first clips, each `[N, T, H, W, C]`."""
    if not count:
        nothing = np.zeros((0, 0, *source[0]["frames"].shape[1:]), np.float32)
        return nothing, nothing, nothing
    frames = np.stack([source[index]["frames"] for index in range(count)])
    inputs, truth = jax.device_get(task.split(jnp.asarray(frames)))

    def predict(params, inputs):
        return task.predict(params, inputs, task.num_output_frames)

    prediction = jax.jit(predict, out_shardings=replicated(mesh))(params, inputs)
    return inputs, truth, jax.device_get(prediction)


def table(results: dict[str, Any]) -> list[str]:
    """The figures as lines of text, one a metric, the contenders side by side."""
    contenders = list(results["per_lead_time"])
    lines = [f"{'':34}" + "".join(f"{name:>12}" for name in contenders)]
    # This one is cross_entropy_nats under its longer name.
    metrics = set(results["model"]) - {"cross_entropy_nats_per_frame"}
    for metric in in_order(metrics):
        values = (format_value(results[name].get(metric)) for name in contenders)
        lines.append(f"{metric:34}" + "".join(f"{value:>12}" for value in values))
    return lines


def _write_results(workdir: Path, results: dict[str, Any]) -> None:
    with atomic_file(workdir / "evaluation.json") as partial:
        partial.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    with (
        atomic_file(workdir / "evaluation.csv") as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["contender", "metric", "lead_time", "value"])
        for contender, metrics in results["per_lead_time"].items():
            for metric, value in results[contender].items():
                writer.writerow([contender, metric, "all", repr(value)])
            for metric, values in metrics.items():
                for lead_time, value in enumerate(values, start=1):
                    writer.writerow([contender, metric, lead_time, repr(value)])


def _draw(
    workdir: Path,
    results: dict[str, Any],
    clips: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> list[tuple[str, Path]]:
    """Draws everything; returns (caption, file) in the order of the report."""
    folder = workdir / "pictures"
    inputs, truth, prediction = clips
    pictures = []

    def add(caption: str, name: str) -> Path:
        pictures.append((caption, folder / name))
        return folder / name

    if len(inputs):
        comparison_grid_gif(
            add("Test sequences: truth and prediction", "test.gif"),
            inputs, truth, prediction,
        )  # fmt: skip
    for index in range(len(inputs)):
        clip = inputs[index], truth[index], prediction[index]
        name = f"test_{index:02d}"
        film_strip(add(f"Test sequence {index}", f"{name}.png"), *clip)
        comparison_gif(folder / f"{name}.gif", *clip)
    metric_curves(
        add("Metrics by lead time", "lead_time.png"), results["per_lead_time"]
    )
    if (workdir / "metrics.csv").exists():
        curves = folder / "learning_curves.png"
        try:
            learning_curves(workdir / "metrics.csv", curves)
            pictures.append(("Learning curves", curves))
        except UserError as error:
            # The evaluation stands without them.
            _log.warning("no learning curves are drawn: %s", error)
    return pictures
