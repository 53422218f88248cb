"""Takes the arrays of a foreign file into a model, and reports what became of each."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from convlstm_jax.cells.convlstm import GATE_ORDER
from convlstm_jax.errors import UserError


class ImportReport(NamedTuple):
    """What became of a file's arrays, and remarks for the user."""

    placed: tuple[tuple[str, str], ...]  # (name in the file, path in the model)
    skipped: tuple[tuple[str, str], ...] = ()  # (name in the file, why)
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report as lines of text."""
        width = max((len(name) for name, _ in self.placed), default=0)
        lines = [f"  {name:{width}} -> {path}" for name, path in self.placed]
        for reason in dict.fromkeys(reason for _, reason in self.skipped):
            names = [name for name, why in self.skipped if why == reason]
            lines.append(f"not used, {reason}: {', '.join(names)}")
        return [*lines, *self.notes]


class Imported(NamedTuple):
    """A model's variables, filled from a file, and what went where.

    Every importer takes the file, the model, and the shapes of the model's variables.
    """

    variables: dict[str, Any]
    report: ImportReport


class Placement:
    """Takes arrays out of a file one by one, and remembers what does not fit."""

    def __init__(self, refusal: str, arrays: Mapping[str, Any]):
        """The arrays by name, and the beginning of the message if some do not fit."""
        self._refusal = refusal
        self._arrays = arrays
        self._placed: list[tuple[str, str]] = []
        self._problems: list[str] = []

    def take(
        self,
        name: str,
        target: str,
        shape: tuple[int, ...],
        axes: tuple[int, ...] = (),
        gate_order: str = "",
    ) -> np.ndarray:
        """The array `name` of the file, float32, for `target` in the model.

        Its axes are permuted as by `np.transpose`, and if there are gates along the
        last one, in the file's `gate_order`, they are reordered. If it does not give
        the shape wanted, the result is zeros and `report` raises.
        """
        expected = tuple(shape[axes.index(i)] for i in range(len(axes))) or shape
        problem = _problem(self._arrays.get(name), target, expected)
        if problem:
            self._problems.append(f"{name} {problem}")
            return np.zeros(shape, np.float32)
        self._placed.append((name, target))
        array = np.asarray(self._arrays[name], np.float32)
        array = array.transpose(axes) if axes else array
        if not gate_order:
            return array
        gates = np.split(array, len(gate_order), axis=-1)
        return np.concatenate([gates[gate_order.index(g)] for g in GATE_ORDER], axis=-1)

    def take_all(
        self,
        shapes: dict[str, Any],
        source_of: Callable[[str], tuple[str, tuple[int, ...], str]],
    ) -> dict[str, Any]:
        """Takes every array of a model, given their shapes.

        `source_of` maps a path in the model to `name`, `axes`, `gate_order` of `take`.
        """

        def take(key_path, leaf):
            target = jax.tree_util.keystr(key_path, simple=True, separator="/")
            name, axes, gate_order = source_of(target)
            return self.take(name, target, leaf.shape, axes, gate_order)

        return jax.tree_util.tree_map_with_path(take, shapes)

    def report(
        self, reason: Callable[[str], str], notes: tuple[str, ...] = ()
    ) -> ImportReport:
        """What became of all arrays; refused if any did not fit.

        `reason` tells why one was not taken.
        """
        if self._problems:
            raise UserError(f"{self._refusal}: {'; '.join(self._problems)}")
        used = {name for name, _ in self._placed}
        skipped = [(name, reason(name)) for name in self._arrays if name not in used]
        return ImportReport(tuple(self._placed), tuple(skipped), notes)


def _problem(array: Any, target: str, expected: tuple[int, ...]) -> str | None:
    """Why an array cannot fill `target`, or None."""
    if array is None:
        return f"is missing, expected with shape {expected}"
    if tuple(array.shape) != expected:
        return f"has shape {tuple(array.shape)}, expected {expected}"
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        return f"has values of type {array.dtype}"
    if not np.isfinite(array).all():
        return "has values that are not finite"
    if target.endswith("/var") and (array < 0).any():
        return "has values below 0"
    return None
