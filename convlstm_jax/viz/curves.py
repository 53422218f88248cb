"""Curves: metrics per lead time and the course of training."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.metrics.baselines import contender_label
from convlstm_jax.metrics.registry import find_metric, in_order, without_repeats
from convlstm_jax.viz.pixels import FAINT_TEXT, GRID, PREDICTION_COLOUR, TEXT

# The model is drawn in blue on top; baselines are broken lines in calmer colours.
_MODEL = {"color": PREDICTION_COLOUR, "linewidth": 2.2, "markersize": 4, "zorder": 3}
_BASELINE_COLOURS = ("#e0862c", "#8a93a3", "#0f9d6e", "#b34fc4", "#c2453f")
_BASELINE_STYLES = ("--", ":", "-.")
_SPLIT_COLOURS = {"train": "#8a93a3", "validation": PREDICTION_COLOUR}
# Above this ratio of largest to smallest value an axis becomes logarithmic.
_LOG_RATIO = 30.0
_CSV_HEADER = ["step", "split", "metric", "value"]


def metric_curves(
    out_png: str | Path,
    per_lead_time: Mapping[str, Mapping[str, Sequence[float | None]]],
    *,
    minutes_per_frame: float | None = None,
) -> None:
    """Plots every metric over the lead time, the model beside its baselines.

    One panel a metric, in the registry's order; a metric that repeats another one in
    another unit is left out. Values that are not finite leave a gap; a panel without
    any finite value says so. An axis is logarithmic where positive values span more
    than a factor of 30.

    Args:
        out_png: The picture to write.
        per_lead_time: Contender ("model", "copy_last", ...) → metric → values
            `[T_out]`, the first for lead time 1. A contender may lack a metric.
        minutes_per_frame: Time from one frame to the next; without it the lead time is
            in frames.

    Raises:
        UserError: There is no metric at all, or the file cannot be written.
    """
    metrics = without_repeats({key for of in per_lead_time.values() for key in of})
    if not metrics:
        raise UserError("per_lead_time is empty: it must hold at least one metric")
    unit = "minutes" if minutes_per_frame else "frames"
    figure = _Panels(in_order(metrics), f"lead time ({unit})")
    styles: dict[str, dict[str, Any]] = {"model": _MODEL}
    for index, contender in enumerate(key for key in per_lead_time if key != "model"):
        styles[contender] = {
            "color": _BASELINE_COLOURS[index % len(_BASELINE_COLOURS)],
            "linestyle": _BASELINE_STYLES[index % len(_BASELINE_STYLES)],
            "linewidth": 1.6,
            "markersize": 2.5,
        }
    for contender, of in per_lead_time.items():
        for metric in metrics & of.keys():
            values = _finite(of[metric])
            times = np.arange(1, len(values) + 1) * (minutes_per_frame or 1)
            label = contender_label(contender)
            figure.plot(metric, label, times, values, marker="o", **styles[contender])
    figure.save(out_png)


def learning_curves(csv_path: str | Path, out_png: str | Path) -> None:
    """Plots the metrics of a training run over its steps.

    One panel a metric, one curve a split. Curves of more than 100 points are drawn
    faintly under their running mean.

    Args:
        csv_path: The file of metrics, see `read_metrics`.
        out_png: The picture to write.

    Raises:
        UserError: The file of metrics is not as it must be, or the picture cannot be
            written.
    """
    table = read_metrics(csv_path)
    metrics = without_repeats({metric for metric, _ in table})
    figure = _Panels(in_order(metrics), "training step")
    for (metric, split), course in table.items():
        if metric not in metrics:
            continue
        steps = np.array(sorted(course), float)
        values = _finite([course[int(step)] for step in steps])
        style: dict[str, Any] = {"color": _SPLIT_COLOURS.get(split, "#e0862c")}
        if len(values) > 100:
            figure.plot(metric, "", steps, values, linewidth=0.8, alpha=0.3, **style)
            values = _running_mean(values)
        marker = "o" if len(values) <= 30 else ""
        style |= {"linewidth": 1.8, "marker": marker, "markersize": 3.5}
        figure.plot(metric, split, steps, values, **style)
    figure.save(out_png)


def read_metrics(csv_path: str | Path) -> dict[tuple[str, str], dict[int, float]]:
    """Reads a file of metrics: (metric, split) → step → value.

    Its header is `step,split,metric,value`. Of a step that was written twice, after a
    restart, the later value counts. A last line that breaks off, as a killed run leaves
    it, is ignored.

    Raises:
        UserError: The file is missing, has another header, no values or a line that is
            not as above.
    """
    try:
        # A killed run may leave half a character at the end.
        text = Path(csv_path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(
            f"'{csv_path}' cannot be read ({error.strerror}): it must be a file of "
            f"metrics with the header {','.join(_CSV_HEADER)}"
        ) from error
    rows = list(csv.reader(text.splitlines()))
    if not rows or rows[0] != _CSV_HEADER:
        raise UserError(
            f"'{csv_path}' has the header '{','.join(rows[0]) if rows else ''}': it "
            f"must be '{','.join(_CSV_HEADER)}'"
        )
    if not text.endswith("\n"):
        rows = rows[:-1] or rows
    table: dict[tuple[str, str], dict[int, float]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        try:
            step, split, metric, value = row
            table.setdefault((metric, split), {})[int(step)] = float(value)
        except ValueError as error:
            raise UserError(
                f"'{csv_path}' has '{','.join(row)}' in line {number}: it must be a "
                "step, a split, a metric and a number"
            ) from error
    if not table:
        raise UserError(f"'{csv_path}' holds no value: it must have at least one line")
    return table


def _running_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the finite ones of a fortieth of the values around each."""
    window = np.ones(max(3, len(values) // 40))
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0.0), window, mode="same")
    count = np.convolve(known.astype(float), window, mode="same")
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def _finite(values: Sequence[float | None]) -> np.ndarray:
    """Values as floats, with a gap (NaN) for all that is None, NaN or infinite."""
    array = np.array([math.nan if value is None else value for value in values], float)
    return np.where(np.isfinite(array), array, np.nan)


