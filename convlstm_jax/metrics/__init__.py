"""How far a predicted clip is from the true one: one file a family of metrics."""

from convlstm_jax.metrics import classification, forecast_skill, pixel, ssim, vmaf
from convlstm_jax.metrics.registry import METRICS, Metric, find_metric, frame_metrics

__all__ = [
    "METRICS", "Metric", "classification", "find_metric", "forecast_skill",
    "frame_metrics", "pixel", "ssim", "vmaf",
]  # fmt: skip
