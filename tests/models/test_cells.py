"""Every network of convolutional layers with every cell, by its config."""

import jax
import jax.numpy as jnp
import pytest

from convlstm_jax.cells import CELLS
from convlstm_jax.config import validated
from convlstm_jax.models import MODELS

FIELDS = {
    "encoder_forecaster": {"patch_size": 2},
    "recurrent_predictor": {"patch_size": 2},
    "next_frame": {"kernel_sizes": (3,), "num_normalized_layers": 1},
    "clip_classifier": {"patch_size": 2},
}
OF_CELLS = {
    "convgru": {"reset_after": True, "activation": "leaky_relu"},
    "trajgru": {"num_links": 3},
}


PASS_A_MEMORY_ON = {"predrnn", "predrnnpp", "mim"}
NEED_INPUT = {*PASS_A_MEMORY_ON, "mingru", "minlstm"}
DO_NOT_FIT = {
    "encoder_forecaster": NEED_INPUT,
    "recurrent_predictor": set(),
    "next_frame": PASS_A_MEMORY_ON,
    "clip_classifier": PASS_A_MEMORY_ON,
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", FIELDS)
def test_every_network_has_every_cell_that_fits(name, cell):
    own = {"features": (3,), **FIELDS[name], **OF_CELLS.get(cell, {})}
    config, problems = validated(MODELS[name], {"cell": cell, **own}, "config.model.")
    if cell in DO_NOT_FIT[name]:
        fitting = [repr(other) for other in CELLS if other not in DO_NOT_FIT[name]]
        assert problems[-1].startswith(
            f"config.model.cell is {cell!r}: it must be one of {', '.join(fitting)}"
        )
        return
    assert not problems
    network, frames = config.build(), jnp.zeros((2, 3, 8, 6, 1))

    def run(key, frames):
        if name == "clip_classifier":
            variables, apply = network.init(key, frames), network.apply
        else:
            variables = network.init_forecaster(key, frames.shape[2:])

            def apply(variables, frames):
                return network.forecast(variables, frames, 2).frames

        outputs, pull_back = jax.vjp(apply, variables, frames)
        return outputs, variables, pull_back(outputs)

    outputs, variables, gradients = jax.eval_shape(run, jax.random.key(0), frames)
    assert outputs.shape == ((2, 2) if name == "clip_classifier" else (2, 2, 8, 6, 1))
    assert jax.tree.structure(gradients) == jax.tree.structure((variables, frames))
    shapes = {
        path[-1].key: leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }
    assert shapes.get("flow_output_bias") == ((6,) if cell == "trajgru" else None)
    assert ("recurrent_bias" in shapes) == (cell in OF_CELLS)


@pytest.mark.parametrize("name", FIELDS)
def test_a_cell_has_its_own_fields_alone(name):
    for field, cell in (("num_links", "trajgru"), ("reset_after", "convgru")):
        values = {field: OF_CELLS[cell][field]}
        _, problems = validated(MODELS[name], values, "config.model.")
        assert problems == [
            f"config.model.{field} does not exist with config.model.cell='convlstm': "
            f"it needs config.model.cell={cell!r}"
        ]


@pytest.mark.parametrize("name", ["recurrent_predictor", "clip_classifier"])
def test_a_cell_that_reads_no_state_has_no_kernel_for_it(name):
    values = {"cell": "mingru", "recurrent_kernel_size": 5}
    (problem,) = validated(MODELS[name], values, "config.model.")[1]
    message = "config.model.recurrent_kernel_size does not exist with config.model.cell"
    assert problem.startswith(f"{message}='mingru': it needs config.model.cell=")
