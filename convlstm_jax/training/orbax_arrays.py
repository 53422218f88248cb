"""How Orbax stores the arrays of a state, such that a failure stays one error.

Orbax reads and writes all arrays of a state in one event loop, which it closes at the
first failure: every other array still under way then prints a traceback ("Event loop
is closed") before the error proper arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import orbax.checkpoint as ocp


def state_handler() -> ocp.PyTreeCheckpointHandler:
    """Returns the handler of the item `state`: a tree of NumPy arrays."""
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, _SeparateArrays())
    )
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


class _SeparateArrays(ocp.type_handlers.NumpyHandler):
    """Stores NumPy arrays as Orbax does, but none of them depends on another."""

    async def serialize(
        self,
        values: Sequence[np.ndarray],
        infos: Sequence[ocp.type_handlers.ParamInfo],
        args: Sequence[ocp.SaveArgs] | None = None,
    ) -> Sequence[ocp.future.Future]:
        """Copies the arrays and starts to write each in an event loop of its own."""
        args = args or [ocp.SaveArgs()] * len(values)
        writes: list[ocp.future.Future] = []
        for value, info, arg in zip(values, infos, args, strict=True):
            writes.extend(await super().serialize([value], [info], [arg]))
        return writes

    async def deserialize(
        self,
        infos: Sequence[ocp.type_handlers.ParamInfo],
        args: Sequence[ocp.RestoreArgs] | None = None,
    ) -> Sequence[np.ndarray]:
        """Reads the arrays, and only then raises the first error, if any."""
        args = args or [ocp.RestoreArgs()] * len(infos)
        read_some = super().deserialize
        results = await asyncio.gather(
            *(read_some([i], [a]) for i, a in zip(infos, args, strict=True)),
            return_exceptions=True,
        )
        arrays: list[np.ndarray] = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            arrays.extend(result)
        return arrays
