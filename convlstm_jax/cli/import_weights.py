"""`--mode=import`: a new run from weights that another program trained."""

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from convlstm_jax.cli.build import (
    build_objective,
    build_training,
    initial_shapes,
)
from convlstm_jax.cli.experiment import Experiment
from convlstm_jax.cli.log import logging_to
from convlstm_jax.cli.saved_config import save_config
from convlstm_jax.cli.workdir import CHECKPOINT_FOLDER, locked, make
from convlstm_jax.errors import UserError
from convlstm_jax.interop.keras_weights import import_keras
from convlstm_jax.interop.openstl_weights import import_openstl
from convlstm_jax.interop.placement import Imported
from convlstm_jax.interop.pytorch_weights import import_pytorch
from convlstm_jax.objectives import Objective
from convlstm_jax.objectives.base import Variables
from convlstm_jax.training.checkpoint import Checkpoints
from convlstm_jax.training.sharding import data_mesh
from convlstm_jax.training.state import EarlyStopping, TrainState

_log = logging.getLogger(__name__)

# Each source's model and reader.
_IMPORTERS: dict[str, tuple[str, Any]] = {
    "keras": ("next_frame", import_keras),
    "openstl": ("recurrent_predictor", import_openstl),
    "pytorch": ("next_frame", import_pytorch),
}


def run(
    experiment: Experiment, *, source: str, checkpoint: Path, workdir: Path
) -> None:
    """Fills the model of a config with weights and saves it as step 0 of a run.

    Args:
        experiment: The experiment; its model must be that of the weights.
        source: "keras", "openstl" or "pytorch".
        checkpoint: The file with the weights.
        workdir: A new folder for the run; nothing is written if the import fails.

    Raises:
        UserError: the weights do not fit the model, or cannot be read; the folder
            cannot be written to.
    """
    objective = build_objective(experiment)
    imported = read(experiment, objective, source, checkpoint)
    make(workdir)
    with locked(workdir), logging_to(workdir):
        _log.info("imported %s (%s):", checkpoint, source)
        for line in imported.report.lines():
            _log.info(line)
        state = _first_state(experiment, objective, imported.variables)
        # As a training from here would store them.
        with Checkpoints(workdir / CHECKPOINT_FOLDER) as checkpoints:
            checkpoints.save(0, state, EarlyStopping())
        # Last, as this turns the folder into a run.
        save_config(workdir, experiment.config)
        _log.info(
            "saved as step 0 of %s; go on with `python main.py --workdir=%s` and "
            "--mode=evaluate, --mode=predict or --mode=train",
            workdir, workdir,
        )  # fmt: skip


def read(
    experiment: Experiment, objective: Objective, source: str, checkpoint: Path
) -> Imported:
    """Reads the weights of a file into the model of an experiment.

    Raises:
        UserError: see `run`.
    """
    model_name, importer = _IMPORTERS[source]
    if experiment.model.name != model_name:
        bare_cells = (
            ", as the bare cells of other networks are for Python to import: see "
            "convlstm_layers in convlstm_jax/interop/pytorch_weights.py"
        )
        raise UserError(
            f"config.model.name is {experiment.model.name!r}: it must be "
            f"{model_name!r} with --from={source}"
            f"{bare_cells if source == 'pytorch' else ''}"
        )
    shapes = initial_shapes(objective, experiment)
    imported: Imported = importer(checkpoint, objective.model, shapes)
    return imported


def _first_state(
    experiment: Experiment, objective: Objective, variables: Variables
) -> TrainState:
    """The state of step 0 of a training from these variables."""
    mesh = data_mesh(jax.local_devices()[:1])
    optimizer, state = build_training(experiment, objective, mesh)
    model_state = jax.tree.map(jnp.asarray, variables)
    params = model_state.pop("params")
    return state.replace(  # type: ignore[attr-defined]
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        ema_params=None if state.ema_params is None else params,
    )
