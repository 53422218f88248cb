"""Checkpoints that notice damage: saved in the background, verified when restored.

Built on Orbax. One folder per step holds the item `state`, the leaves of the training
state as plain arrays under their paths, and the item `record`, JSON with the loop's
own progress, the metric that ranks the checkpoints, and the checksums of
`convlstm_jax.training.checksums`. A step's folder gets its final name only when it is
complete, so a run that is killed while saving leaves nothing that looks finished.
"""

from __future__ import annotations

import contextlib
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from convlstm_jax.training import checkpoint_reading as reading
from convlstm_jax.training import checksums
from convlstm_jax.training.checkpoint_reading import CheckpointError, PyTree
from convlstm_jax.training.orbax_arrays import state_handler
from convlstm_jax.training.ranking import Ranking

__all__ = ["CheckpointError", "Checkpoints", "restore_part"]


class Checkpoints:
    """The checkpoints of one training run: the latest few and the best few.

    A context manager; leaving it waits for the save under way. In a run of several
    processes each of them makes the same calls on the same shared folder.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        *,
        metric_name: str,
        higher_is_better: bool,
        keep_latest: int = 2,
        keep_best: int = 1,
    ):
        """Opens the folder, creating it if need be.

        Args:
          directory: the folder of all steps.
          metric_name: the key in `metrics` that ranks the checkpoints.
          higher_is_better: whether a larger value of it is better.
          keep_latest: how many of the latest checkpoints stay, at least 1.
          keep_best: how many of the best checkpoints stay besides.

        Raises:
          CheckpointError: if the folder cannot be created or read.
          ValueError: if `keep_latest` is less than 1.
        """
        if keep_latest < 1:
            raise ValueError(f"keep_latest is {keep_latest}, but must be at least 1.")
        reading.silence_orbax()
        self.directory = pathlib.Path(directory).absolute()
        self._ranking = Ranking(
            metric_name, higher_is_better=higher_is_better, keep_best=keep_best
        )
        self._keep_latest = keep_latest
        self._last_saved_step: int | None = None
        try:
            self._manager = self._open_manager()
        except OSError as error:
            raise CheckpointError(
                f"The checkpoint folder {self.directory} cannot be opened: "
                f"{reading.one_line(error)}."
            ) from error

    def __enter__(self) -> Checkpoints:
        """Returns itself."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the folder as `close` does.

        After an error of one process of several it does not: closing waits for the
        others, and they may be gone.
        """
        if error is None or jax.process_count() == 1:
            self.close()

    def save(
        self,
        step: int,
        state: PyTree,
        progress: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Saves a checkpoint in the background; does nothing if `step` is saved.

        The state is copied before this returns, so it may be donated to the next
        training step at once.

        Args:
          step: the number of training steps done.
          state: any pytree of arrays and scalars; `None` leaves are allowed.
          progress: what else the loop needs to resume, as JSON can hold it.
          metrics: the results of the evaluation at this step, if there was one. A
            checkpoint without the ranking metric, or where it is NaN, is never the
            best.

        Raises:
          CheckpointError: if this save, or the one before it, failed; earlier
            checkpoints are intact then.
          ValueError: if `metrics` lacks the ranking metric.
          TypeError: if JSON cannot hold `progress`.
        """
        self.wait()
        if step in self._manager.all_steps():
            return
        arrays = _host_arrays(state)
        self._ranking.note(step, metrics)
        record = {
            "progress": dict(progress),
            "metric": self._ranking.as_json(step),
            "leaves": checksums.describe_with_checksums(arrays),
        }
        stored = {name: array for name, array in arrays.items() if array.size}
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(reading.nested(stored)),
            record=ocp.args.JsonSave(checksums.seal(record)),
        )
        self._last_saved_step = step
        try:
            # Forced, because Orbax by itself declines steps before the latest one.
            self._manager.save(step, args=items, force=True)
        except Exception as error:
            raise self._failed(error) from error

    def wait(self) -> None:
        """Waits until the save under way is complete on disk.

        Raises:
          CheckpointError: if that save failed; earlier checkpoints are intact then.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Waits as `wait` does and releases the threads of this object.

        Raises:
          CheckpointError: if the save under way failed.
        """
        try:
            self.wait()
        finally:
            self._manager.close()

    def all_steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """Returns the last step that has a checkpoint, or None."""
        return max(self.all_steps(), default=None)

    def best_step(self) -> int | None:
        """Returns the step of the best checkpoint, the earliest among equals.

        None if no checkpoint has the ranking metric.
        """
        ranked = self._ranking.ranked(self.all_steps())
        return ranked[0] if ranked else None

    def restore_latest(
        self, template_state: PyTree
    ) -> tuple[int, PyTree, dict[str, Any]] | None:
        """Restores the latest checkpoint that is intact.

        A damaged checkpoint is reported as a warning and the one before it is tried.
        Once an intact one is found, the damaged ones after it are set aside, renamed
        to `<step>.damaged`, since training will come past those steps again.

        Args:
          template_state: a state of the model: its leaves are arrays, scalars or
            `jax.ShapeDtypeStruct`; where they carry a sharding, the restored arrays
            get it, whatever the number of devices that saved them.

        Returns:
          (step, state, progress), or None if the folder holds no checkpoint.

        Raises:
          CheckpointError: if the checkpoint is of another model, or none is intact.
        """
        self.wait()
        found = reading.first_intact(
            self.directory,
            reading.steps_on_disk(self.directory)[::-1],
            lambda step: reading.restore_state(self.directory, step, template_state),
        )
        if found is None:
            return None
        step, (state, record), damaged_steps = found
        self._set_aside(damaged_steps)
        return step, state, record["progress"]

    def _open_manager(self) -> ocp.CheckpointManager:
        self.directory.mkdir(parents=True, exist_ok=True)
        for step in reading.steps_on_disk(self.directory):
            # A damaged record is no obstacle here: it is reported when restored.
            with contextlib.suppress(reading.DamagedCheckpointError):
                record = reading.read_record(self.directory, step)
                self._ranking.note_record(step, record["metric"])
        policy = checkpoint_managers.AnyPreservationPolicy(
            [checkpoint_managers.LatestN(self._keep_latest), self._ranking]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            # What an interrupted save left behind is of no use to anyone.
            cleanup_tmp_directories=True,
            save_root_metadata=False,
        )
        handlers = {"state": state_handler(), "record": ocp.JsonCheckpointHandler()}
        return ocp.CheckpointManager(
            self.directory, options=options, item_handlers=handlers
        )

    def _set_aside(self, damaged_steps: Sequence[int]) -> None:
        if not damaged_steps:
            return
        if jax.process_index() == 0:
            for step in damaged_steps:
                path = self.directory / str(step)
                path.rename(_free_path(self.directory / f"{step}.damaged"))
        multihost_utils.sync_global_devices("damaged checkpoints set aside")
        self._manager.reload()

    def _failed(self, error: Exception) -> CheckpointError:
        """Starts afresh after a failed save and returns the error to raise."""
        # The failed manager counts steps that are not on disk and raises again. Of
        # several processes one cannot close or open it alone.
        if jax.process_count() == 1:
            with contextlib.suppress(Exception):
                self._manager.close()
            with contextlib.suppress(OSError):
                self._manager = self._open_manager()
        return CheckpointError(
            f"The checkpoint of step {self._last_saved_step} could not be saved in "
            f"{self.directory} (the earlier ones are intact): "
            f"{reading.one_line(error)}."
        )


