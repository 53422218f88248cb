"""The recurrent cells, by the name that a config gives them."""

from typing import Any

from convlstm_jax.cells.cell import RecurrentCell
from convlstm_jax.cells.convgru import ConvGRUCell
from convlstm_jax.cells.convlstm import ConvLSTMCell
from convlstm_jax.cells.trajgru import TrajGRUCell

__all__ = ["CELLS", "RecurrentCell", "build_cell"]

CELLS: dict[str, type[RecurrentCell]] = {
    "convlstm": ConvLSTMCell,
    "convgru": ConvGRUCell,
    "trajgru": TrajGRUCell,
}


def build_cell(cell: str, **fields: Any) -> RecurrentCell:
    """A cell by its name, with those of a network's fields that it has."""
    cls = CELLS[cell]
    return cls(**{k: v for k, v in fields.items() if k in cls.__dataclass_fields__})
