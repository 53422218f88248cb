"""Pictures of a classifier: its confusion matrix, and clips with their classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.viz.film_strip import NAME_STYLE, Row, draw_strip, selection
from convlstm_jax.viz.pixels import (
    BACKGROUND,
    FAINT_TEXT,
    PREDICTION_COLOUR,
    TEXT,
    TRUTH_COLOUR,
    WRONG_COLOUR,
    fit,
    shortened,
    to_pixels,
)

# Rows without clips have no shares; they are left in this grey.
_NO_CLIPS = "#f1f3f6"
# Above this share the ground is dark enough for white text.
_DARK_SHARE = 0.75


def confusion_matrix(
    out_png: str | Path,
    confusion: Sequence[Sequence[float]] | np.ndarray,
    classes: Sequence[str],
) -> None:
    """Draws how many clips of each true class are predicted to be of which.

    A row is a true class, a column a predicted one. Every cell has the number of clips
    and its share of the row in percent, by which it is coloured; cells without clips
    are left empty. The accuracy stands above. Sizes are chosen for 2 to 20 classes.
    """
    from sklearn.metrics import ConfusionMatrixDisplay  # Takes a second to import.

    counts = np.asarray(confusion, float)
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(
        counts, support, out=np.full_like(counts, np.nan), where=support > 0
    )
    # Cells of 1.1 down to 0.55 inches. A Figure of its own keeps no global state.
    num_classes = len(classes)
    cell = 1.1 if num_classes <= 4 else 0.7 if num_classes <= 8 else 0.55
    figure = Figure(figsize=(num_classes * cell, num_classes * cell))
    axes = figure.add_axes((0, 0, 1, 1))
    blues = LinearSegmentedColormap.from_list("", [BACKGROUND, PREDICTION_COLOUR])
    display = ConfusionMatrixDisplay(shares)
    display.plot(
        ax=axes, cmap=blues.with_extremes(bad=_NO_CLIPS), colorbar=False,
        im_kw={"vmin": 0, "vmax": 1},
        text_kw={"fontsize": 11 if num_classes <= 8 else 7, "linespacing": 1.3},
    )  # fmt: skip
    for (row, column), text in np.ndenumerate(display.text_):
        count, share = counts[row, column], shares[row, column]
        text.set_text(f"{count:,.0f}\n{_percent(share)}" if count else "")
        text.set_color(BACKGROUND if share > _DARK_SHARE else TEXT)
    _label(axes, [shortened(name, 28) for name in classes], support.ravel())
    correct, total = np.trace(counts), counts.sum()
    axes.set_title(
        f"Accuracy {100 * correct / total:.1f} %",
        color=TEXT, fontsize=13, fontweight="bold", loc="left", pad=22,
    )  # fmt: skip
    axes.annotate(
        f"{correct:,.0f} of {total:,.0f} clips",
        (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points",
        color=FAINT_TEXT, fontsize=9,
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
    axes.set_ylabel("true class (clips)", color=FAINT_TEXT, fontsize=10, labelpad=10)
    axes.set_xlabel("predicted class", color=FAINT_TEXT, fontsize=10, labelpad=10)
    axes.tick_params(labelcolor=TEXT, labelsize=10, length=0)
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


def classified_clips_strip(
    path: str | Path,
    frames: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    *,
    max_columns: int = 12,
    frame_size: int = 112,
) -> None:
    """Draws clips below each other, with their true and their predicted class.

    A row is one clip: its true class, the predicted one and its probability, and its
    frames, numbered from 1. Where the two differ, the row is marked in red and
    says "wrong". Of more frames than columns an even selection is drawn, first and
    last included.

    Args:
        path: The PNG file to write.
        frames: Clips `[N, T, H, W, C]`, uint8 or floats in [0, 1].
        labels: True class of each clip `[N]`.
        probabilities: Of each class `[N, K]`, as the model has them.
        classes: Name of each class, K of them.
        max_columns: Most frames in a row, at least 2.
        frame_size: Wanted length of the longer side of a frame, pixels.
    """
    frames, probabilities = np.asarray(frames), np.asarray(probabilities)
    chosen = selection(frames.shape[1], max_columns)
    rows: list[Row] = []
    for index, clip in enumerate(frames):
        label, predicted = int(labels[index]), int(probabilities[index].argmax())
        wrong = label != predicted
        share = f"{100 * probabilities[index].max():.1f} %"
        style: dict[str, Any] = {"colour": WRONG_COLOUR if wrong else TEXT}
        lines: list[tuple[str, dict[str, Any]]] = [
            (f"true: {shortened(classes[label], 32)}", NAME_STYLE),
            (f"predicted: {shortened(classes[predicted], 32)}", style | {"bold": True}),
            (f"wrong, {share}" if wrong else share, style),
        ]
        values = clip[chosen]
        if clip.dtype == np.uint8:
            values = values / np.float32(255)
        rows.append(
            Row(
                lines,
                WRONG_COLOUR if wrong else TRUTH_COLOUR,
                list(fit(to_pixels(values), frame_size)),
                [] if rows else [str(frame + 1) for frame in chosen],
                {"colour": WRONG_COLOUR, "border": 2} if wrong else None,
            )
        )
    draw_strip(rows, row_gap=14).save(path)
