"""Reads checkpoints, verifies every leaf, and never writes into their folder."""

from __future__ import annotations

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
    first_difference,
    named_leaves,
)

PyTree = Any
_log = logging.getLogger(__name__)


class CheckpointError(UserError):
    """A checkpoint that cannot be saved, found or restored."""


class DamagedCheckpointError(Exception):
    """Files of one checkpoint are missing, truncated or altered."""


def steps_on_disk(directory: pathlib.Path) -> list[int]:
    """Returns the steps with a finished checkpoint, ascending."""
    if not directory.is_dir():
        return []
    names = [path.name for path in directory.iterdir() if path.is_dir()]
    numbers = [name for name in names if name.isascii() and name.isdigit()]
    return sorted(int(name) for name in numbers if name == str(int(name)))


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

    With `partly`, the checkpoint may hold more than the template, which is not read.
    Returns (its step, the restored tree, its record), or None without steps.

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
    difference = first_difference(record.leaves, wanted, partly=partly)
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
    """Returns the validation losses by step, where there is one in an intact record."""
    losses = {}
    for step in steps_on_disk(directory):
        # Damage is reported where the step is restored.
        with contextlib.suppress(DamagedCheckpointError):
            loss = read_record(directory, step).validation_loss
            if loss is not None:
                losses[step] = loss
    return losses


def restore_best(directory: str | pathlib.Path, template: PyTree) -> tuple[int, PyTree]:
    """Restores a part of the state of the best checkpoint, only reading the folder.

    Steps without a validation loss come after those with one, from the latest to the
    earliest. A damaged checkpoint is reported as a warning and the next one is tried.
    The template is that of the part, such as `{"params": ..., "model_state": ...}`; see
    `Checkpoints.restore_latest`. Returns (step, part).

    Raises:
        CheckpointError: there is no checkpoint, none is intact, or it belongs to
            another model.
    """
    silence_orbax()
    directory = pathlib.Path(directory).absolute()
    best = best_first(losses_on_disk(directory))
    steps = best + [s for s in steps_on_disk(directory)[::-1] if s not in best]
    found = first_intact(directory, steps, template, partly=True)
    if found is None:
        raise CheckpointError(f"There is no checkpoint in {directory}.")
    step, restored, _ = found
    for other in steps[steps.index(step) + 1 :]:
        try:
            read_record(directory, other)
        except DamagedCheckpointError as error:
            _log.warning(
                "The checkpoint of step %d in %s is damaged (%s) and was passed over; "
                "it may have been the best one.",
                other, directory, error,
            )  # fmt: skip
    return step, restored


def _read_arrays(
    item_directory: pathlib.Path, saved: Mapping[str, LeafRecord]
) -> dict[str, np.ndarray]:
    """Reads the arrays of the given names and compares them with their checksums."""
    wanted = unflatten_dict(dict.fromkeys(saved, 0), sep="/")
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    args = ocp.args.PyTreeRestore(wanted, restore_args=as_numpy, partial_restore=True)
    try:
        with ocp.Checkpointer(state_handler()) as checkpointer:
            arrays = named_leaves(checkpointer.restore(item_directory, args=args))
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


def _placed_like(template: Any, array: np.ndarray) -> jax.Array:
    """Returns `array` on the devices of `template`."""
    if template.sharding is None:
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
        """Reads one array after the other, up to the first error."""
        args = args or [ocp.RestoreArgs()] * len(infos)
        arrays: list[np.ndarray] = []
        for info, arg in zip(infos, args, strict=True):
            arrays += await super().deserialize([info], [arg])
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
