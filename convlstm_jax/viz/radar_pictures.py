"""Pictures of radar forecasts: observed above forecast, coloured by rain rate."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.viz.canvas import FAINT_TEXT, PREDICTION_COLOUR, TEXT, Canvas
from convlstm_jax.viz.metric_names import series_name
from convlstm_jax.viz.pixels import enlarge

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

_MARGIN = 16
_GAP = 6
_NAME_WIDTH = 110
_TIME_HEIGHT = 24
_LEGEND_WIDTH = 84


def rain_colours(rain_mm_per_h: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colours of rain rates.

    Args:
      rain_mm_per_h: `[...]`.
      mask: 1 where there is data, `[...]`; elsewhere it is drawn grey.

    Returns:
      uint8 `[..., 3]`.
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
      max_columns: Frames drawn in a row at most.
      frame_size: Wanted length of the longer side of a frame, pixels.

    Raises:
      UserError: Shapes do not fit each other or the file cannot be written.
    """
    num_outputs = len(observed_mm_per_h) - num_inputs
    shape = (num_outputs, *observed_mm_per_h.shape[1:])
    for name, frames in forecasts_mm_per_h.items():
        if frames.shape != shape:
            raise UserError(
                f"The forecast {name!r} has the shape {frames.shape}, but must have "
                f"{shape} to stand below what was observed."
            )
    every = -(-num_outputs // (max_columns - 1))
    chosen = range((num_outputs - 1) % every, num_outputs, every)
    known = rain_colours(observed_mm_per_h, mask)
    rows: list[tuple[str, str, Sequence[np.ndarray | None]]] = [
        ("observed", TEXT, [known[num_inputs + t] for t in (-1, *chosen)])
    ]
    for name, frames in forecasts_mm_per_h.items():
        coloured = rain_colours(frames, mask[num_inputs:])
        colour = PREDICTION_COLOUR if name == "model" else FAINT_TEXT
        title = "forecast" if name == "model" else series_name(name)
        rows.append((title, colour, [None, *(coloured[t] for t in chosen)]))
    scale = max(1, round(frame_size / max(shape[1:])))
    height, width = scale * shape[1], scale * shape[2]
    left, top = _MARGIN + _NAME_WIDTH, _MARGIN + _TIME_HEIGHT
    legend = left + (len(chosen) + 1) * (width + _GAP) + _MARGIN
    bottom = top + len(rows) * (height + _GAP) - _GAP
    bottom = max(bottom, top + 18 * (len(_COLOURS) + 2))
    canvas = Canvas(legend + _LEGEND_WIDTH, bottom + _MARGIN)
    minutes = [0.0, *(minutes_per_frame * (t + 1) for t in chosen)]
    for column, lead_time in enumerate(minutes):
        middle = left + column * (width + _GAP) + width / 2
        text = f"+{lead_time:g} min" if column else "0 min"
        canvas.text((middle, top - 12), text, size=12, colour=FAINT_TEXT)
    for number, (title, colour, pictures) in enumerate(rows):
        y = top + number * (height + _GAP)
        canvas.bar((_MARGIN, y, 4, height), colour)
        canvas.text(
            (_MARGIN + 12, y + height / 2), title, anchor="lm", colour=TEXT, bold=True
        )
        for column, picture in enumerate(pictures):
            if picture is not None:
                enlarged = enlarge(picture[None], scale)[0]
                canvas.frame(enlarged, left + column * (width + _GAP), y)
    _draw_legend(canvas, legend, top)
    with atomic_file(path) as partial:
        canvas.image.save(partial, "PNG", optimize=True)


def _draw_legend(canvas: Canvas, left: int, top: int) -> None:
    """The colours from heavy rain down, each with the rate it begins at."""
    canvas.text((left, top - 12), "mm/h", size=12, anchor="lm", colour=FAINT_TEXT)
    entries = [(f"{rate:g}", colour) for rate, colour in reversed(_COLOURS)]
    entries += [("dry", _DRY), ("no data", _NO_DATA)]
    for number, (text, colour) in enumerate(entries):
        y = top + 18 * number
        canvas.bar((left - 1, y - 1, 20, 18), "#c9ced8")
        canvas.bar((left, y, 18, 16), "#" + "".join(f"{part:02x}" for part in colour))
        canvas.text((left + 26, y + 8), text, size=12, anchor="lm")
