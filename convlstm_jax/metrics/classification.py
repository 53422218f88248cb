"""How well clips are classified: a confusion matrix, and the metrics it gives."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

from convlstm_jax.metrics.accumulate import (
    MetricSummary,
    MetricSums,
    float64_sums,
    num_samples,
)
from convlstm_jax.metrics.registry import Metric, none_if_nan, ratio, register

register(
    Metric("accuracy", "Accuracy", direction="higher", order=90, convention=(
        "Share of clips whose most probable class is the true one.")),
    Metric("balanced_accuracy", "Balanced accuracy", direction="higher", order=91,
        convention=(
        "Recall averaged over the classes that have clips, each class counting the "
        "same.")),
    Metric("cross_entropy_nats_per_clip", "Cross-entropy", unit="nats per clip",
        order=92, convention=(
        "Cross-entropy of the class in nats, -log of the probability given to the true "
        "one, averaged over clips, without class weights; null where it is not finite."
    )),
    Metric("precision", "precision", direction="higher", order=93, convention=(
        "Of the clips predicted to be of a class, the share that are; null where there "
        "are none.")),
    Metric("recall", "recall", direction="higher", order=94, convention=(
        "Of the clips of a class, the share predicted to be; null where there are "
        "none.")),
    Metric("f1", "f1", direction="higher", order=95, convention=(
        "Harmonic mean of precision and recall, as 2 TP / (2 TP + FP + FN); null where "
        "a class neither has clips nor was predicted.")),
    Metric("support", "support", "Clips of a class.", direction="neither", order=96),
    Metric("confusion", "Confusion matrix", direction="neither", order=97, convention=(
        "Clips by true class (rows) and predicted class (columns).")),
)  # fmt: skip


def classification_metrics(
    logits: Float[Array, "B N"], label: Int[Array, " B"]
) -> dict[str, Array]:
    """The "cross_entropy_nats" `[B, 1]` and "confusion" `[B, N, N]` of every clip.

    Rows are true classes, columns that of the (first) largest logit.
    """
    logits = logits.astype(jnp.float32)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    truth = jax.nn.one_hot(label, logits.shape[1])
    prediction = jax.nn.one_hot(logits.argmax(axis=1), logits.shape[1])
    return {
        "cross_entropy_nats": nats[:, None],
        "confusion": truth[:, :, None] * prediction[:, None, :],
    }


def majority_logits(class_counts: Sequence[int], num_clips: int) -> Float[Array, "B N"]:
    """The baseline that never looks at a clip: logs of the shares of training clips."""
    counts = np.asarray(class_counts, np.float64)
    with np.errstate(divide="ignore"):
        logits = jnp.asarray(np.log(counts / counts.sum()), jnp.float32)
    return jnp.broadcast_to(logits, (num_clips, len(counts)))


def summarize_classification(
    total: MetricSums, classes: Sequence[str]
) -> MetricSummary:
    """The metrics of an evaluation; None for what is undefined or not finite."""
    count, sums = num_samples(total), float64_sums(total)
    confusion = sums["confusion"]
    if not np.isclose(confusion.sum(), count):
        raise ValueError(
            f"the confusion matrix holds {confusion.sum():g} of {count:g} clips: "
            f"labels must be from 0 to {len(classes) - 1}"
        )
    hits = np.diag(confusion)
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    recall = ratio(hits, support)
    scores = {
        "precision": ratio(hits, predicted),
        "recall": recall,
        "f1": ratio(2 * hits, support + predicted),
    }
    nats = sums["cross_entropy_nats"].item()
    return MetricSummary(
        {
            "accuracy": float(hits.sum() / count),
            "balanced_accuracy": float(np.mean(recall[support > 0])),
            "cross_entropy_nats_per_clip": nats / count if np.isfinite(nats) else None,
        },
        per_class={
            name: {
                **{key: none_if_nan(of[index]) for key, of in scores.items()},
                "support": round(support[index]),
            }
            for index, name in enumerate(classes)
        },
        confusion=[[round(cell) for cell in row] for row in confusion],
    )
