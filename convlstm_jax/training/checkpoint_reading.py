"""Reads checkpoints, verifying every leaf, and never writes into their folder."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from convlstm_jax.errors import UserError
from convlstm_jax.training import checksums
from convlstm_jax.training.orbax_arrays import state_handler
from convlstm_jax.training.ranking import best_first

PyTree = Any
Record = dict[str, Any]
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


class CheckpointError(UserError):
    """A checkpoint that cannot be saved, found or restored, told in one sentence."""


class DamagedCheckpointError(Exception):
    """Files of one checkpoint are missing, cut short or altered."""


def steps_on_disk(directory: pathlib.Path) -> list[int]:
    """Returns the steps with a finished checkpoint, ascending.

    A save under way, or one that was killed, bears a longer name and is not counted.
    """
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if _is_step(path))


def read_record(directory: pathlib.Path, step: int) -> Record:
    """Returns the record of a checkpoint: `progress`, `metric` and `leaves`.

    Raises:
      DamagedCheckpointError: if it is missing, cut short or altered.
    """
    try:
        handler = ocp.JsonCheckpointHandler()
        sealed = handler.restore(
            directory / str(step) / "record", args=ocp.args.JsonRestore()
        )
        return checksums.unseal(sealed)
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(one_line(error)) from error


def restore_state(
    directory: pathlib.Path, step: int, template: PyTree, *, partly: bool = False
) -> tuple[PyTree, Record]:
    """Restores the state of one checkpoint, or a part of it, and verifies it.

    Args:
      directory: the folder of all steps.
      step: which of them.
      template: the tree to restore into; see `Checkpoints.restore_latest`.
      partly: whether the checkpoint may hold more than the template. What the
        template leaves out is not read.

    Returns:
      (the restored tree, the record of the checkpoint).

    Raises:
      CheckpointError: if the checkpoint is of another model.
      DamagedCheckpointError: if its files are missing, cut short or altered.
    """
    record = read_record(directory, step)
    template_leaves = checksums.named_leaves(template)
    difference = checksums.first_difference(
        record["leaves"],
        {name: checksums.describe(leaf) for name, leaf in template_leaves.items()},
        allow_more_saved=partly,
    )
    if difference is not None:
        raise CheckpointError(
            f"The checkpoint of step {step} in {directory} is of another model: "
            f"{difference}."
        )
    saved = {name: record["leaves"][name] for name in template_leaves}
    arrays = _read_arrays(directory / str(step) / "state", saved)
    leaves = [
        _placed_like(template_leaves[name], arrays[name]) for name in template_leaves
    ]
    return jax.tree.unflatten(jax.tree.structure(template), leaves), record


def first_intact(
    directory: pathlib.Path,
    steps: Iterable[int],
    restore: Callable[[int], Result],
) -> tuple[int, Result, list[int]] | None:
    """Restores the first of `steps` that is intact, with a warning for each before it.

    Returns:
      (its step, what `restore` returned, the damaged steps), or None without steps.

    Raises:
      CheckpointError: if every one of them is damaged.
    """
    damaged: list[int] = []
    for step in steps:
        try:
            return step, restore(step), damaged
        except DamagedCheckpointError as error:
            damaged.append(step)
            _log.warning(
                "The checkpoint of step %d in %s is damaged (%s); trying another one.",
                step,
                directory,
                error,
            )
    if not damaged:
        return None
    raise CheckpointError(
        f"No checkpoint in {directory} is intact: those of the steps "
        f"{', '.join(map(str, damaged))} are damaged."
    )


def nested(named: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested dictionaries for leaves under paths such as `params/kernel`."""
    tree: dict[str, Any] = {}
    for name, leaf in named.items():
        *parents, last = name.split("/")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = leaf
    return tree


