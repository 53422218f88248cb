"""Plots: metrics by lead time and step, confusion matrices, space–time correlation."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.metrics.baselines import contender_label
from convlstm_jax.metrics.registry import find_metric, in_order, ratio, without_repeats
from convlstm_jax.viz import pixels as px

# The model is drawn in blue on top; baselines are broken lines in calmer colours.
_MODEL = {"color": px.PREDICTION_COLOUR, "linewidth": 2.2, "markersize": 4, "zorder": 3}
_BASELINE_COLOURS = ("#e0862c", "#8a93a3", "#0f9d6e", "#b34fc4", "#c2453f")
_BASELINE_STYLES = ("--", ":", "-.")
_SPLIT_COLOURS = {"train": "#8a93a3", "validation": px.PREDICTION_COLOUR}
_CSV_HEADER = "step,split,metric,value"
_CONTOURS = (0.2, 0.4, 0.6, 0.8)


class _Curve(NamedTuple):
    metric: str
    label: str  # in the legend, unless empty
    x: np.ndarray
    y: np.ndarray
    style: Mapping[str, Any]


def metric_curves(
    out_png: str | Path,
    per_lead_time: Mapping[str, Mapping[str, Sequence[float | None]]],
    *,
    minutes_per_frame: float | None = None,
) -> None:
    """Plots contender → metric → values by lead time, the model beside its baselines.

    One panel a metric, in the registry's order; a metric that repeats another one in
    another unit is left out. Values that are not finite leave a gap.
    """
    metrics = without_repeats({key for of in per_lead_time.values() for key in of})
    if not metrics:
        raise UserError("per_lead_time is empty: it must hold at least one metric")
    styles, curves = contender_styles(per_lead_time), []
    for contender, of in per_lead_time.items():
        style = styles[contender] | {"marker": "o"}
        for metric in metrics & of.keys():
            values = _finite(of[metric])
            times = np.arange(1, len(values) + 1) * (minutes_per_frame or 1)
            label = contender_label(contender)
            curves.append(_Curve(metric, label, times, values, style))
    unit = "minutes" if minutes_per_frame else "frames"
    _draw_panels(out_png, curves, f"lead time ({unit})", num_ticks=6)


def contender_styles(contenders: Iterable[str]) -> dict[str, dict[str, Any]]:
    """How lines of a model and of baselines look, in the order of their names."""
    looks = zip(cycle(_BASELINE_COLOURS), cycle(_BASELINE_STYLES), strict=False)
    styles = {}
    for name in contenders:
        styles[name] = _MODEL
        if name != "model":
            colour, line = next(looks)
            styles[name] = {"color": colour, "linestyle": line}
            styles[name] |= {"linewidth": 1.6, "markersize": 2.5}
    return styles


def learning_curves(csv_path: str | Path, out_png: str | Path) -> None:
    """Plots a file of metrics over the steps: a panel a metric, a curve a split."""
    table = read_metrics(csv_path)
    metrics = without_repeats({metric for metric, _ in table})
    curves = []
    for (metric, split), course in table.items():
        if metric not in metrics:
            continue
        steps = np.array(sorted(course), float)
        values = _finite([course[int(step)] for step in steps])
        style: dict[str, Any] = {"color": _SPLIT_COLOURS.get(split, "#e0862c")}
        if len(values) > 100:
            faint = style | {"linewidth": 0.8, "alpha": 0.3}
            curves.append(_Curve(metric, "", steps, values, faint))
            values = _running_mean(values)
        marker = "o" if len(values) <= 30 else ""
        style |= {"linewidth": 1.8, "marker": marker, "markersize": 3.5}
        curves.append(_Curve(metric, split, steps, values, style))
    _draw_panels(out_png, curves, "training step", num_ticks=5)


def read_metrics(csv_path: str | Path) -> dict[tuple[str, str], dict[int, float]]:
    """Reads a CSV file `step,split,metric,value`: (metric, split) → step → value.

    Of a step that was written twice the later value counts. A last line that breaks
    off, as a killed run leaves it, is ignored.
    """
    table: dict[tuple[str, str], dict[int, float]] = {}
    number, line = 1, ""
    try:
        # A killed run may leave half a character at the end.
        text = Path(csv_path).read_text(encoding="utf-8", errors="replace")
        lines = text[: text.rfind("\n") + 1].splitlines()
        for number, line in enumerate(lines, start=1):
            if number > 1 and line:
                step, split, metric, value = line.split(",")
                table.setdefault((metric, split), {})[int(step)] = float(value)
            elif number == 1 and line != _CSV_HEADER:
                raise ValueError(line)
        if not table:
            raise ValueError("no values")
    except OSError as error:
        raise UserError(
            f"'{csv_path}' cannot be read ({error.strerror}): it must be a file of "
            f"metrics with the header {_CSV_HEADER}"
        ) from error
    except ValueError as error:
        raise UserError(
            f"'{csv_path}' has '{line}' in line {number}: below the header "
            f"{_CSV_HEADER} it must have lines that end in a number"
        ) from error
    return table


def _running_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the finite ones of a fortieth of the values around each."""
    window = np.ones(max(3, len(values) // 40))
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0.0), window, mode="same")
    return ratio(total, np.convolve(known.astype(float), window, mode="same"))


