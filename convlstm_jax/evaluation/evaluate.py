"""The evaluation loop that validation and the final evaluation share."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from convlstm_jax.config import Config, field
from convlstm_jax.evaluation.result import Contender, EvaluationResult, WorstClip
from convlstm_jax.metrics.accumulate import MetricSummary, MetricSums, add_sums
from convlstm_jax.training.sharding import put_batch
from convlstm_jax.viz.player import ClipName

_NUM_WORST_CLIPS = 4


class EvalConfig(Config):
    """How the test set is evaluated and drawn."""

    num_sequences: int = field(
        10_000, "Test sequences that are evaluated.", ge=1, may_change=True
    )
    batch_size: int = field(
        64, "Sequences in one step, over all devices.", ge=1, may_change=True
    )
    num_pictures: int = field(
        8, "Test sequences that are drawn.", ge=0, may_change=True
    )
    num_vmaf_sequences: int = field(
        16,
        "Test sequences, evenly spread, whose VMAF is measured where the package "
        "imageio-ffmpeg is installed. A film of 64 x 64 pixels takes about 50 ms.",
        ge=0,
        may_change=True,
    )


class RainEvalConfig(EvalConfig):
    """How the test set of a nowcast is evaluated and drawn."""

    rain_thresholds: tuple[float, ...] = field(
        (0.5, 2.0, 5.0, 10.0, 30.0),
        "Rain rates from which on rain counts as forecast and as observed.",
        unit="mm/h",
        gt=0,
        min_length=1,
        may_change=True,
    )
    fss_window_sizes: tuple[int, ...] = field(
        (5,),
        "Sides of the windows of the fractions skill score.",
        unit="pixels",
        ge=1,
        le=999,
        odd=True,
        min_length=1,
        example="(1,5,9)",
        may_change=True,
    )


Summarize = Callable[[MetricSums, tuple[int, int, int]], MetricSummary]
"""`summarize` of an objective: (sums, frame shape) → the metrics of a contender."""


def evaluate(
    eval_step: Callable[[Any, dict], dict[str, Any]],
    summarize: Summarize,
    variables: Any,
    batches: Iterable[dict[str, np.ndarray]],
    mesh: Mesh,
    conditions: Sequence[str] = (),
    name_clip: Callable[[int], ClipName] = ClipName,
) -> EvaluationResult:
    """Measures a model, and the baselines that `eval_step` knows, over batches.

    Args:
        eval_step: From `training.steps.make_eval_step`.
        summarize: Of the objective.
        variables: The model's variables.
        batches: This process's parts of `{"frames", "weight", …}`; see
            `data.pipeline.eval_batches`.
        mesh: Devices; the batches are divided over them.
        conditions: Names of the conditions that `eval_step` tells apart.
        name_clip: Names the clip at a place in the order of the batches.

    Returns:
        The contenders, with conditions those that any clip has, and, where `eval_step`
        gives "clip_mse", the four clips of the largest mean squared error.

    Raises:
        ValueError: There is no batch, or none of its clips counts.
    """
    totals: dict[str, MetricSums] = {}
    by_condition: dict[str, MetricSums] = {}
    clip_mse: list[np.ndarray] = []
    frame_shape = (1, 1, 1)
    for batch in batches:
        frame_shape = batch["frames"].shape[2:]
        sums = jax.device_get(eval_step(variables, put_batch(batch, mesh)))
        if "clip_mse" in sums:
            clip_mse.append(sums.pop("clip_mse"))
        for name, contender in sums.pop("by_condition", {}).items():
            by_condition[name] = add_sums(by_condition.get(name), contender)
        for name, contender in sums.items():
            totals[name] = add_sums(totals.get(name), contender)
    if not totals:
        raise ValueError("batches is empty: it must hold at least one batch")
    counts = np.asarray(by_condition["model"]["count"]) if conditions else np.zeros(0)
    present = [index for index, count in enumerate(counts) if count]
    contenders = {}
    # The model first: jit returns dictionaries in the order of their keys.
    for name in sorted(totals, key=lambda name: (name != "model", name)):
        summary = summarize(totals[name], frame_shape)
        contenders[name] = Contender(
            **vars(summary),
            per_condition={
                conditions[index]: summarize(
                    _of_condition(by_condition[name], index), frame_shape
                )
                for index in present
            },
        )
    return EvaluationResult(
        contenders,
        {conditions[index]: int(counts[index]) for index in present},
        _worst(np.concatenate(clip_mse), name_clip) if clip_mse else [],
    )


def _worst(
    clip_mse: np.ndarray, name_clip: Callable[[int], ClipName]
) -> list[WorstClip]:
    """The clips of the largest error; one that is not a number is the worst."""
    errors = np.where(np.isnan(clip_mse), np.inf, clip_mse)
    order = np.argsort(-errors, kind="stable")[:_NUM_WORST_CLIPS]
    return [
        WorstClip(
            name_clip(int(index)),
            None if np.isnan(clip_mse[index]) else float(clip_mse[index]),
        )
        for index in order
        if errors[index] > -np.inf
    ]


def _of_condition(sums: MetricSums, index: int) -> MetricSums:
    return {
        "sums": {
            name: np.asarray(values)[index] for name, values in sums["sums"].items()
        },
        "count": np.asarray(sums["count"])[index],
    }