class _Panels:
    """A figure with one panel for each metric, at most three in a row."""

    def __init__(self, metrics: Sequence[str], x_label: str):
        count = len(metrics)
        columns = count if count <= 3 else (2 if count == 4 else 3)
        rows = -(-count // columns)
        size = (3.7 * columns, 2.9 * rows + 0.6)
        # A Figure of its own, not pyplot's, keeps no global state and needs no screen.
        self._figure = Figure(figsize=size, layout="constrained")
        self._figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr, call-arg]
        grid = self._figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[count:]:
            axes.set_visible(False)
        self._axes = dict(zip(metrics, grid, strict=False))
        self._x_label = x_label
        self._handles: dict[str, Any] = {}

    def plot(
        self, metric: str, label: str, x: np.ndarray, y: np.ndarray, **style: Any
    ) -> None:
        """Draws a curve, which the legend names unless the label is empty."""
        (line,) = self._axes[metric].plot(x, y, **style)
        if label:
            self._handles.setdefault(label, line)

    def save(self, path: str | Path) -> None:
        """Finishes the panels and writes the picture."""
        for key, axes in self._axes.items():
            self._finish(axes, key)
        self._figure.legend(
            self._handles.values(), self._handles.keys(), loc="outside lower center",
            ncols=min(5, len(self._handles)), frameon=False, fontsize=9,
            labelcolor=TEXT,
        )  # fmt: skip
        with atomic_file(path) as partial:
            self._figure.savefig(partial, dpi=120, format="png")

    def _finish(self, axes: Any, key: str) -> None:
        metric = find_metric(key)
        values = np.concatenate([line.get_ydata() for line in axes.lines])
        values = values[np.isfinite(values)]
        if not len(values):
            axes.text(
                0.5, 0.5, "no finite value", color=FAINT_TEXT, ha="center", va="center",
                transform=axes.transAxes,
            )  # fmt: skip
        # What stays below 1 is a score, which would look wild on a logarithmic axis.
        elif values.min() > 0 and values.max() > max(1, _LOG_RATIO * values.min()):
            axes.set_yscale("log")
        title = f"{metric.label} {metric.arrow}".strip()
        axes.set_title(title, color=TEXT, fontsize=11, fontweight="bold", loc="left")
        axes.set_ylabel(metric.unit, color=FAINT_TEXT, fontsize=9)
        axes.set_xlabel(self._x_label, color=FAINT_TEXT, fontsize=9)
        ticks = 6 if "lead" in self._x_label else 5
        axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True, min_n_ticks=1))
        axes.tick_params(colors=FAINT_TEXT, labelsize=8, length=0, which="both")
        axes.grid(True, color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(GRID)
