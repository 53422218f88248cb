"""`--mode=describe`: what a config builds; `--help`: the fields of a config."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from convlstm_jax.cli.build import build_objective, initial_shapes
from convlstm_jax.cli.experiment import Experiment, section_classes
from convlstm_jax.config import allowed, applies
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


def describe_fields(config: ConfigDict) -> Iterator[str]:
    """Yields a line a field: its value, unit, what is allowed and what it does."""
    values = config.to_dict()
    for section, cls in section_classes(values).items():
        fields = values[section] if section else values
        title = f"config.{section}" if section else "config"
        yield f"{title}: {(cls.__doc__ or '').strip().splitlines()[0]}"
        for name, info in cls.model_fields.items():
            if applies(cls, name, fields):
                unit = f" {cls.rule(name).unit}".rstrip()
                yield f"  {name} = {fields.get(name, info.default)}{unit}"
                yield f"      {info.description or ''} Must {allowed(cls, name)}."
