"""Names, units and better direction of the metrics, for plots and tables."""

import math
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class MetricName:
    """What a reader needs to know about a metric.

    Attributes:
      label: Short name.
      unit: Unit and convention, empty if none.
      higher_is_better: None where neither way is.
    """

    label: str
    unit: str = ""
    higher_is_better: bool | None = False

    @property
    def axis_label(self) -> str:
        """Name and unit on one line."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def arrow(self) -> str:
        """↑ where higher is better, ↓ where lower is."""
        if self.higher_is_better is None:
            return ""
        return "↑" if self.higher_is_better else "↓"


# In the order in which they are shown.
METRIC_NAMES = {
    "loss": MetricName("Loss"),
    "mse": MetricName("MSE", "summed over a frame"),
    "mae": MetricName("MAE", "summed over a frame"),
    "ssim": MetricName("SSIM", "", True),
    "ssim_openstl": MetricName("SSIM, OpenSTL", "", True),
    "ms_ssim": MetricName("MS-SSIM", "", True),
    "psnr_db": MetricName("PSNR", "dB", True),
    "vmaf": MetricName("VMAF", "0 to 100", True),
    "cross_entropy": MetricName("Cross-entropy", "nats per frame"),
    "cross_entropy_nats": MetricName("Cross-entropy", "nats per frame"),
    "cross_entropy_nats_per_frame": MetricName("Cross-entropy", "nats per frame"),
    "cross_entropy_nats_per_sequence": MetricName("Cross-entropy", "nats per sequence"),
    "mse_per_pixel": MetricName("MSE", "mean over pixels"),
    "mae_per_pixel": MetricName("MAE", "mean over pixels"),
    "rainfall_mse": MetricName("Rainfall-MSE", "(mm/h)²"),
    "correlation": MetricName("Correlation", "", True),
    "correlation_uncentred": MetricName("Correlation, uncentred", "", True),
    "csi": MetricName("CSI", "", True),
    "pod": MetricName("POD", "", True),
    "far": MetricName("FAR", "false-alarm ratio"),
    "bias": MetricName("Bias", "forecast / observed", None),
    "hss": MetricName("HSS", "", True),
    "fss": MetricName("FSS", "", True),
    "accuracy": MetricName("Accuracy", "", True),
    "balanced_accuracy": MetricName("Balanced accuracy", "", True),
    "cross_entropy_nats_per_clip": MetricName("Cross-entropy", "nats per clip"),
    "learning_rate": MetricName("Learning rate", "", None),
}

# A score at a rain rate, such as csi_0.5_mm_per_h or fss_2_mm_per_h_5_px.
_AT_A_RATE = re.compile(r"([a-z]+)_([0-9.e+-]+)_mm_per_h(?:_(\d+)_px)?")

# The same figure but for a constant factor: one curve of the two is enough.
_REPEATS = {
    "mse_per_pixel": "mse",
    "mae_per_pixel": "mae",
    "cross_entropy_nats_per_frame": "cross_entropy_nats",
    "cross_entropy_nats_per_sequence": "cross_entropy_nats",
}

# What a model gives out; every other series is a baseline, a rival of the model.
OUTPUTS = ("model", "reconstruction")

SERIES_NAMES = {
    "model": "model",
    "reconstruction": "reconstruction of the inputs",
    "copy_last": "copy last frame",
    "persistence": "persistence",
    "zeros": "all zeros",
    "optical_flow": "optical flow",
    "majority": "most frequent class",
}


def metric_name(key: str) -> MetricName:
    """Looks a metric up; one that is not known goes by its own key."""
    if key in METRIC_NAMES:
        return METRIC_NAMES[key]
    score = _AT_A_RATE.fullmatch(key)
    if score and score[1] in METRIC_NAMES:
        known = METRIC_NAMES[score[1]]
        label = f"{known.label} at {score[2]} mm/h"
        if score[3]:
            label += f", {score[3]} pixels"
        return MetricName(label, known.unit, known.higher_is_better)
    return MetricName(key.replace("_", " "), "", None)


def series_name(key: str) -> str:
    """What the model or a baseline is called in pictures and tables."""
    return SERIES_NAMES.get(key, key.replace("_", " "))


def in_order(keys: set[str]) -> list[str]:
    """Known metrics in their order, scores by their rain rate, then others by name."""
    places = {key: place for place, key in enumerate(METRIC_NAMES)}

    def place(key: str) -> tuple[int, float, int, str]:
        score = _AT_A_RATE.fullmatch(key)
        if score and score[1] in places:
            return places[score[1]], float(score[2]), int(score[3] or 0), key
        return places.get(key, len(places)), 0.0, 0, key

    return sorted(keys, key=place)


def without_repeats(keys: set[str]) -> set[str]:
    """Leaves out what repeats another of these metrics in another unit."""
    return {key for key in keys if _REPEATS.get(key) not in keys}


def format_value(value: float | None) -> str:
    """A number with as many digits as a reader wants; tells NaN and infinity."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size >= 10_000:
        text = f"{value:,.0f}"
    elif size >= 100:
        text = f"{value:,.1f}"
    elif size >= 10:
        text = f"{value:.2f}"
    elif size >= 0.001 or size == 0:
        text = f"{value:.4f}"
    else:
        text = f"{value:.2e}"
    return text.replace("-", "−")