def _finite(values: Sequence[float | None]) -> np.ndarray:
    """Values as floats, with a gap (NaN) for all that is None, NaN or infinite."""
    array = np.array([math.nan if value is None else value for value in values], float)
    return np.where(np.isfinite(array), array, np.nan)


def _draw_panels(
    path: str | Path, curves: Sequence[_Curve], x_label: str, num_ticks: int
) -> None:
    """One panel for each metric, at most three in a row, and a legend below."""
    metrics = in_order({curve.metric for curve in curves})
    count = len(metrics)
    columns = count if count <= 3 else (2 if count == 4 else 3)
    rows = -(-count // columns)
    # A Figure of its own, not pyplot's, keeps no global state and needs no screen.
    figure = Figure(figsize=(3.7 * columns, 2.9 * rows + 0.6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_visible(False)
    panels = dict(zip(metrics, grid, strict=False))
    handles: dict[str, Any] = {}
    for curve in curves:
        (line,) = panels[curve.metric].plot(curve.x, curve.y, **curve.style)
        if curve.label:
            handles.setdefault(curve.label, line)
    for key, axes in panels.items():
        _finish_panel(axes, key)
        axes.set_xlabel(x_label)
        ticks = MaxNLocator(num_ticks, integer=True, min_n_ticks=1)
        axes.xaxis.set_major_locator(ticks)
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center",
        ncols=min(5, len(handles)), frameon=False, fontsize=9, labelcolor=px.TEXT,
    )  # fmt: skip
    with atomic_file(path) as partial:
        figure.savefig(partial, dpi=120, format="png")


def _finish_panel(axes: Any, key: str) -> None:
    values = np.concatenate([line.get_ydata() for line in axes.lines])
    values = values[np.isfinite(values)]
    if not len(values):
        axes.text(
            0.5, 0.5, "no finite value", color=px.FAINT_TEXT, ha="center", va="center",
            transform=axes.transAxes,
        )  # fmt: skip
    # What stays below 1 is a score, which would look wild on a logarithmic axis.
    elif values.min() > 0 and values.max() > max(1, 30 * values.min()):
        axes.set_yscale("log")
    metric = find_metric(key)
    title = f"{metric.label} {metric.arrow}".strip()
    axes.set_ylabel(metric.unit)
    finish_axes(axes, title)


def finish_axes(axes: Any, title: str) -> None:
    """A bold title, faint labels and a grid."""
    axes.set_title(title, color=px.TEXT, fontsize=11, fontweight="bold", loc="left")
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=px.FAINT_TEXT, fontsize=9)
    axes.tick_params(colors=px.FAINT_TEXT, labelsize=8, length=0, which="both")
    axes.grid(True, color=px.GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(px.GRID)


def confusion_matrix(
    out_png: str | Path, confusion: ArrayLike, classes: Sequence[str]
) -> None:
    """Draws the clips of each true class, the rows, by predicted class, with shares."""
    from sklearn.metrics import ConfusionMatrixDisplay  # Takes a second to import.

    counts = np.asarray(confusion, float)
    support = counts.sum(axis=1, keepdims=True)
    shares = ratio(counts, support)
    # Cells of 1.1 down to 0.55 inches.
    num_classes = len(classes)
    cell = 1.1 if num_classes <= 4 else 0.7 if num_classes <= 8 else 0.55
    figure = Figure(figsize=(num_classes * cell, num_classes * cell))
    axes = figure.add_axes((0, 0, 1, 1))
    blues = LinearSegmentedColormap.from_list("", [px.BACKGROUND, px.PREDICTION_COLOUR])
    display = ConfusionMatrixDisplay(shares)
    display.plot(
        ax=axes, cmap=blues.with_extremes(bad="#f1f3f6"), colorbar=False,
        im_kw={"vmin": 0, "vmax": 1},
        text_kw={"fontsize": 11 if num_classes <= 8 else 7, "linespacing": 1.3},
    )  # fmt: skip
    for (row, column), text in np.ndenumerate(display.text_):
        count, share = counts[row, column], shares[row, column]
        text.set_text(f"{count:,.0f}\n{_percent(float(share))}" if count else "")
        text.set_color(px.BACKGROUND if share > 0.75 else px.TEXT)
    _label(axes, [px.shortened(name, 28) for name in classes], support.ravel())
    correct, total = np.trace(counts), counts.sum()
    axes.set_title(
        f"Accuracy {100 * correct / total:.1f} %",
        color=px.TEXT, fontsize=13, fontweight="bold", loc="left", pad=22,
    )  # fmt: skip
    axes.annotate(
        f"{correct:,.0f} of {total:,.0f} clips",
        (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points",
        color=px.FAINT_TEXT, fontsize=9,
    )  # fmt: skip
    with atomic_file(out_png) as partial:
        # Names and titles may be wider than the matrix.
        figure.savefig(
            partial, dpi=120, format="png", bbox_inches="tight", pad_inches=0.15
        )


def _label(axes, names: list[str], support: np.ndarray) -> None:
    places = range(len(names))
    rows = [
        f"{name} ({clips:,.0f})" for name, clips in zip(names, support, strict=True)
    ]
    slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    wide = len(names) > 4 or max(map(len, names)) > 10
    # A name is no formula, whatever dollar signs it has.
    axes.set_yticks(places, rows, parse_math=False)
    axes.set_xticks(places, names, parse_math=False, **(slanted if wide else {}))
    axes.set_ylabel("true class (clips)", color=px.FAINT_TEXT, fontsize=10, labelpad=10)
    axes.set_xlabel("predicted class", color=px.FAINT_TEXT, fontsize=10, labelpad=10)
    axes.tick_params(labelcolor=px.TEXT, labelsize=10, length=0)
    # Thin lines between the cells.
    axes.set_xticks([place - 0.5 for place in places][1:], minor=True)
    axes.set_yticks([place - 0.5 for place in places][1:], minor=True)
    axes.grid(which="minor", color="#d5dae3", linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_color("#c9ced8")


def _percent(share: float) -> str:
    """An integer; 0 and 100 stand for none and all alone."""
    text = f"{100 * share:.0f}"
    if 0 < share < 1:
        text = {"0": "<1", "100": ">99"}.get(text, text)
    return f"{text} %"


def space_time_correlation(clips: NDArray, axis: int) -> NDArray[np.float64]:
    """The two-point correlation of clips, which shows how fast patterns move.

        R(ξ, τ) = ⟨u'(x, t) u'(x + ξ, t + τ)⟩ / ⟨u'²⟩,    u' = u − ⟨u⟩

    Of clips `[N, T, H, W, C]`, for displacements ξ along axis 2, downwards, or 3, to
    the right, and time lags τ: `[T // 2 + 1, 2 * (S // 2) + 1]` with row τ, column
    ξ + S // 2 for the S pixels along the axis. All is NaN where the clips are constant.
    A pattern carried along leaves a ridge whose slope is its velocity.
    """
    clips = np.asarray(clips)
    values = np.moveaxis(clips, (1, axis), (0, -1)).astype(np.float64)
    values = values.reshape(*values.shape[:1], -1, values.shape[-1])  # [T, lines, S]
    length, lines, size = values.shape
    values = values - values.mean()
    variance = np.square(values).mean()
    # Pairs further apart than half the frame or the film are few.
    half, lags = size // 2, length // 2 + 1
    if not variance > 0:
        return np.full((lags, 2 * half + 1), np.nan)
    # Correlations as products of spectra; zeros behind keep the ends apart.
    spectra = np.fft.rfft(values, 2 * size, axis=-1)
    displacements = np.arange(-half, half + 1)
    pairs = lines * (size - np.abs(displacements))
    rows = []
    for lag in range(lags):
        earlier, later = spectra[: length - lag], spectra[lag:]
        spectrum = (earlier.conj() * later).sum((0, 1))
        sums = np.fft.irfft(spectrum, 2 * size)[displacements]
        rows.append(sums / (pairs * (length - lag) * variance))
    return np.stack(rows)


def draw_space_time_correlation(path: str | Path, films: Mapping[str, NDArray]) -> None:
    """Draws R(ξ, τ) of films `[N, T, H, W, C]`, a row of panels for each axis."""
    figure = Figure(figsize=(3.6 * len(films) + 0.9, 5.8), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    panels = figure.subplots(2, len(films), squeeze=False, sharex="row", sharey="row")
    rows = ((3, "to the right"), (2, "downwards"))
    for row, (axis, direction) in zip(panels, rows, strict=True):
        for axes, (name, film) in zip(row, films.items(), strict=True):
            image = _draw_panel(axes, space_time_correlation(film, axis))
            axes.set_title(name, color=px.TEXT, fontsize=11, fontweight="bold")
            axes.set_xlabel(f"displacement {direction} (pixels)")
        row[0].set_ylabel("time lag (frames)")
    bar = figure.colorbar(image, ax=panels, shrink=0.7, aspect=30)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=px.FAINT_TEXT, labelsize=8, length=0)
    bar.set_label("correlation", color=px.FAINT_TEXT, fontsize=9)
    with atomic_file(path) as partial:
        figure.savefig(partial, dpi=110, format="png")


def _draw_panel(axes, correlation: NDArray):
    lags, columns = correlation.shape
    half = columns // 2
    displacements, times = np.arange(-half, half + 1), np.arange(lags)
    image = axes.pcolormesh(
        displacements, times, correlation, cmap="RdBu_r", vmin=-1, vmax=1
    )
    if np.isnan(correlation).all():
        axes.text(0.5, 0.5, "the same everywhere", color=px.FAINT_TEXT, ha="center",
                  va="center", transform=axes.transAxes)  # fmt: skip
    else:
        axes.contour(displacements, times, correlation, _CONTOURS, colors=px.TEXT,
                     linewidths=0.7, alpha=0.6)  # fmt: skip
        peaks = correlation.argmax(axis=1)
        kept = np.cumprod(correlation.max(axis=1) > _CONTOURS[0]).astype(bool)
        axes.plot(displacements[peaks[kept]], times[kept], color="#ffffff",
                  linewidth=1.5, marker="o", markersize=3)  # fmt: skip
    axes.xaxis.label.set(color=px.FAINT_TEXT, fontsize=9)
    axes.yaxis.label.set(color=px.FAINT_TEXT, fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.tick_params(colors=px.FAINT_TEXT, labelsize=8, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image
