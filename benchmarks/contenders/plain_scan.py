"""The cells of this project under `nn.scan` with plain autodiff, without the engine."""

from functools import partial
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax.numpy as jnp

from benchmarks.contenders import Settings
from benchmarks.contenders.jax_program import JaxProgram
from benchmarks.contenders.this_project import layer_cell
from benchmarks.workloads import OPENSTL_NETWORKS, Problem, Workload
from convlstm_jax.cells import build_layers
from convlstm_jax.layers.recurrent import RecurrentLayer
from convlstm_jax.ops.convolution import same_convolution
from convlstm_jax.ops.patches import from_patches, to_patches


class _Predictor(nn.Module):
    """The recurrent predictor; its parameters are those of this project's."""

    workload: Workload
    dtype: Any

    @nn.compact
    def __call__(self, frames: Any, teacher_forcing: Any) -> Any:
        size = self.workload.patch_size
        patches = to_patches(frames, size).astype(self.dtype)
        features, system = self.workload.features, self.workload.system
        cells = build_layers(
            system if system in OPENSTL_NETWORKS else "convlstm",
            features,
            input_kernel_size=self.workload.kernel_size,
            recurrent_kernel_size=self.workload.kernel_size,
            peephole="none",
            use_bias=False,
            forget_offset=1.0 if system in OPENSTL_NETWORKS else 0.0,
            dtype=self.dtype,
        )
        init = nn.initializers.ones
        kernel = self.param("output_kernel", init, (1, 1, features[-1], size**2))
        carries, channels = [], patches.shape[-1]
        for cell in cells:
            shape = (*patches.shape[:1], *patches.shape[2:4], channels)
            carries.append(cell.initialize_carry(None, shape))
            channels = cell.features

        def step(model: Any, state: Any, inputs: Any) -> Any:
            del model
            carries, passed, prediction = state
            frame, forced = inputs
            hidden = jnp.where(forced[:, None, None, None], frame, prediction)
            new_carries, now = [], dict(passed)
            for cell, carry in zip(cells, carries, strict=True):
                if cell.passed:
                    known = {name: now[name] for name in cell.passed if name in now}
                    carry = carry._replace(**known)
                carry, hidden = cell(carry, hidden)
                now |= {name: getattr(carry, name) for name in cell.passed}
                new_carries.append(carry)
            prediction = same_convolution(hidden, kernel)
            passed = {name: now[name] for name in passed}
            return (new_carries, passed, prediction), prediction

        passed = {name: getattr(carries[0], name) for name in cells[0].passed}
        scan = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
        )
        state = carries, passed, jnp.zeros_like(patches[:, 0])
        _, predictions = scan(self, state, (patches, teacher_forcing))
        return from_patches(predictions, size)


def build(
    name: str, workload: Workload, problem: Problem, settings: Settings
) -> JaxProgram:
    """See `Program`."""
    del name
    if workload.is_layer:
        layer = RecurrentLayer(layer_cell(workload, settings), implementation="scan")

        def apply(weights: Any, frames: Any) -> Any:
            return layer.apply({"params": weights}, frames)[1]
    else:
        model = _Predictor(workload, jnp.dtype(settings.dtype))
        forcing = jnp.asarray(problem.inputs["teacher_forcing"])

        def apply(weights: Any, frames: Any) -> Any:
            return model.apply({"params": weights}, frames, forcing)

    return JaxProgram(
        apply,
        flax.traverse_util.unflatten_dict(problem.weights, sep="/"),
        problem,
        workload,
        partial(flax.traverse_util.flatten_dict, sep="/"),
    )
