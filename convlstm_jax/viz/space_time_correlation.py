"""The two-point correlation of a film in space and time: what moves, how fast, how far.

    R(ξ, τ) = ⟨u'(x, t) u'(x + ξ, t + τ)⟩ / ⟨u'²⟩,    u' = u − ⟨u⟩

ξ is a displacement along one axis of the frame and τ a time lag. A pattern carried
along leaves a ridge whose slope is its velocity; how R falls off tells the size of what
is seen, and along the ridge how long it lives. A forecast that blurs has too broad a
peak, one that is wrong about the motion another slope.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.viz.pixels import FAINT_TEXT, TEXT

_HEIGHT, _WIDTH = 2, 3
_CONTOURS = (0.2, 0.4, 0.6, 0.8)
# Of more rows (or columns) than this an even selection is drawn from, to save time.
_MAX_LINES = 64


def space_time_correlation(clips: NDArray, axis: int) -> NDArray[np.float64]:
    """R(ξ, τ) of some clips together, along one axis of the frame.

    Args:
        clips: `[N, T, H, W, C]`; u is a value of it, ⟨u⟩ the mean over all, and ⟨u'u'⟩
            that over all pairs of one channel in one row or column of one clip.
        axis: 2 for displacements along the height (downwards), 3 along the width (to
            the right).

    Returns:
        `[T // 2 + 1, 2 * (S // 2) + 1]` for the S pixels along the axis: row τ, column
        ξ + S // 2, for ξ from -(S // 2) to S // 2. R(0, 0) is 1; all is NaN where the
        clips are constant.
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
    """Draws R(ξ, τ) of some films side by side, one row of panels an axis.

    All panels have the same colours and scales. The white line is where R is greatest
    at each lag, as long as it is above 0.2: its slope is a velocity.

    Films are `[N, T, H, W, C]` of one shape, with T at least 2, by name ("truth",
    "prediction").
    """
    figure = Figure(figsize=(3.6 * len(films) + 0.9, 5.8), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr, call-arg]
    panels = figure.subplots(2, len(films), squeeze=False, sharex="row", sharey="row")
    rows = ((_WIDTH, "to the right"), (_HEIGHT, "downwards"))
    for row, (axis, direction) in zip(panels, rows, strict=True):
        for axes, (name, film) in zip(row, films.items(), strict=True):
            across = _HEIGHT if axis == _WIDTH else _WIDTH
            step = -(-film.shape[across] // _MAX_LINES)
            lines = [slice(None)] * across + [slice(None, None, step)]
            correlation = space_time_correlation(film[tuple(lines)], axis)
            image = _draw_panel(axes, correlation)
            axes.set_title(name, color=TEXT, fontsize=11, fontweight="bold")
            axes.set_xlabel(f"displacement {direction} (pixels)")
        row[0].set_ylabel("time lag (frames)")
    bar = figure.colorbar(image, ax=panels, shrink=0.7, aspect=30)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=FAINT_TEXT, labelsize=8, length=0)
    bar.set_label("correlation", color=FAINT_TEXT, fontsize=9)
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
        axes.text(0.5, 0.5, "the same everywhere", color=FAINT_TEXT, ha="center",
                  va="center", transform=axes.transAxes)  # fmt: skip
    else:
        axes.contour(displacements, times, correlation, _CONTOURS, colors=TEXT,
                     linewidths=0.7, alpha=0.6)  # fmt: skip
        peaks = correlation.argmax(axis=1)
        kept = np.cumprod(correlation.max(axis=1) > _CONTOURS[0]).astype(bool)
        axes.plot(displacements[peaks[kept]], times[kept], color="#ffffff",
                  linewidth=1.5, marker="o", markersize=3)  # fmt: skip
    axes.xaxis.label.set(color=FAINT_TEXT, fontsize=9)
    axes.yaxis.label.set(color=FAINT_TEXT, fontsize=9)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.tick_params(colors=FAINT_TEXT, labelsize=8, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image
