"""`--mode=export`: a run's model as one file that runs without this package."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax import Array
from ml_collections import ConfigDict

from convlstm_jax.array_types import Video
from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.cli.build import build_task, frame_shape
from convlstm_jax.cli.nowcast import forecasts_any_size
from convlstm_jax.cli.predict import check_num_frames
from convlstm_jax.cli.trained_weights import load_variables
from convlstm_jax.interop.exported_program import export_program
from convlstm_jax.tasks.classification import ClassificationTask
from convlstm_jax.tasks.nowcast import NowcastTask
from convlstm_jax.tasks.task import Variables, VideoTask
from convlstm_jax.training.sharding import data_mesh
from convlstm_jax.viz.clip_writer import validate_output_path

OUTPUT_SUFFIXES = (".jax",)


def run(
    config: ConfigDict, *, workdir: Path, output_path: Path, num_frames: int | None
) -> None:
    """Writes what predicts from a clip, with the weights of the best checkpoint.

    The program takes clips `[B, T, H, W, C]`, float32 in [0, 1], of any B. It gives the
    frames that follow, `[B, num_frames, H, W, C]` (to reconstruct alone: the clip's
    own, last one first), or of a classifier {class: its probabilities `[B]`}. Of a
    model of radar composites H and W may be any, in whole patches.

    Args:
        config: the run's config.
        workdir: the run's folder.
        output_path: a `.jax` file, for `jax.export.deserialize`.
        num_frames: frames to predict; as many as were trained if `None`.

    Raises:
        UserError: the output cannot be written; more frames are to be reconstructed
            than are read, or any of a classifier; there is no intact checkpoint.
    """
    task = build_task(config)
    check_num_frames(task, num_frames)
    validate_output_path(output_path, OUTPUT_SUFFIXES, what="an exported model")
    mesh = data_mesh(jax.local_devices()[:1])
    step, variables = load_variables(task, config, workdir, mesh)
    variables = jax.device_get(variables)  # Constants, of no device.
    predict: Callable[[Video], Any]
    if isinstance(task, VideoTask):
        num_frames = num_frames or task.num_output_frames
        predict = partial(_frames, task, variables, num_frames)
        result = f"frames [B, {num_frames}, H, W, C]"
    else:
        predict = partial(_probabilities, task, variables)
        result = f"probabilities {{{', '.join(map(repr, task.classes))}: [B]}}"
    height, width, channels = frame_shape(config)
    sizes, sizes_in_steps_of = f"{height}, {width}", None
    if isinstance(task, NowcastTask) and forecasts_any_size(config):
        sizes_in_steps_of = config.model.patch_size
        sizes = f"{sizes_in_steps_of}·h, {sizes_in_steps_of}·w"
    program = export_program(
        predict,
        task.num_input_frames,
        (height, width, channels),
        sizes_in_steps_of=sizes_in_steps_of,
    )
    with atomic_file(output_path) as partial_file:
        partial_file.write_bytes(program)
    print(
        f"{output_path}: {len(program) / 2**20:.1f} MiB, with the weights of step "
        f"{step}; from [B, {task.num_input_frames}, {sizes}, {channels}] in [0, 1] to "
        f"{result}"
    )
    if isinstance(task, NowcastTask):
        scale = task.scale
        print(
            f"pixels: 0 is {scale.dbz_min:g} dBZ, 1 is {scale.dbz_max:g} dBZ, with "
            f"dBZ = 10 log10({scale.zr_a:g} R^{scale.zr_b:g}), R in mm/h"
        )


def _frames(
    task: VideoTask, variables: Variables, num_frames: int, clips: Video
) -> Video:
    return task.forecast(variables, clips, num_frames).frames


def _probabilities(
    task: ClassificationTask, variables: Variables, clips: Video
) -> dict[str, Array]:
    probabilities = task.classify(variables, clips)
    return {name: probabilities[:, k] for k, name in enumerate(task.classes)}
