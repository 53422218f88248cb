"""`--mode=evaluate`: metrics of model and baselines on the test set, and pictures."""

import logging
from functools import partial
from pathlib import Path

import jax
from tqdm import tqdm

from convlstm_jax.cli.build import (
    build_objective,
    build_sources,
    load_variables,
    process_eval_batches,
)
from convlstm_jax.cli.evaluate_folder import evaluate_folder
from convlstm_jax.cli.experiment import Experiment
from convlstm_jax.cli.process import logging_to
from convlstm_jax.data.sources import Sources
from convlstm_jax.errors import UserError
from convlstm_jax.evaluation.evaluate import add_vmaf, evaluate
from convlstm_jax.evaluation.report import write_report
from convlstm_jax.evaluation.result import EvaluationResult, clip_namer
from convlstm_jax.objectives.base import Drawn
from convlstm_jax.training.sharding import data_mesh
from convlstm_jax.training.steps import make_eval_step
from convlstm_jax.viz.plots import learning_curves

_log = logging.getLogger(__name__)


def run(
    experiment: Experiment,
    *,
    workdir: Path,
    input: Path | None = None,
    every: int | None = None,
) -> None:
    """Evaluates the best checkpoint of a run on the test set.

    `evaluation.json`, `evaluation.csv`, `report.html` and `pictures/` are written into
    `workdir`, the run's folder. With `input` instead on every n-th start time in a
    folder of composites, see `evaluate_folder`.
    """
    if every is not None and input is None:
        raise UserError("--every needs --input, the folder of whose start times")
    with logging_to(workdir):
        if input is not None:
            evaluate_folder(experiment, workdir, input, every or 1)
            return
        sources = build_sources(experiment)
        _log.info("data: %s", sources.description)
        evaluate_run(experiment, sources, workdir=workdir)


def evaluate_run(
    experiment: Experiment, sources: Sources, *, workdir: Path
) -> EvaluationResult:
    """As `run`, with sources that are open; training ends with it."""
    objective, mesh = build_objective(experiment, sources), data_mesh()
    step, variables = load_variables(objective, experiment, workdir, mesh)
    test = objective.with_baselines(sources.test)
    num_sequences = min(experiment.eval.num_sequences, len(test))
    _log.info(
        "evaluating the weights of step %d on %d test sequences", step, num_sequences
    )
    batches, total = process_eval_batches(test, experiment, num_sequences, mesh)
    progress = tqdm(
        batches, total=total, desc="evaluating", unit="batch", disable=None,
        dynamic_ncols=True,
    )  # fmt: skip
    eval_step = make_eval_step(
        objective, mesh, with_baselines=True, num_conditions=len(sources.conditions)
    )
    # Not of `test`, whose clips cost an extrapolation each.
    name_clip = clip_namer(sources.test, sources.test_films, sources.conditions)
    result = evaluate(
        eval_step, objective.summarize, variables, progress, mesh, sources.conditions,
        name_clip,
    )  # fmt: skip
    result.step = step
    digits = {"digits": sources.digits_source} if sources.digits_source else {}
    result.data = {
        "description": sources.description, **digits,
        "split": "test", "num_sequences": num_sequences,
    }  # fmt: skip
    # All processes take part in the forecasts, and so draw the same clips.
    chosen = objective.drawn_clips(test, experiment.eval.num_pictures)
    result.drawn_clips = [name_clip(index) for index in chosen]
    examples = partial(objective.examples, variables, test, mesh=mesh)
    drawn = examples(chosen)
    worst = examples([clip.name.index for clip in result.worst_clips])
    if objective.with_vmaf:
        add_vmaf(
            result,
            examples,
            frame_size=(sources.height, sources.width),
            conditions=sources.conditions,
            num_sequences=num_sequences,
            num_vmaf_sequences=experiment.eval.num_vmaf_sequences,
        )
    if jax.process_index() != 0:
        return result
    result.write(workdir)
    for line in result.table():
        _log.info(line)
    first = [
        Drawn(example, name, "First test sequences")
        for example, name in zip(drawn, result.drawn_clips, strict=True)
    ]
    worst_clips = [
        Drawn(example, clip.name, "Worst by MSE", note)
        for example, clip, note in zip(
            worst, result.worst_clips, result.worst_notes(), strict=True
        )
    ]
    pictures = objective.draw(first, result.contenders, workdir / "pictures")
    write_report(
        workdir / "report.html",
        title=f"{workdir.name}: evaluation at step {step}",
        config=experiment.config.to_dict(),
        data_description=sources.description,
        result=result,
        pictures=[*pictures, *_learning_curves(workdir)],
        clips=[*objective.played(first), *objective.played(worst_clips)],
    )
    _log.info("report: %s", workdir / "report.html")
    return result


def _learning_curves(workdir: Path) -> list[tuple[str, Path]]:
    curves = workdir / "pictures" / "learning_curves.png"
    if not (workdir / "metrics.csv").exists():
        return []
    try:
        learning_curves(workdir / "metrics.csv", curves)
    except UserError as error:  # The evaluation is complete without them.
        _log.warning("no learning curves are drawn: %s", error)
        return []
    return [("Learning curves", curves)]
