"""The weights of a run, for the modes that use a trained model."""

from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from convlstm_jax.cli.build import frame_shape
from convlstm_jax.tasks.task import Task, Variables
from convlstm_jax.training.checkpoint import restore_part
from convlstm_jax.training.sharding import replicated


def load_variables(
    task: Task, config: ConfigDict, workdir: Path, mesh: Mesh
) -> tuple[int, Variables]:
    """The best checkpoint's variables, without the optimizer's, and its step.

    The parameters are their moving average if the run keeps one.

    Raises:
        UserError: no intact checkpoint, or one of another model.
    """
    shapes = jax.eval_shape(lambda: task.init(jax.random.key(0), frame_shape(config)))
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=replicated(mesh)
        ),
        shapes,
    )
    params = template.pop("params")
    name = "ema_params" if config.optimizer.ema_decay else "params"
    step, restored = restore_part(
        workdir / "checkpoints", {name: params, "model_state": template}
    )
    return step, {"params": restored[name], **restored["model_state"]}
