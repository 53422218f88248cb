"""When to stop: the count of evaluations that brought no improvement."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """The best value of one metric so far, and how long ago it was seen.

    An immutable value: `update` returns the next one. It travels through a checkpoint
    as JSON, so that a resumed run stops where the uninterrupted one would.

    Attributes:
      higher_is_better: whether a larger value is an improvement.
      best_value: the best value seen, in the metric's own unit; None before the first.
      best_step: the training step of `best_value`; the earliest one among equals.
      evaluations_without_improvement: evaluations since `best_step`.
    """

    higher_is_better: bool = False
    best_value: float | None = None
    best_step: int | None = None
    evaluations_without_improvement: int = 0

    def update(self, step: int, value: float) -> EarlyStopping:
        """Returns the state after an evaluation at `step` that measured `value`.

        Only a strict improvement counts. NaN never improves, nor does the worst
        infinity, so a run that diverges from its first step on is stopped as well.
        """
        value = float(value)
        worst = -math.inf if self.higher_is_better else math.inf
        best = worst if self.best_value is None else self.best_value
        # A comparison with NaN is false, which is what is wanted here.
        improved = value > best if self.higher_is_better else value < best
        if not improved:
            count = self.evaluations_without_improvement + 1
            return dataclasses.replace(self, evaluations_without_improvement=count)
        return EarlyStopping(self.higher_is_better, value, int(step), 0)

    def should_stop(self, patience: int) -> bool:
        """Whether `patience` evaluations passed without improvement (0: never)."""
        return 0 < patience <= self.evaluations_without_improvement

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a dictionary that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> EarlyStopping:
        """Returns the state that `to_json` described.

        Raises:
          ValueError: if `fields` holds other keys than `to_json` writes.
        """
        expected = [field.name for field in dataclasses.fields(cls)]
        if sorted(fields) != sorted(expected):
            raise ValueError(
                f"The early-stopping state has the fields {sorted(fields)}, "
                f"but must have {sorted(expected)}."
            )
        return cls(**fields)
