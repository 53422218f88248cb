"""`--mode=describe`: what a config builds, without data or training."""

from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from convlstm_jax.cli.build import build_task, frame_shape
from convlstm_jax.models.describe import multiply_adds, parameter_table
from convlstm_jax.tasks.task import VideoTask


def run(config: ConfigDict, *, workdir: Path | None = None) -> None:
    """Prints parameters, multiply-adds per sample, and input and output shapes.

    Args:
        config: the experiment.
        workdir: not used; the config may come from there.
    """
    del workdir
    task = build_task(config)
    shape = frame_shape(config)
    inputs = jax.ShapeDtypeStruct((1, task.num_input_frames, *shape), jnp.float32)
    variables = jax.eval_shape(lambda: task.init(jax.random.key(0), shape))
    params = variables["params"]

    def run(variables, inputs):
        if not isinstance(task, VideoTask):
            return {"output: [B, classes]": task.classify(variables, inputs)}
        _, target = task.split(
            jnp.zeros((1, task.num_input_frames + task.num_output_frames, *shape))
        )
        return {
            f"{'output' if name == 'model' else name}: [B, T, H, W, C]": output.frames
            for name, (output, _) in task.outputs(variables, inputs, target).items()
        }

    outputs = jax.eval_shape(run, variables, inputs)
    products = multiply_adds(run, variables, inputs)
    rows = [(path, str(shape), f"{count:,}") for path, shape, count in
            parameter_table(params)]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    title = config.model.name + (f" ({config.preset})" if config.preset else "")
    print(title)
    for path, size, count in rows:
        print(f"  {path:{widths[0]}}  {size:{widths[1]}}  {count:>{widths[2]}}")
    total = sum(count for _, _, count in parameter_table(params))
    print(f"parameters: {total:,}")
    others = {name: tree for name, tree in variables.items() if name != "params"}
    if others:
        total += sum(count for _, _, count in parameter_table(others))
        print(f"with batch statistics: {total:,}")
    print(f"multiply-adds per sample: {products:,} ({products / 1e9:.1f} G)")
    print(f"input: [B, T, H, W, C] = [B, {', '.join(map(str, inputs.shape[1:]))}]")
    for name, output in outputs.items():
        print(f"{name} = [B, {', '.join(map(str, output.shape[1:]))}]")
