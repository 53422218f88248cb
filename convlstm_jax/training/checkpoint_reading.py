"""Reads checkpoints, verifies every leaf, and never writes into their folder.

A flipped bit in a compressed array can restore to wrong numbers without an error. The
record lists every leaf of the state under its path with shape, dtype and CRC-32, and is
itself sealed by a CRC-32. It also holds the step, as folders can be renamed or linked.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pydantic
from flax.traverse_util import unflatten_dict

from convlstm_jax.errors import UserError
from convlstm_jax.paths import read_json, seal, unseal
from convlstm_jax.training.state import EarlyStopping, FrozenModel

PyTree = Any
_log = logging.getLogger(__name__)


class CheckpointError(UserError):
    """A checkpoint that cannot be saved, found or restored."""


class DamagedCheckpointError(Exception):
    """Files of one checkpoint are missing, truncated or altered."""


class LeafRecord(FrozenModel):
    """Shape, dtype and, of a saved leaf, CRC-32."""

    shape: list[int]
    dtype: str
    crc32: int | None = None

    def __str__(self) -> str:
        return f"shape {tuple(self.shape)} and dtype {self.dtype}"


class Record(FrozenModel):
    """What a checkpoint holds."""

    step: int
    validation_loss: float | None  # None also where it was NaN.
    early_stopping: EarlyStopping
    leaves: dict[str, LeafRecord]

    def seal(self) -> dict[str, Any]:
        """Returns the record as JSON with a checksum of its canonical text."""
        return seal(self.model_dump())

    @classmethod
    def unseal(cls, sealed: Any) -> Record:
        """Returns the record that `seal` wrapped; a `ValueError` if it was changed."""
        content = unseal(sealed, "its record")
        try:
            return cls.model_validate(content)
        except pydantic.ValidationError as error:
            field = ".".join(map(str, error.errors()[0]["loc"]))
            raise ValueError(
                f"its record is of another version: {field} has no or another value"
            ) from error


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves of any pytree under paths such as `params/cell/kernel`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def describe(leaf: Any, crc32: int | None = None) -> LeafRecord:
    """Returns shape and dtype of an array or a `jax.ShapeDtypeStruct`."""
    return LeafRecord(shape=list(leaf.shape), dtype=str(leaf.dtype), crc32=crc32)


def checksum(name: str, array: np.ndarray) -> int:
    """Returns the CRC-32 over a leaf's name, dtype, shape and bytes."""
    # With the name, two leaves of equal shape cannot be exchanged.
    header = f"{name} {array.dtype} {array.shape}".encode()
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return zlib.crc32(content.data, zlib.crc32(header))


def first_difference(
    saved: Mapping[str, LeafRecord], template: Mapping[str, Any], *, partly: bool
) -> str | None:
    """Returns the first leaf in which two states differ, in words, or None."""
    for name, wanted in template.items():
        leaf = describe(wanted)
        if name not in saved:
            return f"{name} has {leaf} in this model and is absent there"
        if str(saved[name]) != str(leaf):
            return f"{name} has {saved[name]} there and {leaf} in this model"
    for name in [] if partly else saved:
        if name not in template:
            return f"{name} has {saved[name]} there and is absent in this model"
    return None


def steps_on_disk(directory: pathlib.Path) -> list[int]:
    """Returns the steps with a finished checkpoint, ascending."""
    if not directory.is_dir():
        return []
    names = [path.name for path in directory.iterdir() if path.is_dir()]
    numbers = [name for name in names if name.isascii() and name.isdigit()]
    return sorted(int(name) for name in numbers if name == str(int(name)))


def read_record(directory: pathlib.Path, step: int) -> Record:
    """Returns the record of a checkpoint, if it is intact and of this step."""
    path = directory / str(step) / "record" / "metadata"
    try:
        record = Record.unseal(read_json(path))
    except (OSError, ValueError) as error:
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


def best_first(losses: Mapping[int, float | None]) -> list[int]:
    """Returns the steps with a loss from best to worst, the earliest among equals."""
    known = [(loss, step) for step, loss in losses.items() if loss is not None]
    return [step for _, step in sorted(known)]


def losses_on_disk(directory: pathlib.Path) -> dict[int, float | None]:
    """Returns the validation losses by step, of the intact records."""
    losses = {}
    for step in steps_on_disk(directory):
        # Damage is reported where the step is restored.
        with contextlib.suppress(DamagedCheckpointError):
            losses[step] = read_record(directory, step).validation_loss
    return losses


def restore_best(directory: str | pathlib.Path, template: PyTree) -> tuple[int, PyTree]:
    """Restores a part of the state of the best checkpoint, only reading the folder.

    Those without a validation loss come last, the latest first. A damaged checkpoint
    that may have been better is reported as a warning. The template is that of the
    part, see `Checkpoints.restore_latest`. Returns (step, part).

    Raises:
        CheckpointError: there is no intact checkpoint, or it is of another model.
    """
    silence_orbax()
    directory = pathlib.Path(directory).absolute()
    steps = steps_on_disk(directory)[::-1]
    losses = losses_on_disk(directory)
    damaged = [step for step in steps if step not in losses]
    best = best_first(losses)
    others = [step for step in steps if step not in damaged + best]
    found = first_intact(directory, damaged + best + others, template, partly=True)
    if found is None:
        raise CheckpointError(f"There is no checkpoint in {directory}.")
    return found[:2]


def _read_arrays(
    item_directory: pathlib.Path, saved: Mapping[str, LeafRecord]
) -> dict[str, np.ndarray]:
    wanted = unflatten_dict(dict.fromkeys(saved, 0), sep="/")
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    args = ocp.args.PyTreeRestore(wanted, restore_args=as_numpy, partial_restore=True)
    try:
        with ocp.Checkpointer(state_handler()) as checkpointer:
            arrays = named_leaves(checkpointer.restore(item_directory, args=args))
    except MemoryError:
        raise
    except Exception as error:
        # Missing and shortened files raise many types; the tree itself is verified.
        raise DamagedCheckpointError(one_line(error)) from error
    for name, leaf in saved.items():
        if not isinstance(arrays.get(name), np.ndarray):
            raise DamagedCheckpointError(f"{name} is missing")
        if checksum(name, arrays[name]) != leaf.crc32:
            raise DamagedCheckpointError(f"{name} does not match its checksum")
    return arrays


def _placed_like(template: Any, array: np.ndarray) -> jax.Array:
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

    Orbax handles all in one event loop, which it closes at the first failure: every
    array in progress then prints a traceback ("Event loop is closed").
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

    It passes paths to `glob`, and TensorStore reads `\` as a separator: a checkpoint
    in `runs/[1]` could not be read. Such a folder is reached through a temporary link.
    """
    if not set(str(folder)) & set("*?[\\"):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="convlstm_jax-") as temporary:
        link = pathlib.Path(temporary) / "checkpoints"
        link.symlink_to(folder, target_is_directory=True)
        yield link


def silence_orbax() -> None:
    """Keeps Orbax's messages, dozens a save, out of absl's log; errors are raised."""
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
