"""Assigns the arrays of a foreign file to those of a model, and reports it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from convlstm_jax.cells.convlstm import GATE_ORDER
from convlstm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Source:
    """What a file offers for one array of a model.

    Attributes:
        name: its name in the file, or what it would be called there.
        array: the values in the file; None if they are missing.
        axes: the permutation for `np.transpose` from the file's axes to the model's;
            None if they are the same.
        gate_order: the file's order of the gates, a permutation of "ifgo", along the
            last of the model's axes; "" where there are no gates.
    """

    name: str
    array: np.ndarray | None
    axes: tuple[int, ...] | None = None
    gate_order: str = ""

    def expected_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that the file's array must have, given `shape` in the model."""
        if self.axes is None:
            return shape
        return tuple(shape[self.axes.index(axis)] for axis in range(len(shape)))

    def convert(self) -> np.ndarray:
        """The array in the model's layout, float32."""
        array = np.asarray(self.array, np.float32)
        if self.axes is not None:
            array = array.transpose(self.axes)
        return reorder_gates(array, self.gate_order) if self.gate_order else array

    def problem(self, target: str, shape: tuple[int, ...]) -> str | None:
        """Why the array cannot fill `target`, or None."""
        expected = self.expected_shape(shape)
        if self.array is None:
            return f"{self.name} is missing, expected with shape {expected}"
        if self.array.shape != expected:
            return f"{self.name} has shape {self.array.shape}, expected {expected}"
        if self.array.dtype.kind not in "fiu":
            return f"{self.name} has values of type {self.array.dtype}"
        if not np.isfinite(self.array).all():
            return f"{self.name} has values that are not finite"
        if target.endswith("/var") and (self.array < 0).any():
            return f"{self.name} has values below 0"
        return None


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

    Every importer is called with the file, the model to fill, and its variables or
    their shapes as `jax.eval_shape` gives them.

    Attributes:
        variables: `{"params": …}` and, where the model has them, other collections such
            as "batch_stats", as the model's `apply` takes them.
        report: what went where.
    """

    variables: dict[str, Any]
    report: ImportReport


def reorder_gates(array: np.ndarray, gate_order: str) -> np.ndarray:
    """Reorders the gates along the last axis, `[..., 4F]`, to this project's order."""
    parts = np.split(array, len(gate_order), axis=-1)
    gates = dict(zip(gate_order, parts, strict=True))
    return np.concatenate([gates[gate] for gate in GATE_ORDER], axis=-1)


def fill(
    path: str | Path, shapes: dict[str, Any], find: Callable[[str], Source]
) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
    """Fills a model's variables from a file.

    Args:
        path: the file, for messages.
        shapes: the model's variables, or their shapes as `jax.eval_shape` gives them.
        find: what the file offers for a path such as `params/layer_0/bias`.

    Returns:
        The variables as float32 arrays, and where they came from (see `ImportReport`).

    Raises:
        UserError: naming every array that is missing, or has another shape or values
            that are not finite.
    """
    problems: list[str] = []
    placed: list[tuple[str, str]] = []

    def take(key_path, leaf):
        target = jax.tree_util.keystr(key_path, simple=True, separator="/")
        source = find(target)
        problem = source.problem(target, leaf.shape)
        if problem is not None:
            problems.append(problem)
            return None
        placed.append((source.name, target))
        return source.convert()

    variables = jax.tree_util.tree_map_with_path(take, shapes)
    if problems:
        raise UserError(
            f"'{path}' does not fit the model of the config: {'; '.join(problems)}"
        )
    return variables, tuple(placed)
