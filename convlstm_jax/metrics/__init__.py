"""How far a predicted clip is from the true one.

One file a family; each metric is declared in `registry` beside its function.
`accumulate` turns per-clip values into the metrics of a test set; `baselines` holds the
predictions that a model must beat.
"""

from convlstm_jax.metrics import (
    classification,
    correlation,
    forecast_skill,
    pixel,
    ssim,
    vmaf,
)
from convlstm_jax.metrics.registry import METRICS, Metric, find_metric, frame_metrics

__all__ = [
    "METRICS",
    "Metric",
    "classification",
    "correlation",
    "find_metric",
    "forecast_skill",
    "frame_metrics",
    "pixel",
    "ssim",
    "vmaf",
]
