"""This project, as its models and layers are used."""

from functools import partial
from typing import Any

import flax.traverse_util
import jax.numpy as jnp

from benchmarks.contenders import Settings
from benchmarks.contenders.jax_program import JaxProgram
from benchmarks.workloads import Problem, Workload
from convlstm_jax.cells import build_cell
from convlstm_jax.layers.recurrent import RecurrentLayer
from convlstm_jax.models.encoder_forecaster import EncoderForecaster
from convlstm_jax.models.recurrent_predictor import RecurrentPredictor


def build(
    name: str, workload: Workload, problem: Problem, settings: Settings
) -> JaxProgram:
    """See `Program`."""
    del name
    weights = flax.traverse_util.unflatten_dict(problem.weights, sep="/")
    return JaxProgram(
        _apply(workload, problem, settings),
        weights,
        problem,
        workload,
        partial(flax.traverse_util.flatten_dict, sep="/"),
    )


def _apply(workload: Workload, problem: Problem, settings: Settings):
    model: Any
    fields: dict[str, Any] = {
        "input_kernel_size": workload.kernel_size,
        "recurrent_kernel_size": workload.kernel_size,
        "dtype": jnp.dtype(settings.dtype),
    }
    if workload.is_layer:
        name = "convlstm" if workload.system == "layer" else workload.system
        fields |= {"features": workload.features[0], "peephole": "none"}
        cell = build_cell(name, **fields)
        model = RecurrentLayer(cell, memory=settings.memory)
        return lambda params, frames: model.apply({"params": params}, frames)[1]
    fields |= {
        "features": workload.features,
        "patch_size": workload.patch_size,
        "memory": settings.memory,
    }
    second: Any
    if workload.system == "encoder_forecaster":
        model = EncoderForecaster(**fields, peephole="none")
        second = workload.num_outputs
    else:
        model = RecurrentPredictor(**fields, forget_offset=0.0)
        second = jnp.asarray(problem.inputs["teacher_forcing"])
    return lambda params, frames: model.apply({"params": params}, frames, second)
