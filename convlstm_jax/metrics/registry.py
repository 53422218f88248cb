"""One registry of all metrics, each declared beside its function.

By `@frame_metric(Metric(...))` what is measured on every frame, else by `register`.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from convlstm_jax.types import Video

_Function = TypeVar("_Function", bound=Callable[..., Array])


@dataclasses.dataclass(frozen=True)
class Metric:
    """What is known of a metric."""

    key: str  # in evaluation.json, metrics.csv and TensorBoard
    label: str  # in tables and plots
    convention: str = ""  # one sentence; "" for what only training logs
    unit: str = ""  # unit or kind of sum
    direction: Literal["higher", "lower", "neither"] = "lower"  # which is better
    order: int = 1000  # place in tables and plots, ascending
    repeats: str = ""  # key of the metric that it equals up to a constant factor
    min_side: int = 1  # smallest height and width of a frame that it is defined for
    # (prediction, target) → [B, T] of a frame metric; better, from (logits, target).
    function: Callable[..., Array] | None = None
    from_logits: Callable[..., Array] | None = None
    # (means of `repeats` over clips [T], H·W·C) → total.
    derive: Callable[[Any, int], float] | None = None
    # Where it is no average over frames: the key of what `function` gives, [B, T, N],
    # to be summed over clips, and (sums [..., N], number of frames) → [...].
    sums: str = ""
    pool: Callable[[Any, float], Any] | None = None

    @property
    def axis_label(self) -> str:
        """Label and unit on one line."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def arrow(self) -> str:
        """↑ where higher is better, ↓ where lower is."""
        return {"higher": "↑", "lower": "↓", "neither": ""}[self.direction]


# All metrics by key; a score at rain rates stands here under its family's name.
METRICS: dict[str, Metric] = {}


def register(*metrics: Metric) -> None:
    """Adds metrics to the registry; raises ValueError where a key is taken."""
    for metric in metrics:
        if metric.key in METRICS:
            raise ValueError(f"key is {metric.key!r}: it must not be registered twice")
        METRICS[metric.key] = metric


def frame_metric(metric: Metric) -> Callable[[_Function], _Function]:
    """Registers the decorated function of (prediction, target) as a frame metric."""

    def decorate(function: _Function) -> _Function:
        register(dataclasses.replace(metric, function=function))
        return function

    return decorate


def frame_metrics(
    prediction: Video, target: Video, logits: Video | None = None
) -> dict[str, Array]:
    """Measures every frame metric of clips `[B, T, H, W, C]` in [0, 1]: key → `[B, T]`.

    Metrics whose window is larger than the frames are left out.
    """
    values = {}
    for metric in METRICS.values():
        if metric.function is None or min(target.shape[2:4]) < metric.min_side:
            continue
        key = metric.sums or metric.key
        if logits is not None and metric.from_logits is not None:
            values[key] = metric.from_logits(logits, target)
        else:
            values[key] = metric.function(prediction, target)
    return values


def matched_frames(
    prediction: Video, target: Video, name: str = "prediction"
) -> tuple[Array, Array]:
    """Converts two clips to float32, or float64 where either has it, to be compared."""
    if prediction.shape != target.shape or prediction.ndim != 5:
        raise ValueError(
            f"{name} has shape {prediction.shape} and target {target.shape}: they must "
            "have one shape [B, T, H, W, C]"
        )
    for clip_name, clip in ((name, prediction), ("target", target)):
        if not jnp.issubdtype(clip.dtype, jnp.floating):
            raise ValueError(
                f"{clip_name} has dtype {clip.dtype}: it must be floating point, "
                "pixels in [0, 1]"
            )
    common = jnp.result_type(prediction.dtype, target.dtype, jnp.float32)
    return jnp.asarray(prediction, common), jnp.asarray(target, common)


# A score at a rain rate, such as csi_0.5_mm_per_h or fss_2_mm_per_h_5_px.
_AT_A_RATE = re.compile(r"([a-z_]+)_([0-9.e+-]+)_mm_per_h(?:_(\d+)_px)?")


def score_name(score: str, threshold_mm_per_h: float, window_size: int = 0) -> str:
    """The key of a score at a rain rate: `csi_0.5_mm_per_h`."""
    name = f"{score}_{threshold_mm_per_h:g}_mm_per_h"
    return f"{name}_{window_size}_px" if window_size else name


def find_metric(key: str) -> Metric:
    """Looks a metric up, a score at a rain rate too; an unknown one has its own key."""
    if key in METRICS:
        return METRICS[key]
    score = _AT_A_RATE.fullmatch(key)
    if score and score[1] in METRICS:
        family = METRICS[score[1]]
        label = f"{family.label} at {score[2]} mm/h"
        if score[3]:
            label += f", {score[3]} pixels"
        return dataclasses.replace(family, key=key, label=label)
    return Metric(key, key.replace("_", " "), direction="neither")


def in_order(keys: Iterable[str]) -> list[str]:
    """Known metrics in their order, scores by their rain rate, then others by name."""

    def place(key: str) -> tuple[int, float, int, str]:
        score = _AT_A_RATE.fullmatch(key)
        rate, window = (float(score[2]), int(score[3] or 0)) if score else (0.0, 0)
        return find_metric(key).order, rate, window, key

    return sorted(keys, key=place)


def without_repeats(keys: set[str]) -> set[str]:
    """Leaves out what repeats another of these metrics in another unit."""
    return {key for key in keys if find_metric(key).repeats not in keys}


def conventions() -> dict[str, str]:
    """Key → the sentence that defines the metric, for evaluation files."""
    metrics = [METRICS[key] for key in in_order(METRICS)]
    return {metric.key: metric.convention for metric in metrics if metric.convention}


def format_value(value: float | None) -> str:
    """A number with as many digits as a reader needs; names NaN and infinity."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    formats = ((10_000, ",.0f"), (100, ",.1f"), (10, ".2f"), (0.001, ".4f"), (0, ".2e"))
    size = abs(value) or 1.0  # 0 gets the digits of 1.
    style = next(style for limit, style in formats if size >= limit)
    if isinstance(value, int):
        style = ",.0f"
    return format(value, style).replace("-", "−")


def ratio(above: Any, below: Any) -> NDArray[np.float64]:
    """A quotient, NaN where the divisor is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below != 0, np.divide(above, below), np.nan)


def none_if_nan(value: Any) -> float | None:
    """A number; None, which JSON has, in place of NaN, which it has not."""
    return None if math.isnan(value) else float(value)


register(
    Metric("loss", "Loss", order=0),
    Metric("learning_rate", "Learning rate", direction="neither", order=900),
)
