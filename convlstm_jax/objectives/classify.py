"""Classifying clips: one class for a whole clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float

from convlstm_jax.config import Config, field
from convlstm_jax.errors import UserError
from convlstm_jax.metrics.accumulate import MetricSummary, MetricSums, num_samples
from convlstm_jax.metrics.classification import (
    classification_metrics,
    majority_logits,
    summarize_classification,
)
from convlstm_jax.models import ModelConfig
from convlstm_jax.models.clip_classifier import ClipClassifier, Logits
from convlstm_jax.objectives.base import (
    Batch,
    ClipSource,
    Contenders,
    DataFacts,
    Drawn,
    FrameShape,
    Objective,
    ObjectiveConfig,
    Pictures,
    Variables,
    to_unit_interval,
)
from convlstm_jax.types import PerExample, Video
from convlstm_jax.viz.film_strip import classified_clips_strip, selection
from convlstm_jax.viz.plots import confusion_matrix


class ClassifyConfig(ObjectiveConfig):
    """Classify: one class for a whole clip."""

    network_kind: ClassVar[str] = "classes"
    data_kind: ClassVar[str] = "classes"

    name: Literal["classify"] = "classify"
    class_weights: Literal["none", "balanced"] = field(
        "none",
        "balanced: clips of rare classes have larger weights in training, so that all "
        "classes count equally.",
    )

    def build(
        self, model: ModelConfig, training: Config | None, facts: DataFacts
    ) -> "ClassificationObjective":
        """See `ObjectiveConfig`."""
        classes, counts, weights = facts.classes, facts.class_counts, None
        if counts is not None and self.class_weights == "balanced":
            weights = balanced_weights(counts)
        network = model.build(num_classes=len(classes))
        return ClassificationObjective(
            network, self.num_input_frames, classes, weights, counts
        )


def balanced_weights(class_counts: Sequence[int]) -> tuple[float, ...]:
    """Σ n / (N n_k) of N classes with n_k training clips: 1 on average over clips."""
    counts = np.asarray(class_counts, np.float64)
    if not len(counts) or not counts.min() > 0:
        raise UserError(
            f"class_counts is {tuple(class_counts)}: for balanced weights it must have "
            "a training clip of each class"
        )
    return tuple((counts.sum() / (len(counts) * counts)).tolist())


class ClassifiedClip(NamedTuple):
    """A clip of a test set: uint8 `[T, H, W, C]`, its class, and the probabilities."""

    frames: np.ndarray
    label: int
    probabilities: np.ndarray


@dataclass(frozen=True)
class ClassificationObjective(Objective):
    """Predicts the class of a clip; the baseline "majority" needs `class_counts`."""

    classes: tuple[str, ...]
    class_weights: tuple[float, ...] | None = None
    class_counts: tuple[int, ...] | None = None

    model: ClipClassifier
    predicts: ClassVar[str] = "a classification"
    suffixes: ClassVar[tuple[str, ...]] = (".json",)

    def init(self, key: Array, frame_shape: FrameShape) -> Variables:
        """See `Objective`."""
        inputs = jnp.zeros((1, self.num_input_frames, *frame_shape))
        return dict(self.model.init(key, inputs))

    def classify(self, variables: Variables, frames: Video) -> Float[Array, "B N"]:
        """The probability of every class for clips of uint8 or in [0, 1]."""
        return jax.nn.softmax(self._logits(variables, frames))

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """See `Objective`: −w_y log p_y, nats, for a clip of class y; no randomness."""
        logits = self._logits(variables, batch["frames"])
        return self._score(logits, batch["label"]), {}

    def measure(
        self, variables: Variables, batch: Batch, *, with_baselines: bool
    ) -> dict[str, dict[str, Array]]:
        """See `Objective` and `metrics.classification.classification_metrics`."""
        logits, label = self._logits(variables, batch["frames"]), batch["label"]
        contenders = {"model": classification_metrics(logits, label)}
        if not with_baselines:
            contenders["model"]["loss"] = self._score(logits, label)[:, None]
        elif self.class_counts is not None:
            majority = majority_logits(self.class_counts, len(label))
            contenders["majority"] = classification_metrics(majority, label)
        return contenders

    def summarize(self, total: MetricSums, frame_shape: FrameShape) -> MetricSummary:
        """See `Objective`; there are no lead times."""
        summary = summarize_classification(total, self.classes)
        if "loss" in total["sums"]:
            loss = float(np.asarray(total["sums"]["loss"]).item())
            summary.total["loss"] = loss / num_samples(total)
        return summary

    def _logits(self, variables: Variables, frames: Array) -> Logits:
        logits: Logits = self.model.apply(variables, to_unit_interval(frames))  # type: ignore[assignment]
        return logits

    def _score(self, logits: Logits, label: Array) -> PerExample:
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        if self.class_weights is None:
            return nats
        return nats * jnp.asarray(self.class_weights, jnp.float32)[label]

    def drawn_clips(self, source: ClipSource, count: int) -> list[int]:
        """Clips spread evenly over a source, so that no class is missed."""
        return selection(len(source), count).tolist()

    def shown(self, variables: Variables, batch: Batch) -> Any:
        """See `Objective`."""
        return self.classify(variables, batch["frames"])

    def example(self, clip: dict[str, Any], shown: Any) -> ClassifiedClip:
        """See `Objective`."""
        return ClassifiedClip(clip["frames"], int(clip["label"]), shown)

    def draw(
        self, drawn: Sequence[Drawn], contenders: Contenders, folder: Path
    ) -> Pictures:
        """Draws the confusion matrix and the clips."""
        matrix, strip = folder / "confusion_matrix.png", folder / "test_clips.png"
        confusion_matrix(matrix, contenders["model"].confusion, self.classes)
        pictures = [("Confusion matrix of the test clips", matrix)]
        if drawn:
            frames, labels, shares = zip(*(one.example for one in drawn), strict=True)
            classified_clips_strip(strip, frames, labels, shares, self.classes)
            pictures.append(("Test clips, their true and predicted classes", strip))
        return pictures

    def describe(self, variables: Variables, inputs: Video) -> dict[str, Array]:
        """See `Objective`."""
        return {"output: [B, classes]": self.classify(variables, inputs)}

    def check_num_frames(self, num_frames: int | None) -> None:
        """See `Objective`: a classifier predicts no frames."""
        if num_frames is not None:
            raise UserError(
                f"--num_frames is {num_frames}: it must not be given, as this network "
                "classifies the clip and predicts no frames"
            )

    def predict_from(
        self, variables: Variables, state: Any, num_frames: int | None
    ) -> dict[str, Array]:
        """See `Objective`: {class: probabilities `[B]`}."""
        probabilities = jax.nn.softmax(state.logits)
        return {name: probabilities[:, k] for k, name in enumerate(self.classes)}

    def exported_words(self, num_frames: int | None) -> str:
        """See `Objective`."""
        return f"probabilities {{{', '.join(map(repr, self.classes))}: [B]}}"
