"""`--mode=import`: a new run from weights that another program trained."""

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from convlstm_jax.cli.build import build_optimizer, build_task, frame_shape
from convlstm_jax.cli.log import logging_to
from convlstm_jax.cli.workdir import CHECKPOINT_FOLDER, locked, make, save_config
from convlstm_jax.errors import UserError
from convlstm_jax.interop.keras_weights import import_keras
from convlstm_jax.interop.openstl_weights import import_openstl
from convlstm_jax.interop.placement import Imported
from convlstm_jax.interop.pytorch_network import import_pytorch
from convlstm_jax.tasks.task import Task, Variables
from convlstm_jax.training.checkpoint import Checkpoints
from convlstm_jax.training.early_stopping import EarlyStopping
from convlstm_jax.training.sharding import data_mesh
from convlstm_jax.training.state import TrainState, init_state

_log = logging.getLogger(__name__)

# The model that each source has weights for, and what reads them.
_IMPORTERS: dict[str, tuple[str, Any]] = {
    "keras": ("next_frame", import_keras),
    "openstl": ("recurrent_predictor", import_openstl),
    "pytorch": ("next_frame", import_pytorch),
}


def run(config: ConfigDict, *, source: str, checkpoint: Path, workdir: Path) -> None:
    """Fills the model of a config with weights and saves it as step 0 of a run.

    Args:
        config: the experiment; its model must be the one the weights are of.
        source: "keras", "openstl" or "pytorch".
        checkpoint: the file with the weights.
        workdir: a new folder for the run; nothing is written if the import fails.

    Raises:
        UserError: the weights do not fit the model, or cannot be read; the folder
            cannot be written to.
    """
    task = build_task(config)
    imported = read(config, task, source, checkpoint)
    make(workdir)
    with locked(workdir), logging_to(workdir):
        _log.info("imported %s (%s):", checkpoint, source)
        for line in imported.report.lines():
            _log.info(line)
        state = _first_state(config, task, imported.variables)
        # As a training that starts here would keep them.
        with Checkpoints(
            workdir / CHECKPOINT_FOLDER, metric_name="loss", higher_is_better=False
        ) as checkpoints:
            checkpoints.save(0, state, {"early_stopping": EarlyStopping().to_json()})
        # Last, as it makes the folder a run.
        save_config(workdir, config)
        _log.info(
            "saved as step 0 of %s; go on with `python main.py --workdir=%s` and "
            "--mode=evaluate, --mode=predict or --mode=train",
            workdir, workdir,
        )  # fmt: skip


def read(config: ConfigDict, task: Task, source: str, checkpoint: Path) -> Imported:
    """Reads the weights of a file into the model of a config.

    Raises:
        UserError: see `run`.
    """
    model_name, importer = _IMPORTERS[source]
    if config.model.name != model_name:
        bare_cells = (
            ", as the bare cells of other networks are for Python to import: see "
            "convlstm_layers in convlstm_jax/interop/pytorch_cells.py"
        )
        raise UserError(
            f"config.model.name is {config.model.name!r}: it must be {model_name!r} "
            f"with --from={source}{bare_cells if source == 'pytorch' else ''}"
        )
    shapes = jax.eval_shape(lambda: task.init(jax.random.key(0), frame_shape(config)))
    return importer(checkpoint, task.model, shapes)


def _first_state(config: ConfigDict, task: Task, variables: Variables) -> TrainState:
    """Step 0 of a training from these variables."""
    optimizer = build_optimizer(config)
    state = init_state(
        task,
        optimizer,
        seed=config.seed,
        frame_shape=frame_shape(config),
        with_ema=config.optimizer.ema_decay > 0,
        mesh=data_mesh(jax.local_devices()[:1]),
    )
    model_state = jax.tree.map(jnp.asarray, variables)
    params = model_state.pop("params")
    return state.replace(  # type: ignore[attr-defined]
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        ema_params=None if state.ema_params is None else params,
    )
