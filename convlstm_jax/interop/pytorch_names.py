"""Which modules of a PyTorch state dict are the layers of a ConvLSTM network."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convlstm_jax.errors import UserError


class Naming(NamedTuple):
    """How the cells of a kind of network are called, and what they have in common.

    Attributes:
      cell: the name of a cell, with `{}` for its number.
      first: the number of the bottom layer.
      gate_order: the order in which a cell cuts its convolution into gates.
    """

    cell: str
    first: int
    gate_order: str


NAMINGS = (
    Naming("convlstm{}.convLSTMcell", 1, "ifgo"),
    Naming("cell_list.{}", 0, "ifog"),
)
_CONVOLUTION = ".conv"  # Of a cell.
_NORM = "batchnorm{}"
_HEAD = "conv"


class Network(NamedTuple):
    """The names of a network's modules.

    Attributes:
      naming: how the cells are called.
      cells: the cells by layer, counted from 0 at the bottom.
      norms: the batch normalisations by the layer that they follow.
      heads: the convolutions that are in no cell.
    """

    naming: Naming
    cells: dict[int, str]
    norms: dict[int, str]
    heads: tuple[str, ...]

    def cell(self, layer: int) -> str:
        """The name of a cell, or what it would be called."""
        missing = self.naming.cell.format(layer + self.naming.first)
        return self.cells.get(layer, missing)

    def norm(self, layer: int) -> str:
        """The name of a batch normalisation, or what it would be called."""
        return self.norms.get(layer, _NORM.format(layer + self.naming.first))

    def head(self) -> str:
        """The name of the head, or what it would be called."""
        return self.heads[0] if self.heads else _HEAD


def find_network(path: str | Path, state_dict: Mapping[str, np.ndarray]) -> Network:
    """Finds the modules by their keys, which may begin with anything.

    Cells are known by name. Batch normalisations are what has a running mean: where
    not all of them are numbered as `batchnorm1` is, they are taken in the file's order,
    which is that of the network. What other convolutions there are count as heads.

    Args:
      path: the file, for messages.
      state_dict: its arrays by key.

    Raises:
      UserError: there are no cells of a known name, or two of the same number.
    """
    convolutions = [
        key.removesuffix(".weight")
        for key, array in state_dict.items()
        if key.endswith(".weight") and array.ndim >= 4
    ]
    norms = [
        key.removesuffix(".running_mean")
        for key in state_dict
        if key.endswith(".running_mean")
    ]
    for naming in NAMINGS:
        template = naming.cell + _CONVOLUTION
        cells = _numbered(path, template, naming.first, convolutions)
        if not cells:
            continue
        norms_by_layer = _numbered(path, _NORM, naming.first, norms)
        if len(norms_by_layer) < len(norms):
            norms_by_layer = dict(enumerate(norms))
        return Network(
            naming,
            {layer: name.removesuffix(_CONVOLUTION) for layer, name in cells.items()},
            norms_by_layer,
            tuple(name for name in convolutions if name not in cells.values()),
        )
    expected = " or ".join(
        f"{naming.cell.format(naming.first)}{_CONVOLUTION}.weight" for naming in NAMINGS
    )
    raise UserError(
        f"'{path}' has no ConvLSTM cells of a known name: it must have {expected} "
        f"among its keys, which are {', '.join(state_dict)}"
    )


def _numbered(
    path: str | Path, template: str, first: int, names: Iterable[str]
) -> dict[int, str]:
    """The names that end as a template does, by their numbers less `first`."""
    before, after = map(re.escape, template.split("{}"))
    pattern = re.compile(rf"(?:.*\.)?{before}(\d+){after}")
    found: dict[int, str] = {}
    for match in filter(None, map(pattern.fullmatch, names)):
        index = int(match[1]) - first
        if index in found:
            raise UserError(
                f"'{path}' has both {found[index]} and {match[0]}: it must have one "
                "stack of ConvLSTM layers"
            )
        found[index] = match[0]
    return found
