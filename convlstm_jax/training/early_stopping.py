"""When to stop: the count of evaluations without improvement."""

from __future__ import annotations

import math

import pydantic


class EarlyStopping(pydantic.BaseModel):
    """The lowest validation loss so far, and how long ago it was seen.

    An immutable value: `update` returns the next one. A checkpoint holds it, so
    that a resumed run stops where the uninterrupted one would.

    Attributes:
        best_value: the lowest loss; None before the first evaluation.
        best_step: the training step of `best_value`, the earliest among equals.
        evaluations_without_improvement: evaluations since `best_step`.
    """

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)

    best_value: float | None = None
    best_step: int | None = None
    evaluations_without_improvement: int = 0

    def update(self, step: int, loss: float) -> EarlyStopping:
        """Returns the state after an evaluation at `step`.

        Only a strict improvement counts. NaN never improves, nor does infinity, so a
        run that diverges from its first step on is stopped as well.
        """
        best = math.inf if self.best_value is None else self.best_value
        if loss < best:
            return EarlyStopping(best_value=float(loss), best_step=step)
        count = self.evaluations_without_improvement + 1
        return self.model_copy(update={"evaluations_without_improvement": count})

    def should_stop(self, patience: int) -> bool:
        """Whether `patience` evaluations passed without improvement (0: never)."""
        return 0 < patience <= self.evaluations_without_improvement
