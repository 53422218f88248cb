"""The confusion matrix of a classifier as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.viz.canvas import BACKGROUND, FAINT_TEXT, PREDICTION_COLOUR, TEXT

# Rows without clips have no shares; they are left in this grey.
_NO_CLIPS = "#f1f3f6"
# Above this share the ground is dark enough for white figures.
_DARK_SHARE = 0.75
_LONGEST_NAME = 28


def confusion_matrix(
    out_png: str | Path,
    confusion: Sequence[Sequence[float]] | np.ndarray,
    classes: Sequence[str],
    *,
    title: str = "",
) -> None:
    """Draws how many clips of each true class are predicted to be of which.

    A row is a true class, a column a predicted one. Every cell has the number of clips
    and its share of the row in percent, by which it is coloured; cells without clips
    are left empty. The accuracy stands above. Sizes are chosen for 2 to 20 classes.

    Args:
      out_png: The picture to write.
      confusion: Clips [N, N], true classes in rows.
      classes: Name of each class, N of them; long ones are shortened in the picture.
      title: What the accuracy is written behind, if not empty.

    Raises:
      UserError: The matrix is not square, is of another number of classes, has entries
        that are no numbers of clips or no clip at all, or the file cannot be written.
    """
    counts = np.asarray(confusion, float)
    if counts.shape != (len(classes), len(classes)):
        raise UserError(
            f"confusion has the shape {counts.shape}, but must have a row and a column "
            f"for each of the {len(classes)} classes."
        )
    if not (np.isfinite(counts).all() and (counts >= 0).all() and counts.any()):
        raise UserError(
            f"confusion is {counts.tolist()}, but must hold numbers of clips, at least "
            "one of them above 0."
        )
    support = counts.sum(axis=1, keepdims=True)
    shares = np.divide(
        counts, support, out=np.full_like(counts, np.nan), where=support > 0
    )
    figure, axes = _axes(len(classes))
    colours = LinearSegmentedColormap.from_list(
        "shares", [BACKGROUND, PREDICTION_COLOUR]
    ).with_extremes(bad=_NO_CLIPS)
    axes.imshow(shares, cmap=colours, vmin=0, vmax=1)
    large, small = (13, 9) if len(classes) <= 8 else (9, 7)
    for row, column in np.argwhere(counts > 0):
        colour = BACKGROUND if shares[row, column] > _DARK_SHARE else TEXT
        for text, size, offset, weight in (
            (_count(counts[row, column]), large, (0, 1), "bold"),
            (_percent(shares[row, column]), small, (0, -3), "normal"),
        ):
            axes.annotate(
                text, (column, row), offset, textcoords="offset points", color=colour,
                fontsize=size, fontweight=weight, ha="center",
                va="bottom" if offset[1] > 0 else "top",
            )  # fmt: skip
    _label(axes, [_shortened(name) for name in classes], support.ravel())
    correct, total = np.trace(counts), counts.sum()
    accuracy = f"accuracy {100 * correct / total:.1f} %"
    axes.set_title(
        f"{title}: {accuracy}" if title else accuracy.capitalize(),
        color=TEXT,
        fontsize=13,
        fontweight="bold",
        loc="left",
        pad=22,
        parse_math=False,
    )
    axes.annotate(
        f"{_count(correct)} of {_count(total)} clips",
        (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points",
        color=FAINT_TEXT, fontsize=9,
    )  # fmt: skip
    with atomic_file(out_png) as partial:
        # Names and titles may be wider than the matrix.
        figure.savefig(
            partial, dpi=120, format="png", bbox_inches="tight", pad_inches=0.15
        )


def _axes(num_classes: int):
    """A square that grows with the classes: cells of 1.1 down to 0.55 inches."""
    side = num_classes * (
        1.1 if num_classes <= 4 else 0.7 if num_classes <= 8 else 0.55
    )
    # A Figure of its own, not pyplot's, keeps no global state and needs no screen.
    figure = Figure(figsize=(side, side))
    return figure, figure.add_axes((0, 0, 1, 1))


def _label(axes, names: list[str], support: np.ndarray) -> None:
    places = range(len(names))
    rows = [
        f"{name} ({_count(clips)})" for name, clips in zip(names, support, strict=True)
    ]
    # A name is no formula, whatever dollar signs it has.
    axes.set_yticks(places, rows, parse_math=False)
    axes.set_xticks(places, names, parse_math=False)
    if len(names) > 4 or max(map(len, names)) > 10:
        axes.set_xticks(
            places, names, parse_math=False, rotation=40, ha="right",
            rotation_mode="anchor",
        )  # fmt: skip
    axes.set_ylabel("true class (clips)", color=FAINT_TEXT, fontsize=10, labelpad=10)
    axes.set_xlabel("predicted class", color=FAINT_TEXT, fontsize=10, labelpad=10)
    axes.tick_params(labelcolor=TEXT, labelsize=10, length=0)
    # Thin white lines between the cells.
    axes.set_xticks([place - 0.5 for place in places][1:], minor=True)
    axes.set_yticks([place - 0.5 for place in places][1:], minor=True)
    axes.grid(which="minor", color="#d5dae3", linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_color("#c9ced8")


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _percent(share: float) -> str:
    """A whole number; 0 and 100 are said of none and all alone."""
    text = f"{100 * share:.0f}"
    if 0 < share < 1:
        text = {"0": "<1", "100": ">99"}.get(text, text)
    return f"{text} %"
