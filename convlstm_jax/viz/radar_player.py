"""Nowcasts for the player of the report, coloured by rain rate."""

from collections.abc import Mapping

import numpy as np

from convlstm_jax.viz.metric_names import series_name
from convlstm_jax.viz.radar_pictures import rain_colours
from convlstm_jax.viz.report_player import PlayerClip, PlayerRow, error_pixels

# Errors of so many mm/h or more have the strongest colour.
_LARGEST_ERROR_MM_PER_H = 10.0


def nowcast_clip(
    name: str,
    observed_mm_per_h: np.ndarray,
    forecasts_mm_per_h: Mapping[str, np.ndarray],
    mask: np.ndarray,
    *,
    minutes_per_frame: float,
    group: str,
    note: str = "",
) -> PlayerClip:
    """A nowcast as films: input, observed, each forecast, and the model's error.

    Args:
      name: See `PlayerClip`.
      observed_mm_per_h: All frames of the clip, `[T_in + T_out, H, W]`, mm/h.
      forecasts_mm_per_h: Contender, "model" among them, → `[T_out, H, W]`.
      mask: 1 where there is data, of the observed frames' shape.
      minutes_per_frame: Time from one frame to the next.
      group: See `PlayerClip`.
      note: See `PlayerClip`.
    """
    first = len(observed_mm_per_h) - len(forecasts_mm_per_h["model"])
    observed = rain_colours(observed_mm_per_h, mask)
    later = mask[first:]
    rows = [
        PlayerRow("input", 0, observed[:first]),
        PlayerRow("observed", first, observed[first:], kind="truth"),
    ]
    # The model first, where truth is beside it.
    others = sorted(forecasts_mm_per_h.keys() - {"model"})
    for contender in ("model", *others):
        rain = forecasts_mm_per_h[contender]
        is_model = contender == "model"
        rows.append(
            PlayerRow(
                "forecast" if is_model else series_name(contender),
                first,
                rain_colours(rain, later),
                kind="prediction" if is_model else "input",
            )
        )
    error = forecasts_mm_per_h["model"] - observed_mm_per_h[first:]
    error = np.where(later > 0, error, 0)[..., np.newaxis] / _LARGEST_ERROR_MM_PER_H
    hint = (
        f"blue: too little, orange: too much; full at {_LARGEST_ERROR_MM_PER_H:g} mm/h"
    )
    rows.append(PlayerRow("error", first, error_pixels(error), hint=hint, kind="error"))
    times = [
        f"{minutes_per_frame * (frame + 1 - first):+g} min".replace("-", "−")
        for frame in range(len(observed_mm_per_h))
    ]
    times[first - 1] = "0 min"
    return PlayerClip(name, group, times, rows, note)
