"""Plots of ensembles: rank histogram, reliability, ROC, and spectra of rain fields."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.metrics.baselines import contender_label
from convlstm_jax.viz import pixels as px
from convlstm_jax.viz.plots import contender_styles, finish_axes

_NO_SKILL: Any = {"color": px.FAINT_TEXT, "linewidth": 0.8, "linestyle": (0, (1, 2))}
_MIN_CASES = 10  # Of a point of a reliability diagram, as in pysteps.
_MAX_THRESHOLDS = 3


def ensemble_diagrams(
    path: str | Path, diagrams_by_contender: Mapping[str, Mapping[str, Any]]
) -> None:
    """Draws `diagrams` of `summarize_ensemble` by contender, up to three thresholds.

    The rank histogram above, then reliability and ROC, a panel for each threshold.
    Forecasts of a single member have none, and those without diagrams are left out.
    """
    styles = contender_styles(diagrams_by_contender)
    ensembles = {
        name: diagrams
        for name, diagrams in diagrams_by_contender.items()
        if len(diagrams.get("rank_histogram", ())) > 2
    }
    if not ensembles:
        raise UserError(
            "diagrams_by_contender has no forecast of several members: it must have one"
        )
    first = next(iter(ensembles.values()))
    rates = [one["threshold_mm_per_h"] for one in first["roc"][:_MAX_THRESHOLDS]]
    figure = Figure(figsize=(max(3.5 * len(rates), 6), 9.6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    grid = figure.add_gridspec(3, len(rates), height_ratios=(0.75, 1, 1))
    ranks = figure.add_subplot(grid[0, :])
    for name, diagrams in ensembles.items():
        _draw_ranks(ranks, diagrams["rank_histogram"], name, styles[name])
    finish_axes(ranks, "Rank histogram")
    ranks.set(xlabel="members below what was observed", ylabel="frequency")
    ranks.set_ylim(bottom=0)
    ranks.xaxis.set_major_locator(MaxNLocator(integer=True))
    for column, rate in enumerate(rates):
        reliability = figure.add_subplot(grid[1, column])
        roc = figure.add_subplot(grid[2, column])
        for name, diagrams in ensembles.items():
            _draw_reliability(
                reliability, diagrams["reliability"][column], styles[name]
            )
            _draw_roc(roc, diagrams["roc"][column], styles[name])
        reliability.set_xlabel("forecast probability")
        roc.set_xlabel("probability of false detection")
        if column == 0:
            reliability.set_ylabel("observed frequency")
            roc.set_ylabel("probability of detection")
        for axes, title in ((reliability, "Reliability"), (roc, "ROC")):
            axes.plot((0, 1), (0, 1), **_NO_SKILL)
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
            finish_axes(axes, f"{title} at {rate:g} mm/h")
        roc.legend(loc="lower right", frameon=False, fontsize=8, labelcolor="linecolor")
    _save(figure, path, ranks)


def _draw_ranks(axes, histogram: list[float | None], name: str, style: Any) -> None:
    count = len(histogram)
    look = {key: of for key, of in style.items() if key != "markersize"}
    axes.stairs(
        _floats(histogram), np.arange(count + 1) - 0.5, baseline=None,
        label=contender_label(name), **look,
    )  # fmt: skip
    axes.plot((-0.5, count - 0.5), (1 / count, 1 / count), **_NO_SKILL)
    axes.margins(x=0.01)


def _draw_reliability(axes, diagram: Mapping[str, Any], style: Any) -> None:
    kept = _floats(diagram["cases"]) >= _MIN_CASES
    points = (diagram["forecast_probability"], diagram["observed_frequency"])
    axes.plot(*(_floats(of)[kept] for of in points), marker="o", **style)


def _draw_roc(axes, diagram: Mapping[str, Any], style: Any) -> None:
    pofd, pod = _floats(diagram["pofd"]), _floats(diagram["pod"])
    area = -np.trapezoid(pod, pofd)
    label = "no event" if np.isnan(area) else f"area {area:.3f}"
    axes.plot(pofd, pod, marker="o", label=label, **style)


def power_spectrum(fields: NDArray) -> NDArray[np.float64]:
    """The radially averaged power spectrum of fields `[..., H, W]`, their mean.

    By the number of waves on the longer side L, rounded, from 0 up to but not with
    L / 2. As pysteps does it (Ruzanski and Chandrasekar 2011,
    10.1109/TGRS.2010.2103946), whose wavelengths hold for square fields alone.
    """
    height, width = fields.shape[-2:]
    power = np.abs(np.fft.fft2(fields)) ** 2 / (height * width)
    longer = max(height, width)
    waves = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)) * longer
    rings = np.rint(waves).astype(int).ravel()
    mean = power.reshape(-1, height * width).mean(axis=0)
    sums, counts = np.bincount(rings, mean), np.bincount(rings)
    return (sums / counts)[: (longer + 1) // 2]


def draw_power_spectra(
    path: str | Path, spectra_by_name: Mapping[str, NDArray], km_per_pixel: float
) -> None:
    """Draws spectra of `power_spectrum` by wavelength; what was "observed" is black.

    With 0 km per pixel, which stands for unknown, wavelengths are in pixels.
    """
    styles = contender_styles(name for name in spectra_by_name if name != "observed")
    styles["observed"] = {"color": "#000000", "linewidth": 2.2, "zorder": 4}
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    for name, spectrum in spectra_by_name.items():
        # Of an odd side it is one pixel less, which nobody sees.
        longest = 2 * len(spectrum) * (km_per_pixel or 1)
        wavelengths = longest / np.arange(1, len(spectrum))
        label = contender_label(name)
        axes.loglog(wavelengths, spectrum[1:], label=label, **styles[name])
    axes.invert_xaxis()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    finish_axes(axes, "Radially averaged power spectrum")
    unit = "km" if km_per_pixel else "pixels"
    axes.set(xlabel=f"wavelength ({unit})", ylabel="power")
    _save(figure, path, axes)


def _floats(values: list[float | None]) -> NDArray[np.float64]:
    return np.array(values, np.float64)  # None becomes NaN.


def _save(figure: Figure, path: str | Path, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(5, len(labels)),
        frameon=False, fontsize=9, labelcolor=px.TEXT,
    )  # fmt: skip
    with atomic_file(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
