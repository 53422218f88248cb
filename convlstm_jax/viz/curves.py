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
from convlstm_jax.viz.metric_names import (
    in_order,
    metric_name,
    series_name,
    without_repeats,
)

_TEXT = "#1f2430"
_FAINT = "#7a8190"
_GRID = "#e6e9ef"
# The model is drawn in blue; baselines follow in calmer colours.
_MODEL_COLOUR = "#2f6fed"
_BASELINE_COLOURS = ("#e0862c", "#8a93a3", "#0f9d6e", "#b34fc4", "#c2453f")
_BASELINE_STYLES = ("--", ":", "-.")
_SPLIT_COLOURS = {"train": "#8a93a3", "validation": "#2f6fed", "test": "#0f9d6e"}
# Above this ratio of largest to smallest value an axis becomes logarithmic.
_LOG_RATIO = 30.0
_CSV_HEADER = ["step", "split", "metric", "value"]


def metric_curves(
    out_png: str | Path,
    per_lead_time: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    title: str = "",
    minutes_per_frame: float | None = None,
) -> None:
    """Plots every metric over the lead time, the model beside its baselines.

    One small panel a metric, in the order MSE, MAE, SSIM, PSNR, cross-entropy, others;
    a metric that repeats another one in another unit is left out.
    Values that are not finite leave a gap; a panel without any finite value says so. An
    axis is logarithmic where positive values span more than a factor of 30.

    Args:
      out_png: The picture to write.
      per_lead_time: series ("model", "copy_last", ...) → metric → values [T_out], the
        first for lead time 1. A series may lack a metric.
      title: A line above the panels, if not empty.
      minutes_per_frame: Time from one frame to the next; the lead time is in frames
        where none is given.

    Raises:
      UserError: There is no metric at all, or the file cannot be written.
    """
    metrics = in_order(
        without_repeats({key for values in per_lead_time.values() for key in values})
    )
    if not metrics:
        raise UserError("per_lead_time is empty, but must hold at least one metric.")
    figure, panels = _panels(len(metrics), title)
    styles = _series_styles(list(per_lead_time))
    handles: dict[str, Any] = {}
    for axes, metric in zip(panels, metrics, strict=True):
        name = metric_name(metric)
        drawn = []
        for series, values_by_metric in per_lead_time.items():
            if metric not in values_by_metric:
                continue
            values = _finite(values_by_metric[metric])
            drawn.append(values)
            lead_times = np.arange(1, len(values) + 1) * (minutes_per_frame or 1)
            (line,) = axes.plot(lead_times, values, **styles[series])
            handles.setdefault(series_name(series), line)
        _finish_panel(axes, f"{name.label} {name.arrow}", name.unit, drawn)
        unit = "minutes" if minutes_per_frame else "frames"
        axes.set_xlabel(f"lead time ({unit})")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    _save(figure, handles, out_png)


