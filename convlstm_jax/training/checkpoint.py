"""Checkpoints: saved in the background, verified when restored.

Built on Orbax. One folder per step holds the item `state`, the leaves of the training
state as plain arrays under their paths, and the item `record`, see
`training.checkpoint_reading`. A step's folder gets its final name only when it is
complete, so a run that is killed while saving leaves no folder that looks complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from convlstm_jax.training import checkpoint_reading as reading
from convlstm_jax.training.checkpoint_reading import CheckpointError, PyTree
from convlstm_jax.training.state import EarlyStopping

_KEEP_LATEST = 2


@dataclasses.dataclass
class _Best(checkpoint_managers.PreservationPolicy):
    """Preserves the checkpoint of the lowest validation loss.

    Orbax's `BestN` reads metrics from files without checksums, and fails on damage.
    """

    losses: Mapping[int, float | None]

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        """Returns for each checkpoint whether it must stay."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        ranked = [s for s in reading.best_first(self.losses) if s in steps]
        return [step in ranked[:1] for step in steps]


class Checkpoints:
    """The checkpoints of one training run: the latest two and the best one.

    The best one has the lowest validation loss. Leaving the context waits for the save
    in progress. All processes of a run make the same calls on the same shared folder.
    """

    def __init__(self, directory: str | pathlib.Path):
        """Opens the folder of all steps, creating it if needed."""
        reading.silence_orbax()
        self.directory = pathlib.Path(directory).absolute()
        self._losses: dict[int, float | None] = {}
        self._last_saved_step: int | None = None
        self._cleanup = contextlib.ExitStack()
        try:
            self._manager = self._open_manager()
        except OSError as error:
            raise CheckpointError(
                f"The checkpoint folder {self.directory} cannot be opened: "
                f"{reading.one_line(error)}."
            ) from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        with self._cleanup:
            try:
                if error_type is None:
                    self.wait()
            finally:
                # After an error of one process of several, closing would wait for the
                # others, and they may be gone.
                if error_type is None or jax.process_count() == 1:
                    # A save that failed is told by `wait`.
                    with contextlib.suppress(Exception):
                        self._manager.close()

    def save(
        self,
        step: int,
        state: PyTree,
        early_stopping: EarlyStopping,
        validation_loss: float | None = None,
    ) -> None:
        """Saves a checkpoint in the background; does nothing if `step` is saved.

        The state, a pytree of arrays that each process holds whole, is copied before
        this returns, so it may be donated at once. A checkpoint without a validation
        loss, or where it is NaN, is never the best. If this save or the one before it
        failed, raises `CheckpointError`.
        """
        self.wait()
        if step in self._manager.all_steps():
            return
        self._last_saved_step = step
        # One call, so that all transfers from the device run at the same time.
        leaves = jax.device_get(reading.named_leaves(state))
        arrays = {name: np.asarray(leaf) for name, leaf in leaves.items()}
        if validation_loss is not None and math.isnan(validation_loss):
            validation_loss = None
        self._losses[step] = validation_loss
        record = reading.Record(
            step=step,
            validation_loss=validation_loss,
            early_stopping=early_stopping,
            leaves={
                n: reading.describe(a, reading.checksum(n, a))
                for n, a in arrays.items()
            },
        )
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(unflatten_dict(arrays, sep="/")),
            record=ocp.args.JsonSave(record.seal()),
        )
        try:
            # Forced, because Orbax by itself declines steps before the latest one.
            self._manager.save(step, args=items, force=True)
        except Exception as error:
            raise self._failed(error) from error

    def wait(self) -> None:
        """Waits until the save in progress is complete on disk.

        Raises `CheckpointError` if it failed; earlier checkpoints are intact then.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error

    def restore_latest(
        self, template_state: PyTree
    ) -> tuple[int, PyTree, EarlyStopping] | None:
        """Restores the latest checkpoint that is intact.

        Damaged ones are reported as warnings and renamed to `<step>.damaged`, since
        training will reach those steps again. The leaves of the template are JAX arrays
        or `jax.ShapeDtypeStruct`; the restored arrays get their shardings. Returns
        (step, state, early stopping), or None if the folder holds no checkpoint.

        Raises:
            CheckpointError: the checkpoint is of another model, or none is intact.
        """
        self.wait()
        steps = reading.steps_on_disk(self.directory)[::-1]
        found = reading.first_intact(self.directory, steps, template_state)
        if found is None:
            return None
        step, state, record = found
        self._set_aside(steps[: steps.index(step)])
        return step, state, record.early_stopping

    def _open_manager(self) -> ocp.CheckpointManager:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._losses.clear()
        self._losses |= reading.losses_on_disk(self.directory)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                [checkpoint_managers.LatestN(_KEEP_LATEST), _Best(self._losses)]
            ),
            # The remains of an interrupted save are useless.
            cleanup_tmp_directories=True,
            save_root_metadata=False,
            # Metadata of damaged checkpoints would keep the folder from being opened.
            lightweight_initialize=True,
        )
        handlers = {
            "state": reading.state_handler(),
            "record": ocp.JsonCheckpointHandler(),
        }
        path = self._cleanup.enter_context(reading.plain_path(self.directory))
        return ocp.CheckpointManager(path, options=options, item_handlers=handlers)

    def _set_aside(self, damaged_steps: Sequence[int]) -> None:
        if not damaged_steps:
            return
        self._manager.close()
        for step in damaged_steps if jax.process_index() == 0 else ():
            free, number = self.directory / f"{step}.damaged", 1
            while free.exists():
                number += 1
                free = self.directory / f"{step}.damaged{number}"
            (self.directory / str(step)).rename(free)
        multihost_utils.sync_global_devices("damaged checkpoints set aside")
        self._manager = self._open_manager()

    def _failed(self, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"The checkpoint of step {self._last_saved_step} could not be saved in "
            f"{self.directory} (the earlier ones are intact): "
            f"{reading.one_line(error)}."
        )
