"""This project, as its models and layers are used."""

from functools import partial
from typing import Any

import flax.traverse_util
import jax.numpy as jnp

from benchmarks.contenders import Settings
from benchmarks.contenders.jax_program import JaxProgram
from benchmarks.workloads import (
    FLOW_KERNEL_SIZE,
    OPENSTL_NETWORKS,
    Problem,
    Workload,
)
from convlstm_jax.cells import build_cell
from convlstm_jax.cells.cell import RecurrentCell
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


def layer_cell(workload: Workload, settings: Settings) -> RecurrentCell:
    """The cell of a workload of one layer."""
    is_trajgru = workload.system == "trajgru"
    recurrent = FLOW_KERNEL_SIZE if is_trajgru else workload.kernel_size
    return build_cell(
        "convlstm" if workload.system == "layer" else workload.system,
        features=workload.features[0],
        input_kernel_size=workload.kernel_size,
        recurrent_kernel_size=recurrent,
        peephole="none",
        reset_after=True,
        activation="tanh" if workload.system == "layer" else "leaky_relu",
        num_links=workload.num_links,
        dtype=jnp.dtype(settings.dtype),
    )


def _apply(workload: Workload, problem: Problem, settings: Settings):
    model: Any
    if workload.is_layer:
        cell = layer_cell(workload, settings)
        model = RecurrentLayer(cell, memory=settings.memory)
        return lambda params, frames: model.apply({"params": params}, frames)[1]
    fields: dict[str, Any] = {
        "features": workload.features,
        "input_kernel_size": workload.kernel_size,
        "recurrent_kernel_size": workload.kernel_size,
        "patch_size": workload.patch_size,
        "memory": settings.memory,
        "dtype": jnp.dtype(settings.dtype),
    }
    second: Any
    if workload.system == "encoder_forecaster":
        model = EncoderForecaster(**fields, peephole="none")
        second = workload.num_outputs
    else:
        ours = workload.system in OPENSTL_NETWORKS
        fields |= {"cell": workload.system} if ours else {"forget_offset": 0.0}
        model = RecurrentPredictor(**fields)
        second = jnp.asarray(problem.inputs["teacher_forcing"])
    return lambda params, frames: model.apply({"params": params}, frames, second)
