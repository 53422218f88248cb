"""`--mode=describe`: what a config builds, without data or training."""

import jax
import jax.numpy as jnp

from convlstm_jax.cli.build import build_objective, initial_shapes
from convlstm_jax.cli.experiment import Experiment
from convlstm_jax.models.describe import multiply_adds, parameter_table


def run(experiment: Experiment) -> None:
    """Prints parameters, multiply-adds per sample, and input and output shapes."""
    objective = build_objective(experiment)
    shape = (1, objective.num_input_frames, *experiment.data.frame_shape)
    inputs = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = initial_shapes(objective, experiment)
    table = parameter_table(variables["params"])
    outputs = jax.eval_shape(objective.describe, variables, inputs)
    products = multiply_adds(objective.describe, variables, inputs)
    rows = [(path, str(shape), f"{count:,}") for path, shape, count in table]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    preset = experiment.general.preset
    print(experiment.model.name + (f" ({preset})" if preset else ""))
    for path, size, count in rows:
        print(f"  {path:{widths[0]}}  {size:{widths[1]}}  {count:>{widths[2]}}")
    total = sum(count for _, _, count in table)
    print(f"parameters: {total:,}")
    others = {name: tree for name, tree in variables.items() if name != "params"}
    if others:
        total += sum(count for _, _, count in parameter_table(others))
        print(f"with batch statistics: {total:,}")
    print(f"multiply-adds per sample: {products:,} ({products / 1e9:.1f} G)")
    print(f"input: [B, T, H, W, C] = [B, {', '.join(map(str, inputs.shape[1:]))}]")
    for name, output in outputs.items():
        print(f"{name} = [B, {', '.join(map(str, output.shape[1:]))}]")
