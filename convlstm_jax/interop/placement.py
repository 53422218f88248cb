"""Where each array of a foreign file goes in a model, and what to tell of it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from convlstm_jax.errors import UserError
from convlstm_jax.ops.cell import GATE_ORDER


@dataclasses.dataclass(frozen=True)
class Source:
    """What a file offers for one array of a model.

    Attributes:
      name: its name in the file, or what it would be called there.
      array: the values as the file has them; `None` if it lacks them.
      axes: the file's axes in the order of the model's, as `np.transpose` takes them;
        `None` where the order is the same.
      gate_order: the file's order of the gates, a permutation of "ifgo", where they lie
        along the last of the model's axes; "" where there are no gates.
    """

    name: str
    array: np.ndarray | None
    axes: tuple[int, ...] | None = None
    gate_order: str = ""

    def expected_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape the file's array must have for one of `shape` in the model."""
        if self.axes is None:
            return shape
        return tuple(shape[self.axes.index(axis)] for axis in range(len(shape)))

    def convert(self) -> np.ndarray:
        """The array as the model has it, float32."""
        array = np.asarray(self.array, np.float32)
        if self.axes is not None:
            array = array.transpose(self.axes)
        return gates_in_our_order(array, self.gate_order) if self.gate_order else array


@dataclasses.dataclass(frozen=True)
class ImportReport:
    """What became of a file's arrays.

    Attributes:
      placed: (name in the file, path in the model), in the model's order.
      skipped: (name in the file, why it was not used).
      notes: what the user should know besides, a sentence each.
    """

    placed: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report as lines of text."""
        width = max((len(name) for name, _ in self.placed), default=0)
        lines = [f"  {name:{width}} -> {path}" for name, path in self.placed]
        reasons = dict.fromkeys(reason for _, reason in self.skipped)
        for reason in reasons:
            names = [name for name, why in self.skipped if why == reason]
            lines.append(f"not used, {reason}: {', '.join(names)}")
        return [*lines, *self.notes]


class Imported(NamedTuple):
    """A model's variables, filled from a file.

    Attributes:
      variables: `{"params": …}` and, where the model has them, other collections such
        as "batch_stats", as the model's `apply` takes them.
      report: what went where.
    """

    variables: dict[str, Any]
    report: ImportReport


def gates_in_our_order(array: np.ndarray, gate_order: str) -> np.ndarray:
    """Reorders the four gates along the last axis from `gate_order` to `GATE_ORDER`.

    Args:
      array: `[..., 4F]`.
      gate_order: the gates' order in it, a permutation of "ifgo".
    """
    gates = dict(
        zip(gate_order, np.split(array, len(gate_order), axis=-1), strict=True)
    )
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
      UserError: naming every array that is missing, has another shape or values that
        are not finite.
    """
    problems: list[str] = []
    placed: list[tuple[str, str]] = []

    def take(key_path, leaf):
        target = jax.tree_util.keystr(key_path, simple=True, separator="/")
        source = find(target)
        expected = source.expected_shape(leaf.shape)
        if source.array is None:
            problems.append(f"{source.name} is missing, expected with shape {expected}")
        elif source.array.shape != expected:
            problems.append(
                f"{source.name} has shape {source.array.shape}, expected {expected}"
            )
        elif not np.isfinite(source.array).all():
            problems.append(f"{source.name} has values that are not finite")
        else:
            placed.append((source.name, target))
            return source.convert()
        return None

    variables = jax.tree_util.tree_map_with_path(take, shapes)
    if problems:
        raise UserError(
            f"'{path}' does not fit the model of the config: {'; '.join(problems)}"
        )
    return variables, tuple(placed)