def learning_curves(csv_path: str | Path, out_png: str | Path) -> None:
    """Plots the metrics of a training run over its steps.

    The CSV file has the header `step,split,metric,value`; split is "train" or
    "validation" (others are drawn, too). One panel a metric. Of a step that was written
    twice, after a restart, the later value counts. A last line that breaks off, as a
    killed run leaves it, is passed over. Curves of more than 100 points are drawn
    faintly under their running mean.

    Args:
      csv_path: The file of metrics.
      out_png: The picture to write.

    Raises:
      UserError: The CSV file is missing, has another header, no values or a line that
        is not as above, or the picture cannot be written.
    """
    table = read_metrics(csv_path)
    metrics = in_order(without_repeats({metric for metric, _ in table}))
    figure, panels = _panels(len(metrics), "")
    handles: dict[str, Any] = {}
    for axes, metric in zip(panels, metrics, strict=True):
        name = metric_name(metric)
        drawn = []
        for (key, split), course in table.items():
            if key != metric:
                continue
            steps = np.array(sorted(course), dtype=float)
            values = _finite([course[int(step)] for step in steps])
            drawn.append(values)
            line = _draw_course(axes, steps, values, split)
            handles.setdefault(split, line)
        _finish_panel(axes, f"{name.label} {name.arrow}".strip(), name.unit, drawn)
        axes.set_xlabel("training step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    _save(figure, handles, out_png)


def read_metrics(csv_path: str | Path) -> dict[tuple[str, str], dict[int, float]]:
    """Reads a file of metrics: (metric, split) → step → value.

    Raises:
      UserError: As for `learning_curves`.
    """
    try:
        # A killed run may leave half a character at the end.
        text = Path(csv_path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(
            f"'{csv_path}' cannot be read ({error.strerror}), but must be a file of "
            f"metrics with the header {','.join(_CSV_HEADER)}."
        ) from error
    rows = list(csv.reader(text.splitlines()))
    if not rows or rows[0] != _CSV_HEADER:
        raise UserError(
            f"'{csv_path}' has the header '{','.join(rows[0]) if rows else ''}', but "
            f"must have '{','.join(_CSV_HEADER)}'."
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
                f"'{csv_path}' has '{','.join(row)}' in line {number}, but must have "
                "a step, a split, a metric and a number there."
            ) from error
    if not table:
        raise UserError(f"'{csv_path}' holds no value, but needs at least one line.")
    return table


def _draw_course(axes: Any, steps: np.ndarray, values: np.ndarray, split: str) -> Any:
    colour = _SPLIT_COLOURS.get(split, "#e0862c")
    if len(values) <= 100:
        marker = "o" if len(values) <= 30 else ""
        (line,) = axes.plot(
            steps, values, color=colour, linewidth=1.8, marker=marker, markersize=3.5
        )
        return line
    axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.3)
    width = max(3, len(values) // 40)
    known = np.isfinite(values)
    window = np.ones(width)
    total = np.convolve(np.where(known, values, 0.0), window, mode="same")
    count = np.convolve(known.astype(float), window, mode="same")
    mean = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    (line,) = axes.plot(steps, mean, color=colour, linewidth=1.8)
    return line


def _finite(values: Sequence[float]) -> np.ndarray:
    """Values as floats, with a gap (NaN) for all that is None, NaN or infinite."""
    array = np.array([math.nan if v is None else float(v) for v in values])
    return np.where(np.isfinite(array), array, np.nan)


def _series_styles(keys: list[str]) -> dict[str, dict[str, Any]]:
    """The model as a solid blue line on top, the others broken."""
    styles: dict[str, dict[str, Any]] = {}
    others = [key for key in keys if key != "model"]
    for index, key in enumerate(others):
        styles[key] = {
            "color": _BASELINE_COLOURS[index % len(_BASELINE_COLOURS)],
            "linestyle": _BASELINE_STYLES[index % len(_BASELINE_STYLES)],
            "linewidth": 1.6,
            "marker": "o",
            "markersize": 2.5,
        }
    styles["model"] = {
        "color": _MODEL_COLOUR,
        "linewidth": 2.2,
        "marker": "o",
        "markersize": 4,
        "zorder": 3,
    }
    return styles


def _panels(count: int, title: str) -> tuple[Figure, list[Any]]:
    """An even arrangement of panels, at most three in a row."""
    columns = count if count <= 3 else (2 if count == 4 else 3)
    rows = -(-count // columns)
    # A Figure of its own, not pyplot's, keeps no global state and needs no screen.
    figure = Figure(figsize=(3.7 * columns, 2.9 * rows + 0.6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    if title:
        figure.suptitle(title, color=_TEXT, fontsize=13, fontweight="bold")
    grid = np.asarray(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, list(grid[:count])


def _finish_panel(axes: Any, title: str, unit: str, drawn: list[np.ndarray]) -> None:
    values = np.concatenate(drawn)
    values = values[np.isfinite(values)]
    if not len(values):
        axes.text(
            0.5,
            0.5,
            "no finite value",
            color=_FAINT,
            ha="center",
            va="center",
            transform=axes.transAxes,
        )
    # What stays below 1 is a score, which would look wild on a logarithmic axis.
    elif values.min() > 0 and values.max() > max(1, _LOG_RATIO * values.min()):
        axes.set_yscale("log")
    axes.set_title(
        title.strip(), color=_TEXT, fontsize=11, fontweight="bold", loc="left"
    )
    axes.set_ylabel(unit, color=_FAINT, fontsize=9)
    axes.xaxis.label.set(color=_FAINT, fontsize=9)
    axes.tick_params(colors=_FAINT, labelsize=8, length=0, which="both")
    axes.grid(True, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_GRID)


def _save(figure: Figure, handles: dict[str, Any], out_png: str | Path) -> None:
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=min(5, len(handles)),
        frameon=False,
        fontsize=9,
        labelcolor=_TEXT,
    )
    with atomic_file(out_png) as partial:
        figure.savefig(partial, dpi=120, format="png")
