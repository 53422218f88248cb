"""Pictures of radar forecasts: observed above forecast, coloured by rain rate."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from convlstm_jax.metrics.baselines import contender_label
from convlstm_jax.viz.film_strip import (
    MARGIN,
    NAME_STYLE,
    TIME_HEIGHT,
    Row,
    draw_strip,
)
from convlstm_jax.viz.pixels import (
    FAINT_TEXT,
    PREDICTION_COLOUR,
    TEXT,
    Canvas,
    enlarge,
)

# From a rate on, mm/h, rain has a colour: light blue over green and yellow to violet.
_COLOURS = (
    (0.1, (198, 226, 245)),
    (0.25, (132, 186, 232)),
    (0.5, (60, 130, 210)),
    (1.0, (20, 150, 110)),
    (2.0, (90, 190, 60)),
    (5.0, (245, 215, 50)),
    (10.0, (240, 140, 30)),
    (20.0, (215, 40, 40)),
    (30.0, (150, 30, 150)),
)
_DRY = (250, 250, 250)
_NO_DATA = (205, 205, 205)

_LEGEND_WIDTH = 100
_LEGEND_STEP = 18


def rain_colours(rain_mm_per_h: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colours of rain rates.

    The mask, of the same shape `[...]`, is 1 where there is data; elsewhere it is drawn
    grey. Returns uint8 `[..., 3]`.
    """
    rates = np.array([rate for rate, _ in _COLOURS])
    colours = np.array([_DRY, *(colour for _, colour in _COLOURS)], np.uint8)
    pictures = colours[np.searchsorted(rates, rain_mm_per_h, side="right")]
    return np.where((mask > 0)[..., None], pictures, np.array(_NO_DATA, np.uint8))


def radar_strip(
    path: str | Path,
    observed_mm_per_h: np.ndarray,
    forecasts_mm_per_h: Mapping[str, np.ndarray],
    mask: np.ndarray,
    *,
    num_inputs: int,
    minutes_per_frame: float,
    max_columns: int = 8,
    frame_size: int = 128,
) -> None:
    """Draws what was observed, and below it what was forecast for the same times.

    The first column is the last frame given; of the frames to forecast every
    n-th follows, the last one included. A legend gives the colours in mm/h.

    Args:
        path: The PNG file to write.
        observed_mm_per_h: All frames of the clip, `[T_in + T_out, H, W]`, mm/h.
        forecasts_mm_per_h: Contender ("model", "optical_flow") → `[T_out, H, W]`.
        mask: 1 where there is data, of the observed frames' shape.
        num_inputs: T_in.
        minutes_per_frame: Time from one frame to the next.
        max_columns: Most frames in a row.
        frame_size: Wanted length of the longer side of a frame, pixels.
    """
    num_outputs = len(observed_mm_per_h) - num_inputs
    every = -(-num_outputs // (max_columns - 1))
    chosen = np.arange((num_outputs - 1) % every, num_outputs, every)
    scale = max(1, round(frame_size / max(observed_mm_per_h.shape[1:])))
    known = enlarge(rain_colours(observed_mm_per_h, mask), scale)[num_inputs - 1 :]
    minutes = [f"+{minutes_per_frame * (t + 1):g} min" for t in chosen]
    columns = [known[0], *known[1 + chosen]]
    rows = [Row([("observed", NAME_STYLE)], TEXT, columns, ["0 min", *minutes])]
    for name, frames in forecasts_mm_per_h.items():
        pixels = enlarge(rain_colours(frames, mask[num_inputs:])[chosen], scale)
        colour = PREDICTION_COLOUR if name == "model" else FAINT_TEXT
        label = "forecast" if name == "model" else contender_label(name)
        rows.append(Row([(label, NAME_STYLE)], colour, [None, *pixels]))
    top = MARGIN + TIME_HEIGHT
    canvas = draw_strip(
        rows,
        extra_width=_LEGEND_WIDTH,
        min_height=top + _LEGEND_STEP * (len(_COLOURS) + 2),
    )
    _draw_legend(canvas, canvas.image.width - _LEGEND_WIDTH, top)
    canvas.save(path)


def _draw_legend(canvas: Canvas, left: int, top: int) -> None:
    """The colours from heavy rain down, each with the rate it begins at."""
    canvas.text((left, top - 12), "mm/h", size=12, anchor="lm", colour=FAINT_TEXT)
    entries = [(f"{rate:g}", colour) for rate, colour in reversed(_COLOURS)]
    entries += [("dry", _DRY), ("no data", _NO_DATA)]
    for number, (text, colour) in enumerate(entries):
        y = top + _LEGEND_STEP * number
        canvas.bar((left - 1, y - 1, 20, 18), "#c9ced8")
        canvas.bar((left, y, 18, 16), "#" + "".join(f"{part:02x}" for part in colour))
        canvas.text((left + 26, y + 8), text, size=12, anchor="lm")