def restore_part(
    directory: str | pathlib.Path, template: PyTree, *, which: str = "best"
) -> tuple[int, PyTree]:
    """Restores a part of a state alone, from a folder that is only read.

    A damaged checkpoint is reported as a warning and the next one is tried.

    Args:
      directory: the folder of all steps.
      template: the part, spelt out as in `{"params": ..., "model_state": ...}`; see
        `Checkpoints.restore_latest`. All of it comes from one step.
      which: "best", by the metric that the run ranked them by, or "latest".

    Returns:
      (step, part).

    Raises:
      CheckpointError: if there is no checkpoint, none is intact, or it is of another
        model.
      ValueError: if `which` is neither "best" nor "latest".
    """
    reading.silence_orbax()
    directory = pathlib.Path(directory).absolute()
    steps = reading.restoring_order(directory, which)
    found = reading.first_intact(
        directory,
        steps,
        lambda step: reading.restore_state(directory, step, template, partly=True)[0],
    )
    if found is None:
        raise CheckpointError(f"There is no checkpoint in {directory}.")
    step, restored, _ = found
    reading.warn_of_damaged_records(directory, steps[steps.index(step) + 1 :])
    return step, restored


def _free_path(path: pathlib.Path) -> pathlib.Path:
    """Returns `path`, or if there is such a file `path` followed by 2, 3, ..."""
    numbered = (path.with_name(f"{path.name}{number}") for number in itertools.count(2))
    return next(p for p in itertools.chain([path], numbered) if not p.exists())


def _host_arrays(state: PyTree) -> dict[str, np.ndarray]:
    """Brings all leaves of a state to the host, under their paths."""

    def within_reach(leaf: Any) -> Any:
        if (
            isinstance(leaf, jax.Array)
            and not leaf.is_fully_addressable
            and not leaf.is_fully_replicated
        ):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return leaf

    leaves = checksums.named_leaves(state)
    # One call, so that all transfers from the device run at the same time.
    on_host = jax.device_get(
        {name: within_reach(leaf) for name, leaf in leaves.items()}
    )
    return {name: np.asarray(leaf) for name, leaf in on_host.items()}
