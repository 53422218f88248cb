"""How Orbax is set up to store a state: one error a failure, any path, no log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import orbax.checkpoint as ocp


def state_handler() -> ocp.PyTreeCheckpointHandler:
    """Returns the handler of the item `state`: a tree of NumPy arrays."""
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, _SeparateArrays())
    )
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


class _SeparateArrays(ocp.type_handlers.NumpyHandler):
    """Stores NumPy arrays as Orbax does, but independently of each other.

    Orbax handles all arrays in one event loop, which it closes at the first failure:
    every array still under way then prints a traceback ("Event loop is closed").
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
    r"""Yields a path to `folder` in which no character has a meaning to Orbax.

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
    # TensorStore appends codes and whole specifications in brackets, and puts what the
    # operating system said ("No space left on device") last before them.
    text = lines[0].split(" [")[0].rstrip(".")
    return text if len(text) <= 250 else f"{text[:100]} ... {text[-140:]}"
