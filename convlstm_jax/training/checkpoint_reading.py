"""Reads checkpoints, verifies every leaf, and never writes into their folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import unflatten_dict

from convlstm_jax.errors import UserError
from convlstm_jax.training.checkpoint_record import (
    LeafRecord,
    Record,
    checksum,
    describe,
    first_difference,
    named_leaves,
)  # fmt: skip

PyTree = Any
_log = logging.getLogger(__name__)


class CheckpointError(UserError):
    """A checkpoint that cannot be saved, found or restored."""


class DamagedCheckpointError(Exception):
    """Files of one checkpoint are missing, truncated or altered."""


def steps_on_disk(directory: pathlib.Path) -> list[int]:
    """Returns the steps with a finished checkpoint, ascending.

    A save that is in progress or was killed has a longer name and is not counted.
    """
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if _is_step(path))


def _is_step(path: pathlib.Path) -> bool:
    name = path.name
    return (
        name.isascii() and name.isdigit() and name == str(int(name)) and path.is_dir()
    )


def read_record(directory: pathlib.Path, step: int) -> Record:
    """Returns the record of a checkpoint.

    Raises:
        DamagedCheckpointError: it is missing, truncated, altered or of another step.
    """
    path = directory / str(step) / "record" / "metadata"
    try:
        record = Record.unseal(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpointError(one_line(error)) from error
    if record.step != step:
        raise DamagedCheckpointError(f"it is that of step {record.step}")
    return record


def first_intact(
    directory: pathlib.Path,
    steps: Iterable[int],
    template: PyTree,
    *,
    partly: bool = False,
) -> tuple[int, PyTree, Record] | None:
    """Restores the first of `steps` that is intact, with a warning for each before it.

    Args:
        directory: the folder of all steps.
        steps: which of them to try.
        template: the tree to restore into; see `Checkpoints.restore_latest`.
        partly: whether the checkpoint may hold more than the template. Other leaves
            are not read.

    Returns:
        (its step, the restored tree, its record), or None without steps.

    Raises:
        CheckpointError: the checkpoint belongs to another model, or all are damaged.
    """
    damaged: list[int] = []
    for step in steps:
        try:
            return step, *_restore(directory, step, template, partly)
        except DamagedCheckpointError as error:
            damaged.append(step)
            _log.warning(
                "The checkpoint of step %d in %s is damaged (%s); trying another one.",
                step, directory, error,
            )  # fmt: skip
    if not damaged:
        return None
    raise CheckpointError(
        f"No checkpoint in {directory} is intact: those of the steps "
        f"{', '.join(map(str, damaged))} are damaged."
    )


def _restore(
    directory: pathlib.Path, step: int, template: PyTree, partly: bool
) -> tuple[PyTree, Record]:
    """Restores and verifies the state of one checkpoint, or a part of it."""
    record = read_record(directory, step)
    wanted = named_leaves(template)
    difference = first_difference(
        record.leaves,
        {name: describe(leaf) for name, leaf in wanted.items()},
        allow_more_saved=partly,
    )
    if difference is not None:
        raise CheckpointError(
            f"The checkpoint of step {step} in {directory} is of another model: "
            f"{difference}."
        )
    saved = {name: record.leaves[name] for name in wanted}
    with plain_path(directory) as plain_directory:
        arrays = _read_arrays(plain_directory / str(step) / "state", saved)
    leaves = [_placed_like(leaf, arrays[name]) for name, leaf in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves), record


def best_first(losses: Mapping[int, float]) -> list[int]:
    """Returns the steps in `losses` from best to worst, the earliest among equals."""
    return sorted(losses, key=lambda step: (losses[step], step))


def losses_on_disk(directory: pathlib.Path) -> dict[int, float]:
    """Returns the validation loss of each step with an intact record that has one."""
    losses = {}
    for step in steps_on_disk(directory):
        try:
            loss = read_record(directory, step).validation_loss
        except DamagedCheckpointError:
            continue  # Reported where it is restored.
        if loss is not None:
            losses[step] = loss
    return losses


def restoring_order(directory: pathlib.Path, which: str) -> list[int]:
    """Returns the steps to try one after another for `which` of the checkpoints.

    For "best": those with a validation loss, from best to worst, and after them the
    others, from latest to earliest.

    Raises:
        ValueError: `which` is neither "best" nor "latest".
    """
    if which not in ("best", "latest"):
        raise ValueError(f'which is {which!r}: it must be "best" or "latest"')
    best = best_first(losses_on_disk(directory)) if which == "best" else []
    return best + [s for s in steps_on_disk(directory)[::-1] if s not in best]


def warn_of_damaged_records(directory: pathlib.Path, steps: Iterable[int]) -> None:
    """Warns of damaged checkpoints of `steps`, which may have been the best."""
    for step in steps:
        try:
            read_record(directory, step)
        except DamagedCheckpointError as error:
            _log.warning(
                "The checkpoint of step %d in %s is damaged (%s) and was passed over; "
                "it may have been the best one.",
                step, directory, error,
            )  # fmt: skip


def _read_arrays(
    item_directory: pathlib.Path, saved: Mapping[str, LeafRecord]
) -> dict[str, np.ndarray]:
    """Reads the arrays of the given names and compares them with their checksums."""
    # Orbax cannot store arrays without elements; their record is enough.
    arrays = {
        name: np.zeros(leaf.shape, leaf.dtype)
        for name, leaf in saved.items()
        if 0 in leaf.shape
    }
    wanted = unflatten_dict({name: 0 for name in saved if name not in arrays}, sep="/")
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    try:
        with ocp.Checkpointer(state_handler()) as checkpointer:
            restored = checkpointer.restore(
                item_directory,
                args=ocp.args.PyTreeRestore(
                    wanted, restore_args=as_numpy, partial_restore=True
                ),
            )
        arrays |= named_leaves(restored)
    except MemoryError:
        raise
    except Exception as error:
        # Orbax and its storage report missing and shortened files by exceptions of
        # many types; the record has already verified the tree itself.
        raise DamagedCheckpointError(one_line(error)) from error
    for name, leaf in saved.items():
        if not isinstance(arrays.get(name), np.ndarray):
            raise DamagedCheckpointError(f"{name} is missing")
        if checksum(name, arrays[name]) != leaf.crc32:
            raise DamagedCheckpointError(f"{name} does not match its checksum")
    return arrays


def _placed_like(template: Any, array: np.ndarray) -> Any:
    """Returns `array` as the kind of leaf that `template` is, on its devices."""
    if isinstance(template, (bool, int, float, complex)):
        return type(template)(array.item())
    if isinstance(template, (np.ndarray, np.generic)):
        return array
    if template.sharding is None or not getattr(template, "committed", True):
        # An uncommitted array, which JAX may move to the others, stays uncommitted.
        return jax.device_put(array)
    # Each process fills its own devices, even if it cannot address others.
    return jax.make_array_from_callback(
        array.shape, template.sharding, lambda index: array[index]
    )


def state_handler() -> ocp.PyTreeCheckpointHandler:
    """Returns the handler of the item `state`: a tree of NumPy arrays."""
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, _SeparateArrays())
    )
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


class _SeparateArrays(ocp.type_handlers.NumpyHandler):
    """Stores NumPy arrays as Orbax does, but independently of each other.

    Orbax handles all arrays in one event loop, which it closes at the first failure:
    every array in progress then prints a traceback ("Event loop is closed").
    """

    async def serialize(self, values: Any, infos: Any, args: Any = None) -> list[Any]:
        """Copies the arrays and starts to write each in an event loop of its own."""
        args = args or [ocp.SaveArgs()] * len(values)
        writes: list[Any] = []
        for value, info, arg in zip(values, infos, args, strict=True):
            writes += await super().serialize([value], [info], [arg])
        return writes

    async def deserialize(self, infos: Any, args: Any = None) -> list[np.ndarray]:
        """Reads the arrays, and only then raises the first error, if any."""
        args = args or [ocp.RestoreArgs()] * len(infos)
        read = super().deserialize
        reads = (read([i], [a]) for i, a in zip(infos, args, strict=True))
        arrays: list[np.ndarray] = []
        for result in await asyncio.gather(*reads, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
            arrays += result
        return arrays


@contextlib.contextmanager
def plain_path(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    r"""Yields a path to `folder` without characters that are special to Orbax.

    Orbax passes paths to `glob`, and TensorStore reads `\` as a separator: with
    `runs/[1]` a checkpoint would be written that cannot be read. Such a folder is
    reached through a temporary link.
    """
    if not set(str(folder)) & set("*?[\\"):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="convlstm_jax-") as temporary:
        link = pathlib.Path(temporary) / "checkpoints"
        link.symlink_to(folder, target_is_directory=True)
        yield link


def silence_orbax() -> None:
    """Keeps Orbax's messages, dozens a save, out of the log; errors are raised."""
    # Orbax logs through absl; what others log there is not touched.
    logging.getLogger("absl").addFilter(_is_not_from_orbax)


def _is_not_from_orbax(entry: logging.LogRecord) -> bool:
    return "orbax" not in pathlib.PurePath(entry.pathname).parts


def one_line(error: BaseException) -> str:
    """Returns the first line of an error's message, shortened, without full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # TensorStore appends codes and whole specifications in brackets, preceded by the
    # message of the operating system ("No space left on device").
    text = lines[0].split(" [")[0].rstrip(".")
    return text if len(text) <= 250 else f"{text[:100]} ... {text[-140:]}"
