"""The recurrent cells, by the name that a config gives them."""

from collections.abc import Sequence
from typing import Any

from convlstm_jax.cells.cell import RecurrentCell
from convlstm_jax.cells.convgru import ConvGRUCell
from convlstm_jax.cells.convlstm import ConvLSTMCell
from convlstm_jax.cells.mim import MIMCell
from convlstm_jax.cells.minimal import MinGRUCell, MinLSTMCell
from convlstm_jax.cells.predrnn import SpatiotemporalLSTMCell
from convlstm_jax.cells.predrnnpp import CausalLSTMCell
from convlstm_jax.cells.trajgru import TrajGRUCell

__all__ = ["CELLS", "RecurrentCell", "build_cell", "build_layers"]

CELLS: dict[str, type[RecurrentCell]] = {
    "convlstm": ConvLSTMCell,
    "convgru": ConvGRUCell,
    "trajgru": TrajGRUCell,
    "predrnn": SpatiotemporalLSTMCell,
    "predrnnpp": CausalLSTMCell,
    "mim": MIMCell,
    "mingru": MinGRUCell,
    "minlstm": MinLSTMCell,
}


def build_cell(cell: str, **fields: Any) -> RecurrentCell:
    """A cell by its name, with those of a network's fields that it has."""
    return CELLS[cell](**_own(cell, fields))


def build_layers(
    cell: str, features: Sequence[int], **fields: Any
) -> list[RecurrentCell]:
    """The cells of a stack, bottom layer first; see `RecurrentCell.layers`."""
    return CELLS[cell].layers(features, **_own(cell, fields))


def _own(cell: str, fields: dict[str, Any]) -> dict[str, Any]:
    known = CELLS[cell].__dataclass_fields__
    return {name: value for name, value in fields.items() if name in known}
