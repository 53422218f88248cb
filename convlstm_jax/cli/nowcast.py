"""`--mode=predict` of a model trained on radar composites: the whole area, in mm/h."""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from convlstm_jax.cli.build import composite_reader
from convlstm_jax.cli.trained_weights import load_variables
from convlstm_jax.data.radar_events import find_composites, split_at_gaps
from convlstm_jax.data.radar_opening import refuse_left_out, told_left_out
from convlstm_jax.errors import UserError
from convlstm_jax.tasks.nowcast import NowcastTask
from convlstm_jax.training.sharding import data_mesh
from convlstm_jax.viz.clip_writer import write_clip
from convlstm_jax.viz.film_strip import film_strip
from convlstm_jax.viz.radar_pictures import rain_colours


def forecasts_any_size(config: ConfigDict) -> bool:
    """Whether a model of radar composites has no weights for each place."""
    return config.model.name != "fc_lstm" and config.model.peephole != "location"


def run(
    config: ConfigDict,
    task: NowcastTask,
    *,
    workdir: Path,
    input_path: Path,
    output_path: Path,
    num_frames: int,
) -> None:
    """Forecasts what follows the latest composites of a folder, over their whole area.

    Args:
        config: the run's config; composites are read as it read those to learn from.
        task: the run's task.
        workdir: the run's folder; its best checkpoint is used.
        input_path: a folder of composites; of the latest run without a missing time
            step the last ones count.
        output_path: `.npy` holds the rain rate in mm/h, `[T, H, W, 1]`, NaN where the
            last composite has no data; `.gif`, `.mp4` and `.png` are coloured by it.
        num_frames: frames to forecast.

    Raises:
        UserError: a file is to be refused; there are too few composites, or no data in
            the last one; what their format needs is not installed; the model knows
            crops of one size alone; the output cannot be written; there is no intact
            checkpoint.
    """
    if not forecasts_any_size(config):
        raise UserError(
            "this model has weights for each place of its crops, so it cannot forecast "
            "the whole area: for --mode=predict on radar composites config.model.name "
            "must be 'encoder_forecaster' and config.model.peephole 'channel' or 'none'"
        )
    data = config.data
    found, left_out = find_composites(input_path, data.radar_format)
    refuse_left_out(left_out, data.bad_files)
    events, _ = split_at_gaps(found, data.time_step_minutes)
    stride, needed = data.frame_stride, task.num_input_frames
    span = (needed - 1) * stride + 1
    if not events or len(events[-1]) < span:
        raise UserError(
            f"--input={input_path} ends with {len(events[-1]) if events else 0} "
            f"composites that are {data.time_step_minutes:g} minutes apart: this model "
            f"needs at least {span}"
        )
    reader = composite_reader(config)
    chosen = events[-1].composites[-span::stride]
    read = [reader.read(one.path) for one in chosen]
    if len({one.shape for one in read}) > 1:
        raise UserError(
            f"--input={input_path} has composites of different sizes, from "
            f"'{chosen[0].path.name}' on: this model needs one size"
        )
    frames, masks = np.moveaxis(np.stack(read), 1, 0)
    if not masks[-1].any():
        raise UserError(
            f"--input={input_path}: the latest composite, '{chosen[-1].path.name}', "
            "has no data at any pixel, so there is nothing to forecast from"
        )
    height, width = frames.shape[1:]
    patch = config.model.patch_size
    padding = ((0, 0), (0, -height % patch), (0, -width % patch))
    inputs = np.pad(frames, padding)[..., np.newaxis] / np.float32(255)

    step, variables = load_variables(
        task, config, workdir, data_mesh(jax.local_devices()[:1])
    )
    forecast = jax.jit(lambda v, x: task.forecast(v, x, num_frames).frames)
    pixels = jax.device_get(forecast(variables, inputs[None]))[0, :, :height, :width]
    rain = task.scale.rain_mm_per_h(pixels)
    valid = np.broadcast_to(masks[-1][..., np.newaxis], rain.shape)
    if output_path.suffix.lower() == ".npy":
        write_clip(output_path, np.where(valid, rain, np.nan))
    else:
        coloured = rain_colours(rain[..., 0], valid[..., 0]) / np.float32(255)
        if output_path.suffix.lower() == ".png":
            given = task.scale.rain_mm_per_h(frames / np.float32(255))
            film_strip(output_path, rain_colours(given, masks) / 255.0, None, coloured)
        else:
            write_clip(output_path, coloured, frames_per_second=5)
    minutes = num_frames * data.time_step_minutes * stride
    print(
        f"{output_path}: {num_frames} frames, the {minutes:g} minutes after "
        f"{chosen[-1].time:%Y-%m-%d %H:%M}, predicted from the last {needed} of "
        f"{input_path}, with the weights of step {step}"
    )
    if left_out:
        print(f"left out{told_left_out(left_out)}")
