"""The evaluation loop that validation and the final evaluation share."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from convlstm_jax.metrics.accumulate import MetricSummary, MetricSums, add_sums
from convlstm_jax.training.sharding import put_batch

# Clips of the greatest error that an evaluation names.
_WORST_CLIPS = 4


class Summarize(Protocol):
    """`Task.summarize`."""

    def __call__(
        self, total: MetricSums, frame_shape: tuple[int, int, int]
    ) -> MetricSummary:
        """The figures of a test set from one contender's sums over all its clips."""
        ...


def evaluate(
    eval_step: Callable[[Any, dict], dict[str, Any]],
    summarize: Summarize,
    variables: Any,
    batches: Iterable[dict[str, np.ndarray]],
    mesh: Mesh,
    conditions: Sequence[str] = (),
) -> dict[str, Any]:
    """Scores a model, and the baselines `eval_step` knows, over batches.

    Args:
        eval_step: from `train.steps.make_eval_step`.
        summarize: of the task.
        variables: the model's variables.
        batches: this process's parts of `{"frames", "weight", …}`; see
            `data.pipeline.eval_batches`.
        mesh: devices; the batches are divided over them.
        conditions: names of the conditions that `eval_step` tells apart.

    Returns:
        `{contender: {metric: value}, …, "per_lead_time": {contender: {metric: [T]}}}`
        and, with conditions, "per_condition": `{condition: {"count": clips,
        contender: {metric: value}, …}}` for those that any clip is of. Where
        `eval_step` gives "clip_mse", "worst_clips" lists the four clips of the greatest
        mean squared error, worst first: their "index" in the order of the batches, and
        "mse" (None: not a number).

    Raises:
        ValueError: there is no batch, or none of its clips counts.
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
        raise ValueError("there are no batches to evaluate on")
    # The model first: jit hands dictionaries back in the order of their keys.
    names = sorted(totals, key=lambda name: (name != "model", name))
    summaries = {name: summarize(totals[name], frame_shape) for name in names}
    results: dict[str, Any] = {
        name: summary["total"] for name, summary in summaries.items()
    }
    results["per_lead_time"] = {
        name: summary["per_lead_time"] for name, summary in summaries.items()
    }
    if clip_mse:
        results["worst_clips"] = _worst(np.concatenate(clip_mse))
    if conditions:
        results["per_condition"] = {}
    for index, condition in enumerate(conditions):
        count = int(np.asarray(by_condition["model"]["count"])[index])
        if not count:
            continue
        results["per_condition"][condition] = {"count": count}
        for name in names:
            total = _of_condition(by_condition[name], index)
            figures = summarize(total, frame_shape)["total"]
            results["per_condition"][condition][name] = figures
    return results


def _worst(clip_mse: np.ndarray) -> list[dict[str, Any]]:
    """The clips of the greatest error; one that is not a number is the worst."""
    errors = np.where(np.isnan(clip_mse), np.inf, clip_mse)
    order = np.argsort(-errors, kind="stable")[:_WORST_CLIPS]
    return [
        {
            "index": int(index),
            "mse": None if np.isnan(clip_mse[index]) else float(clip_mse[index]),
        }
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
