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
from convlstm_jax.tasks.autoencoder import ReconstructTask
from convlstm_jax.tasks.task import Reconstructs, Task, Variables, split_batch
from convlstm_jax.train.checkpoint import restore_part
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

# Frames in a row of a film strip: all of them, in the roll-outs of every experiment.
_MOST_COLUMNS = 24

# Inputs, truth and prediction of some clips, each [N, T, H, W, C].
_Clips = tuple[np.ndarray, np.ndarray, np.ndarray]


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
    step, variables = load_variables(task, config, workdir, mesh)
    num_sequences = min(config.eval.num_sequences, len(sources.test))
    _log.info(
        "evaluating the weights of step %d on %d test sequences", step, num_sequences
    )
    batch_size = eval_batch_size(config, mesh)
    batches = process_eval_batches(sources.test, batch_size, num_sequences)
    results = evaluate(
        make_eval_step(task, mesh, with_baselines=True),
        variables,
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
    clips = example_clips(task, variables, sources.test, pictures_count, mesh)
    outputs = {"test": (clips, isinstance(task, ReconstructTask))}
    if isinstance(task, Reconstructs) and pictures_count:
        again = _reconstructed(task, variables, clips[0], mesh)
        outputs["reconstruction"] = again, True
    if jax.process_index() != 0:
        return
    _write_results(workdir, results)
    for line in table(results):
        _log.info(line)
    pictures = _draw(workdir, results, outputs)
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


def load_variables(
    task: Task, config: ConfigDict, workdir: Path, mesh: Mesh
) -> tuple[int, Variables]:
    """The best checkpoint's variables, without the optimizer's, and its step.

    The parameters are their moving average if the run keeps one.

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
    params = template.pop("params")
    name = "ema_params" if config.optimizer.ema_decay else "params"
    step, restored = restore_part(
        workdir / "checkpoints", {name: params, "model_state": template}
    )
    return step, {"params": restored[name], **restored["model_state"]}


def example_clips(
    task: Task, variables: Variables, source: ClipSource, count: int, mesh: Mesh
) -> _Clips:
    """Inputs, truth and prediction of the first clips, each `[N, T, H, W, C]`."""
    if not count:
        nothing = np.zeros((0, 0, *source[0]["frames"].shape[1:]), np.float32)
        return nothing, nothing, nothing
    clips = [source[index] for index in range(count)]
    batch = {key: jnp.asarray(np.stack([clip[key] for clip in clips]))
             for key in clips[0].keys() & {"frames", "targets"}}  # fmt: skip
    inputs, truth = jax.device_get(split_batch(task, batch))

    def predict(variables, inputs):
        return task.forecast(variables, inputs, task.num_output_frames).frames

    prediction = jax.jit(predict, out_shardings=replicated(mesh))(variables, inputs)
    return inputs, truth, jax.device_get(prediction)


def _reconstructed(
    task: Reconstructs, variables: Variables, inputs: np.ndarray, mesh: Mesh
) -> _Clips:
    """Inputs, what their reconstruction should be, and the reconstruction."""

    def reconstruct(variables, inputs):
        _, reconstruction, original = task.forecast_and_reconstruct(
            variables, inputs, 1
        )
        return original, reconstruction.frames

    run = jax.jit(reconstruct, out_shardings=replicated(mesh))
    return inputs, *jax.device_get(run(variables, inputs))


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
    outputs: dict[str, tuple[_Clips, bool]],
) -> list[tuple[str, Path]]:
    """Draws everything; returns (caption, file) in the order of the report.

    Of each output, by the name its files begin with, are given the clips and whether
    they are a reconstruction.
    """
    folder = workdir / "pictures"
    pictures = []

    def add(caption: str, name: str) -> Path:
        pictures.append((caption, folder / name))
        return folder / name

    for output, (clips, reconstruction) in outputs.items():
        what = "reconstruction" if reconstruction else "prediction"
        if len(clips[0]):
            comparison_grid_gif(
                add(f"Test sequences: truth and {what}", f"{output}.gif"),
                *clips, reconstruction=reconstruction,
            )  # fmt: skip
        for index in range(len(clips[0])):
            clip = [part[index] for part in clips]
            name = f"{output}_{index:02d}"
            caption = f"Test sequence {index}"
            if reconstruction:
                caption += ": its inputs in reverse order, and their reconstruction"
            film_strip(
                add(caption, f"{name}.png"),
                *clip,
                reconstruction=reconstruction,
                max_columns=_MOST_COLUMNS,
            )
            comparison_gif(folder / f"{name}.gif", *clip, reconstruction=reconstruction)
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
