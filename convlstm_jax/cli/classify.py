"""`--mode=predict` of a classifier: the class of every clip of a video."""

import json
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.cli.build import frame_shape
from convlstm_jax.cli.trained_weights import load_variables
from convlstm_jax.data.video_frames import Video, open_video
from convlstm_jax.errors import UserError
from convlstm_jax.tasks.classification import ClassificationTask
from convlstm_jax.training.sharding import data_mesh
from convlstm_jax.viz.clip_writer import validate_output_path

OUTPUT_SUFFIXES = (".json",)


def run(
    config: ConfigDict,
    task: ClassificationTask,
    *,
    workdir: Path,
    input_path: Path,
    output_path: Path,
) -> None:
    """Classifies a video clip by clip, from its first frame to its last.

    The video is read as training read its videos: resized, and with the same stride
    between frames and between clips.

    Args:
        config: the run's config.
        task: the run's task.
        workdir: the run's folder; its best checkpoint is used.
        input_path: a video file or a folder of pictures.
        output_path: a `.json` file: for each clip its first and last frame in the
            video, its class, and the probability of every class.

    Raises:
        UserError: the video cannot be read or is shorter than a clip; the output is of
            another kind or cannot be written; there is no intact checkpoint.
    """
    validate_output_path(output_path, OUTPUT_SUFFIXES, what="a classification")
    height, width, channels = frame_shape(config)
    video = open_video(
        input_path,
        height=height,
        width=width,
        channels=channels,
        crop_box=config.data.crop_box,
    )
    starts = _clip_starts(video, config, task.num_input_frames)
    mesh = data_mesh(jax.local_devices()[:1])
    step, variables = load_variables(task, config, workdir, mesh)
    classify = jax.jit(task.classify)
    stride = config.data.frame_stride
    clips = []
    for start in tqdm(starts, desc="classifying", unit="clip", disable=None):
        frames = video.read(start, task.num_input_frames, stride)
        probabilities = np.asarray(classify(variables, frames[None])[0])
        clips.append(
            {
                "first_frame": start,
                "last_frame": start + (task.num_input_frames - 1) * stride,
                "class": task.classes[int(probabilities.argmax())],
                "probabilities": {
                    name: float(value)
                    for name, value in zip(task.classes, probabilities, strict=True)
                },
            }
        )
    result = {"input": str(input_path), "step": step, "clips": clips}
    with atomic_file(output_path) as partial:
        partial.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    counts = ", ".join(
        f"{sum(clip['class'] == name for clip in clips)} {name}"
        for name in task.classes
    )
    print(
        f"{output_path}: {len(clips)} clips of {input_path} classified ({counts}), "
        f"with the weights of step {step}"
    )


def _clip_starts(video: Video, config: ConfigDict, num_frames: int) -> list[int]:
    """The first frame of every clip that the video holds."""
    stride = config.data.frame_stride
    span = (num_frames - 1) * stride + 1
    if video.num_frames < span:
        raise UserError(
            f"--input={video.path} has {video.num_frames} frames: this model needs at "
            f"least {span}, to use every {stride}. of them"
        )
    between = (config.data.clip_stride or num_frames) * stride
    return list(range(0, video.num_frames - span + 1, between))
