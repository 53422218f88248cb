"""`--mode=predict`: the frames that follow a clip of the user's.

Of a model that was trained to reconstruct alone: the clip's last frames as it gives
them back, last one first. Of a classifier: see `cli/classify.py`; of radar composites:
see `cli/nowcast.py`.
"""

import os
from pathlib import Path

import jax
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from convlstm_jax.cli import classify, nowcast
from convlstm_jax.cli.build import build_task, frame_shape
from convlstm_jax.cli.trained_weights import load_variables
from convlstm_jax.data.clip_files import read_clip
from convlstm_jax.data.video_frames import open_video
from convlstm_jax.errors import UserError
from convlstm_jax.tasks.nowcast import NowcastTask
from convlstm_jax.tasks.task import Task, Variables, VideoTask
from convlstm_jax.training.sharding import data_mesh
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
        num_frames: frames to predict, any number (to reconstruct: at most as many as
            the model reads); as many as were trained if `None`.

    Raises:
        UserError: the clip cannot be read, is too short or of the wrong size; the
            output cannot be written; more frames are to be reconstructed than are
            read; there is no intact checkpoint.
    """
    if os.path.realpath(input_path) in (
        os.path.realpath(output_path),
        os.path.realpath(output_path.parent),
    ):
        raise UserError(
            f"--output={output_path} would be written over or among the frames of "
            f"--input={input_path}: choose another place"
        )
    task = build_task(config)
    check_num_frames(task, num_frames)
    if not isinstance(task, VideoTask):
        classify.run(
            config,
            task,
            workdir=workdir,
            input_path=input_path,
            output_path=output_path,
        )
        return
    validate_output_path(output_path)
    num_frames = num_frames or task.num_output_frames
    try:
        _forecast(config, task, workdir, input_path, output_path, num_frames)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"--num_frames is {num_frames}: so many frames of this size do not fit "
            "into the memory here"
        ) from error


def check_num_frames(task: Task, num_frames: int | None) -> None:
    """Refuses a number of frames that a model cannot give.

    Raises:
        UserError: any number of a classifier, or more frames are to be reconstructed
            than are read.
    """
    if num_frames is None:
        return
    if not isinstance(task, VideoTask):
        raise UserError(
            f"--num_frames is {num_frames}: it must not be given, as this model "
            "classifies the clip and predicts no frames"
        )
    if "model" in task.reconstructions and num_frames > task.num_input_frames:
        raise UserError(
            f"--num_frames is {num_frames}: it must be at most "
            f"{task.num_input_frames}, the frames that this model reads and gives "
            "back, as it predicts none"
        )


def _forecast(
    config: ConfigDict,
    task: VideoTask,
    workdir: Path,
    input_path: Path,
    output_path: Path,
    num_frames: int,
) -> None:
    needed = task.num_input_frames
    if isinstance(task, NowcastTask) and config.data.path:
        nowcast.run(
            config,
            task,
            workdir=workdir,
            input_path=input_path,
            output_path=output_path,
            num_frames=num_frames,
        )
        return
    height, width, channels = frame_shape(config)
    if config.data.path:  # Trained on videos that were resized, as this one is.
        video = open_video(
            input_path,
            height=height,
            width=width,
            channels=channels,
            crop_box=config.data.crop_box,
            value_range=config.data.value_range,
            variable=config.data.variable,
        )
        # A long video is not read whole.
        count = min(needed, video.num_frames)
        clip = video.read(video.num_frames - count, count) / np.float32(255)
    else:
        clip = read_clip(input_path, channels=channels)
    if clip.shape[1:3] != (height, width):
        raise UserError(
            f"--input={input_path} has frames of {clip.shape[1]}×{clip.shape[2]} "
            f"pixels (height × width): this model needs {height}×{width}"
        )
    if len(clip) < needed:
        raise UserError(
            f"--input={input_path} has {len(clip)} frames: this model needs at least "
            f"{needed}"
        )
    mesh = data_mesh(jax.local_devices()[:1])
    step, variables = load_variables(task, config, workdir, mesh)
    inputs = clip[-needed:]
    reconstructs = "model" in task.reconstructions

    def predict(variables: Variables, inputs: Array) -> Array:
        return task.forecast(variables, inputs, num_frames).frames

    prediction = jax.device_get(jax.jit(predict)(variables, inputs[None]))[0]
    if output_path.suffix.lower() == ".png":
        film_strip(output_path, inputs, None, prediction, reconstruction=reconstructs)
    else:
        write_clip(output_path, prediction)
    what = f"predicted from the last {needed} of {input_path}"
    if reconstructs:
        what = f"reconstructed, not predicted: the last of {input_path}, in reverse"
    print(f"{output_path}: {num_frames} frames {what}, with the weights of step {step}")
