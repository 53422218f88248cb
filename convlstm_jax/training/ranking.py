"""Which checkpoints are the best, and that those are kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orbax.checkpoint import checkpoint_managers


def best_first(values: Mapping[int, float], *, higher_is_better: bool) -> list[int]:
    """Returns the steps in `values` from best to worst, the earliest among equals."""
    sign = -1.0 if higher_is_better else 1.0
    return sorted(values, key=lambda step: (sign * values[step], step))


class Ranking(checkpoint_managers.PreservationPolicy):
    """Knows the ranking metric of each step and preserves the best checkpoints.

    Orbax's own `BestN` reads the metrics from unverified files when a folder is
    opened, and fails right there if one of them is damaged.
    """

    def __init__(self, metric_name: str, *, higher_is_better: bool, keep_best: int):
        """Starts without any step; see `training.checkpoint.Checkpoints`."""
        self._name = metric_name
        self._higher_is_better = higher_is_better
        self._keep_best = keep_best
        self._values: dict[int, float] = {}

    def note(self, step: int, metrics: Mapping[str, float] | None) -> None:
        """Remembers the ranking metric of a step, unless there is none or it is NaN.

        Raises:
          ValueError: if `metrics` lacks the ranking metric.
        """
        self._values.pop(step, None)
        if metrics is None:
            return
        if self._name not in metrics:
            raise ValueError(
                f"metrics must hold {self._name!r}, which ranks the checkpoints, "
                f"but holds {sorted(metrics)}."
            )
        value = float(metrics[self._name])
        if not math.isnan(value):
            self._values[step] = value

    def note_record(self, step: int, metric: Mapping[str, Any] | None) -> None:
        """Remembers what `as_json` returned, if it is about the same metric."""
        if metric is not None and metric["name"] == self._name:
            self._values[step] = metric["value"]

    def as_json(self, step: int) -> dict[str, Any] | None:
        """Returns the ranking metric of a step, for the record of its checkpoint."""
        if step not in self._values:
            return None
        return {
            "name": self._name,
            "higher_is_better": self._higher_is_better,
            "value": self._values[step],
        }

    def ranked(self, steps: Iterable[int]) -> list[int]:
        """Returns those of `steps` that have the metric, from best to worst."""
        values = {step: self._values[step] for step in steps if step in self._values}
        return best_first(values, higher_is_better=self._higher_is_better)

    def should_preserve(
        self,
        checkpoints: Sequence[checkpoint_managers.PolicyCheckpointInfo],
        *,
        context: checkpoint_managers.PreservationContext,
    ) -> list[bool]:
        """Tells Orbax, for each checkpoint, whether it must stay."""
        ranked = self.ranked(checkpoint.step for checkpoint in checkpoints)
        kept = set(ranked[: self._keep_best])
        return [checkpoint.step in kept for checkpoint in checkpoints]
