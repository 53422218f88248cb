"""`--mode=import`: a new run from weights that another program trained."""

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from convlstm_jax.cli.build import build_objective, build_training, initial_shapes
from convlstm_jax.cli.experiment import Experiment
from convlstm_jax.cli.process import logging_to
from convlstm_jax.cli.workdir import CHECKPOINT_FOLDER, locked, make, save_config
from convlstm_jax.errors import UserError
from convlstm_jax.interop.keras_weights import import_keras
from convlstm_jax.interop.openstl_weights import import_openstl
from convlstm_jax.interop.pytorch_weights import import_pytorch
from convlstm_jax.training.checkpoint import Checkpoints
from convlstm_jax.training.sharding import data_mesh
from convlstm_jax.training.state import EarlyStopping

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
    """Fills the model of a config with weights and saves it as step 0 of a new run.

    `source` is "keras", "openstl" or "pytorch". If an import fails, nothing is written.
    """
    model_name, importer = _IMPORTERS[source]
    needs = {"name": model_name}
    if source != "openstl":
        needs["cell"] = "convlstm"
    for name, needed in needs.items():
        value = getattr(experiment.model, name)
        if value != needed:
            raise UserError(
                f"config.model.{name} is {value!r}: it must be {needed!r} with "
                f"--from={source}"
            )
    objective = build_objective(experiment)
    shapes = initial_shapes(objective, experiment)
    imported = importer(checkpoint, objective.model, shapes)
    make(workdir)
    with locked(workdir), logging_to(workdir):
        _log.info("imported %s (%s):", checkpoint, source)
        for line in imported.report.lines():
            _log.info(line)
        mesh = data_mesh(jax.local_devices()[:1])
        optimizer, state = build_training(experiment, objective, mesh)
        model_state = jax.tree.map(jnp.asarray, imported.variables)
        params = model_state.pop("params")
        state = state.replace(  # type: ignore[attr-defined]
            params=params,
            model_state=model_state,
            opt_state=optimizer.init(params),
            ema_params=None if state.ema_params is None else params,
        )
        # As a training from here would store them.
        with Checkpoints(workdir / CHECKPOINT_FOLDER) as checkpoints:
            checkpoints.save(0, state, EarlyStopping())
        # Last, as this turns the folder into a run.
        save_config(workdir, experiment.config)
        _log.info(
            "saved as step 0; go on with `python main.py --workdir=%s --mode=MODE`",
            workdir,
        )
