"""Takes the arrays of a foreign file into a model, and reports what became of each."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from convlstm_jax.cells.convlstm import GATE_ORDER
from convlstm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ImportReport:
    """What became of a file's arrays.

    Attributes:
        placed: (name in the file, path in the model), in the model's order.
        skipped: (name in the file, why it was not used).
        notes: further remarks for the user, a sentence each.
    """

    placed: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...] = ()
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

    Every importer takes the file, the model, and the model's variables or their shapes
    as `jax.eval_shape` gives them.
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
        """An array of the file in the model's layout, float32; zeros if it is unfit.

        Args:
            name: its name in the file.
            target: its path in the model.
            shape: the shape that it must have in the model.
            axes: the permutation for `np.transpose` from the file's axes to the
                model's, where they differ.
            gate_order: the file's order of the gates, a permutation of "ifgo", along
                the last of the model's axes, if there are gates.
        """
        expected = tuple(shape[axes.index(i)] for i in range(len(axes))) or shape
        problem = _problem(self._arrays.get(name), target, expected)
        if problem:
            self._problems.append(f"{name} {problem}")
            return np.zeros(shape, np.float32)
        self._placed.append((name, target))
        array = np.asarray(self._arrays[name], np.float32)
        array = array.transpose(axes) if axes else array
        return reorder_gates(array, gate_order) if gate_order else array

    def take_all(
        self,
        shapes: dict[str, Any],
        source_of: Callable[[str], tuple[str, tuple[int, ...], str]],
    ) -> dict[str, Any]:
        """Takes every array of a model, given their shapes.

        `source_of` tells `name`, `axes` and `gate_order` of `take` for a path in the
        model, such as `params/layer_0/bias`.
        """

        def take(key_path, leaf):
            target = jax.tree_util.keystr(key_path, simple=True, separator="/")
            name, axes, gate_order = source_of(target)
            return self.take(name, target, leaf.shape, axes, gate_order)

        return jax.tree_util.tree_map_with_path(take, shapes)

    def report(
        self, reason: Callable[[str], str], notes: tuple[str, ...] = ()
    ) -> ImportReport:
        """What became of all arrays; `reason` tells why one was not taken.

        Raises:
            UserError: naming every array that did not fit.
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


def reorder_gates(array: np.ndarray, gate_order: str) -> np.ndarray:
    """Reorders the gates along the last axis, `[..., 4F]`, to this project's order."""
    gates = np.split(array, len(gate_order), axis=-1)
    return np.concatenate([gates[gate_order.index(g)] for g in GATE_ORDER], axis=-1)
