"""Classifying clips: one class for a whole clip."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float

from convlstm_jax.array_types import PerExample, Video
from convlstm_jax.errors import UserError
from convlstm_jax.metrics.accumulate import MetricSummary, MetricSums
from convlstm_jax.metrics.classification import (
    classification_metrics,
    majority_logits,
    summarize_classification,
)
from convlstm_jax.models.clip_classifier import ClipClassifier, Logits
from convlstm_jax.tasks.task import Batch, Variables, to_unit_interval


def balanced_weights(class_counts: Sequence[int]) -> tuple[float, ...]:
    """How much a clip of each class counts, so that all classes count the same.

    The weight of class k is Σ n / (N n_k), for N classes of n_k training clips each, as
    scikit-learn's `class_weight="balanced"`. Over the training clips the weights
    average to 1, so the loss keeps its size and the learning rate its meaning.

    Args:
      class_counts: n_k, training clips of each class.

    Raises:
      UserError: a class has no training clip.
    """
    counts = np.asarray(class_counts, np.float64)
    if not len(counts) or not counts.min() > 0:
        raise UserError(
            f"class_counts is {tuple(class_counts)}, but for balanced weights each "
            "class must have a training clip."
        )
    return tuple((counts.sum() / (len(counts) * counts)).tolist())


@dataclass(frozen=True)
class ClassificationTask:
    """Tells the class of a clip from all of its frames.

    Attributes:
      model: the classifier.
      num_input_frames: frames of a clip.
      classes: name of each class, in the order of the labels.
      class_weights: what a clip of each class counts in the loss, used as they are;
        `balanced_weights` averages to 1. All count 1 if not given.
      class_counts: training clips of each class, which the baseline "majority" goes by;
        without them it is left out of evaluations.

    Raises:
      ValueError: the model's classes, the weights or the counts are not as many as the
        names.
    """

    model: ClipClassifier
    num_input_frames: int
    classes: tuple[str, ...]
    class_weights: tuple[float, ...] | None = None
    class_counts: tuple[int, ...] | None = None

    def __post_init__(self):
        """Refuses what does not fit together."""
        if self.model.num_classes != len(self.classes):
            raise ValueError(
                f"num_classes of the model is {self.model.num_classes}: it must be the "
                f"number of names in classes, {len(self.classes)}"
            )
        for name in ("class_weights", "class_counts"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.classes):
                raise ValueError(
                    f"{name} is {tuple(values)}: it must have one number for each of "
                    f"the {len(self.classes)} names in classes"
                )

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Variables:
        """See `Task`."""
        inputs = jnp.zeros((1, self.num_input_frames, *frame_shape))
        return dict(self.model.init(key, inputs))

    def classify(self, variables: Variables, frames: Video) -> Float[Array, "B N"]:
        """The probability of every class, `[B, N]`, for each clip.

        Args:
          variables: the model's variables.
          frames: `[B, T, H, W, C]`, uint8 or in [0, 1].
        """
        return jax.nn.softmax(self._logits(variables, frames))

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Task`: −w_y log p_y, nats, for a clip of class y; draws nothing."""
        del key, step
        logits = self._logits(variables, batch["frames"])
        return self._score(logits, batch["label"]), {}

    def measure(
        self, variables: Variables, batch: Batch, *, with_baselines: bool
    ) -> dict[str, dict[str, Array]]:
        """See `Task` and `metrics.classification.classification_metrics`."""
        logits, label = self._logits(variables, batch["frames"]), batch["label"]
        contenders = {"model": classification_metrics(logits, label)}
        if not with_baselines:
            contenders["model"]["loss"] = self._score(logits, label)[:, None]
        elif self.class_counts is not None:
            majority = majority_logits(self.class_counts, len(label))
            contenders["majority"] = classification_metrics(majority, label)
        return contenders

    def summarize(
        self, total: MetricSums, frame_shape: tuple[int, int, int]
    ) -> MetricSummary:
        """See `Task`; there are no lead times.

        The total is that of `metrics.classification.summarize_classification`, and
        "loss" beside where it was measured.
        """
        del frame_shape
        summary = summarize_classification(total, self.classes)
        if "loss" in total["sums"]:
            loss = np.asarray(total["sums"]["loss"], np.float64)
            summary.total["loss"] = float(loss.mean() / np.asarray(total["count"]))
        return summary

    def _logits(self, variables: Variables, frames: Array) -> Logits:
        logits: Logits = self.model.apply(variables, to_unit_interval(frames))  # type: ignore[assignment]
        return logits

    def _score(self, logits: Logits, label: Array) -> PerExample:
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        if self.class_weights is None:
            return nats
        return nats * jnp.asarray(self.class_weights, jnp.float32)[label]
