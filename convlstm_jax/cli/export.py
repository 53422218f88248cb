"""`--mode=export`: a run's model as one file that runs without this package."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, export

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.cli.build import build_objective, load_variables
from convlstm_jax.cli.experiment import Experiment
from convlstm_jax.cli.predict import beyond_training
from convlstm_jax.viz.clip_writer import validate_output_path

# The platforms of an exported program, wherever it was written.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def run(
    experiment: Experiment, *, workdir: Path, output: Path, num_frames: int | None
) -> None:
    """Writes a program that predicts from a clip, with the best checkpoint's weights.

    The program takes clips `[B, T, H, W, C]`, float32 in [0, 1], of any B. It returns
    the frames that follow, `[B, num_frames, H, W, C]` (for a model that reconstructs,
    the frames of the clip in reverse order), or for a classifier {class: probabilities
    `[B]`}. For radar models H and W may be any multiples of the patch size. `output` is
    a `.jax` file for `jax.export.deserialize`.
    """
    objective = build_objective(experiment)
    objective.check_num_frames(num_frames)
    validate_output_path(output, (".jax",), what="an exported model")
    step, variables = load_variables(objective, experiment, workdir)
    variables = jax.device_get(variables)  # Constants, on no device.
    height, width, channels = experiment.data.frame_shape
    sizes, patch = f"{height}, {width}", None
    if objective.takes_whole_area and experiment.model.takes_any_size:
        patch = getattr(experiment.model, "patch_size", 1)
        sizes = f"{patch}·h, {patch}·w"
    program = export_program(
        partial(objective.exported, variables, num_frames),
        objective.num_input_frames,
        (height, width, channels),
        sizes_in_steps_of=patch,
    )
    with atomic_file(output) as partial_file:
        partial_file.write_bytes(program)
    print(
        f"{output}: {len(program) / 2**20:.1f} MiB, with the weights of step {step}; "
        f"from [B, {objective.num_input_frames}, {sizes}, {channels}] in [0, 1] to "
        f"{objective.exported_words(num_frames)}"
    )
    if longer := beyond_training(objective, num_frames):
        print(longer)
    if objective.exported_unit():
        print(objective.exported_unit())


def export_program(
    predict: Callable[[Array], Any],
    num_frames: int,
    frame_shape: tuple[int, int, int],
    *,
    sizes_in_steps_of: int | None = None,
) -> bytes:
    """Lowers a function of clips `[B, T, H, W, C]`, float32, for any B, to StableHLO.

    With `sizes_in_steps_of`, H and W may be any multiples of this number; the
    convolutions are then direct. Returns bytes for `jax.export.deserialize`.
    """
    height, width, channels = frame_shape
    sizes = f"{height}, {width}"
    if sizes_in_steps_of is not None:
        sizes = f"{sizes_in_steps_of}*height, {sizes_in_steps_of}*width"
    shape = export.symbolic_shape(f"batch, {num_frames}, {sizes}, {channels}")
    exported = export.export(jax.jit(predict), platforms=PLATFORMS)(
        jax.ShapeDtypeStruct(shape, jnp.float32)
    )
    return bytes(exported.serialize())
