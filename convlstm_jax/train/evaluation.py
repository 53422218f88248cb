"""The evaluation loop that validation and the final evaluation share."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from convlstm_jax.metrics.accumulate import MetricSums, add_sums, summarize
from convlstm_jax.train.sharding import put_batch


def evaluate(
    eval_step: Callable[[Any, dict], dict[str, MetricSums]],
    variables: Any,
    batches: Iterable[dict[str, np.ndarray]],
    mesh: Mesh,
) -> dict[str, Any]:
    """Scores a model, and the baselines `eval_step` knows, over batches.

    Args:
        eval_step: from `train.steps.make_eval_step`.
        variables: the model's variables.
        batches: this process's parts of `{"frames", "weight"}`; see
            `data.pipeline.eval_batches`.
        mesh: devices; the batches are divided over them.

    Returns:
        `{contender: {metric: value}, …, "per_lead_time": {contender: {metric: [T]}}}`.

    Raises:
        ValueError: there is no batch, or none of its clips counts.
    """
    totals: dict[str, MetricSums] = {}
    values_per_frame = 1
    for batch in batches:
        values_per_frame = int(np.prod(batch["frames"].shape[2:]))
        sums = jax.device_get(eval_step(variables, put_batch(batch, mesh)))
        for name, contender in sums.items():
            totals[name] = add_sums(totals.get(name), contender)
    if not totals:
        raise ValueError("there are no batches to evaluate on")
    summaries = {
        name: summarize(totals[name], values_per_frame=values_per_frame)
        # The model first: jit hands dictionaries back in the order of their keys.
        for name in sorted(totals, key=lambda name: (name != "model", name))
    }
    results: dict[str, Any] = {
        name: summary["total"] for name, summary in summaries.items()
    }
    results["per_lead_time"] = {
        name: summary["per_lead_time"] for name, summary in summaries.items()
    }
    return results