def one_line(error: BaseException) -> str:
    """Returns the first line of an error's message, shortened, without full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # The storage layer appends codes and whole specifications in brackets, and puts
    # what the operating system said ("No space left on device") last before them.
    text = lines[0].split(" [")[0].rstrip(".")
    return text if len(text) <= 250 else f"{text[:100]} ... {text[-140:]}"


def silence_orbax() -> None:
    """Keeps the messages of Orbax, dozens a save, out of the log of a run.

    Its errors as well: whatever fails is raised to the caller besides.
    """
    # Orbax logs through absl; what others log there is not touched.
    logging.getLogger("absl").addFilter(_is_not_from_orbax)


def restoring_order(directory: pathlib.Path, which: str) -> Sequence[int]:
    """Returns the steps to try one after another for `which` of the checkpoints.

    For "best": those with the metric of the latest checkpoint that has one, from best
    to worst, and after them the others, from latest to earliest.

    Raises:
      ValueError: if `which` is neither "best" nor "latest".
    """
    if which not in ("best", "latest"):
        raise ValueError(f'which is {which!r}, but must be "best" or "latest".')
    steps = steps_on_disk(directory)[::-1]
    if which == "latest":
        return steps
    metrics: dict[int, Any] = {}
    for step in steps:
        try:
            metric = read_record(directory, step)["metric"]
        except DamagedCheckpointError:
            continue  # Tried after the others, and reported then.
        if metric is not None:
            metrics[step] = metric
    if not metrics:
        return steps
    kind = metrics[max(metrics)]
    values = {
        step: metric["value"]
        for step, metric in metrics.items()
        if metric["name"] == kind["name"]
    }
    best = best_first(values, higher_is_better=kind["higher_is_better"])
    return best + [step for step in steps if step not in values]


def warn_of_damaged_records(directory: pathlib.Path, steps: Iterable[int]) -> None:
    """Warns of each of `steps` of which nobody can tell whether it was the best."""
    for step in steps:
        try:
            read_record(directory, step)
        except DamagedCheckpointError as error:
            _log.warning(
                "The checkpoint of step %d in %s is damaged (%s) and was passed over; "
                "it may have been the best one.",
                step,
                directory,
                error,
            )


def _is_not_from_orbax(entry: logging.LogRecord) -> bool:
    return "orbax" not in pathlib.PurePath(entry.pathname).parts


def _is_step(path: pathlib.Path) -> bool:
    return path.name.isascii() and path.name.isdigit() and path.is_dir()


def _read_arrays(
    item_directory: pathlib.Path, saved: Mapping[str, checksums.LeafRecord]
) -> dict[str, np.ndarray]:
    """Reads the arrays of the given names and compares them with their checksums."""
    # Orbax cannot store arrays without elements; their record says it all.
    stored = [name for name, leaf in saved.items() if 0 not in leaf["shape"]]
    wanted = nested({name: 0 for name in stored})
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    arrays = {
        name: np.zeros(leaf["shape"], leaf["dtype"])
        for name, leaf in saved.items()
        if 0 in leaf["shape"]
    }
    try:
        with ocp.Checkpointer(state_handler()) as checkpointer:
            restored = checkpointer.restore(
                item_directory,
                args=ocp.args.PyTreeRestore(
                    wanted, restore_args=as_numpy, partial_restore=True
                ),
            )
    except MemoryError:
        raise
    except Exception as error:
        # Orbax and its storage report missing and shortened files by exceptions of
        # at least five types; the record has already vouched for the tree itself.
        raise DamagedCheckpointError(one_line(error)) from error
    arrays.update(checksums.named_leaves(restored))
    for name, leaf in saved.items():
        if name not in arrays:
            raise DamagedCheckpointError(f"{name} is missing")
        if checksums.checksum(name, arrays[name]) != leaf["crc32"]:
            raise DamagedCheckpointError(f"{name} does not match its checksum")
    return arrays


def _placed_like(template: Any, array: np.ndarray) -> Any:
    """Returns `array` as the kind of leaf that `template` is, on its devices."""
    if isinstance(template, (bool, int, float, complex)):
        return type(template)(array.item())
    if isinstance(template, (np.ndarray, np.generic)):
        return array
    if template.sharding is None or not getattr(template, "committed", True):
        # An array that JAX may move to where the others are stays one.
        return jax.device_put(array)
    # Each process fills its own devices, also where others are out of its reach.
    return jax.make_array_from_callback(
        array.shape, template.sharding, lambda index: array[index]
    )
