"""`--mode=predict`: the frames that follow a clip of the user's."""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from convlstm_jax.cli.build import build_task, frame_shape
from convlstm_jax.cli.evaluate import load_params
from convlstm_jax.data.clip_files import read_clip
from convlstm_jax.errors import UserError
from convlstm_jax.train.sharding import data_mesh
from convlstm_jax.viz.clip_writer import validate_output_path, write_clip
from convlstm_jax.viz.film_strip import film_strip


def run(
    config: ConfigDict,
    *,
    workdir: Path,
    input_path: Path,
    output_path: Path,
    num_frames: int | None,
) -> None:
    """Predicts what follows the last frames of a clip.

    Args:
        config: the run's config.
        workdir: the run's folder; its best checkpoint is used.
        input_path: a clip, see `data.clip_files.read_clip`. Of a longer clip than the
            model reads, the last frames count.
        output_path: `.npy`, `.gif` and `.mp4` hold the predicted frames alone, `.png`
            a film strip of input and prediction.
        num_frames: frames to predict, any number; as many as were trained if `None`.

    Raises:
        UserError: the clip cannot be read, is too short or of the wrong size; the
            output cannot be written; there is no intact checkpoint.
    """
    validate_output_path(output_path)
    task = build_task(config)
    height, width, channels = frame_shape(config)
    clip = read_clip(input_path, channels=channels)
    if clip.shape[1:3] != (height, width):
        raise UserError(
            f"--input={input_path} has frames of {clip.shape[1]}×{clip.shape[2]} "
            f"pixels (height × width): this model needs {height}×{width}"
        )
    needed = task.num_input_frames
    if len(clip) < needed:
        raise UserError(
            f"--input={input_path} has {len(clip)} frames: this model needs at least "
            f"{needed}"
        )
    num_frames = num_frames or task.num_output_frames
    mesh = data_mesh(jax.local_devices()[:1])
    step, params = load_params(task, config, workdir, mesh)
    inputs = clip[-needed:]
    predict = jax.jit(lambda p, x: task.predict(p, x, num_frames))
    prediction = jax.device_get(predict(params, inputs[None]))[0]
    if output_path.suffix.lower() == ".png":
        film_strip(output_path, inputs, None, prediction)
    else:
        write_clip(output_path, prediction)
    print(
        f"{output_path}: predicted frames: {num_frames}, from the last {needed} of "
        f"{input_path}, with the weights of step {step}"
    )
