"""Weights of OpenSTL's ConvLSTM, https://github.com/chengtan9907/OpenSTL.

The model there reads patches whose channels are (row in patch, column, channel), as
`ops.patches` has them. A cell adds the results of two convolutions without bias,
`conv_x` and `conv_h`, each followed by a layer norm where the model has them, and cuts
the sum into the gates i, f, g, o. It declares a forget bias of 1 but adds none. Its
`conv_o` and `conv_last` are never used; the model's own `conv_last` gives the next
frame.
"""

import re
from pathlib import Path
from typing import Any

from convlstm_jax.errors import UserError
from convlstm_jax.interop.placement import Imported, ImportReport, Source, fill
from convlstm_jax.interop.torch_files import read_state_dict
from convlstm_jax.models.recurrent_predictor import RecurrentPredictor

_GATE_ORDER = "ifgo"

# The wrappers of OpenSTL's method, Lightning and DataParallel.
_PREFIX = re.compile(r"(?:(?:model|module|method)\.)+")

_UNUSED = re.compile(r"cell_list\.\d+\.(conv_o\.\d+|conv_last)\.(weight|bias)")
_NORM = re.compile(r"cell_list\.\d+\.conv_[xh]\.1\.(weight|bias)")
_CELL = re.compile(r"cell_list\.(\d+)\.")

_KERNEL_AXES = (2, 3, 1, 0)  # [out, in, K, K] to [K, K, in, out].
_NORM_AXES = (1, 2, 0)  # [channels, H, W] to [H, W, channels].


def import_openstl(
    path: str | Path, model: RecurrentPredictor, shapes: dict[str, Any]
) -> Imported:
    """Reads a checkpoint of OpenSTL's ConvLSTM into a `RecurrentPredictor`.

    Args:
      path: a file of `torch.save`, see `torch_files.read_state_dict`; keys may begin
        with `model.` or `module.`.
      model: the model to fill.
      shapes: its variables, or their shapes as `jax.eval_shape` gives them.

    Returns:
      The variables, and what went where.

    Raises:
      UserError: see `read_state_dict`; the model adds a forget offset; arrays are
        missing, have other shapes, or belong to cells or norms that the model lacks.
    """
    if model.forget_offset != 0:
        raise UserError(
            f"model.forget_offset is {model.forget_offset:g}: it must be 0 with the "
            "weights of OpenSTL, whose cells declare a forget bias but add none"
        )
    state_dict = read_state_dict(path)
    names = {_PREFIX.sub("", key, count=1) if _PREFIX.match(key) else key: key
             for key in state_dict}  # fmt: skip

    def find(target: str) -> Source:
        name, axes, gate_order = _name_in_openstl(target)
        key = names.get(name, name)
        return Source(key, state_dict.get(key), axes, gate_order)

    _refuse_more_cells(path, names, len(model.features))
    norms = [key for name, key in names.items() if _NORM.fullmatch(name)]
    if norms and not model.layer_norm:
        raise UserError(
            f"'{path}' has layer norms ({norms[0]}, ...): model.layer_norm is False, "
            "where it must be True"
        )
    variables, placed = fill(path, shapes, find)
    used = {key for key, _ in placed}
    skipped = tuple(
        (key, "as OpenSTL's cells never use it" if _UNUSED.fullmatch(name) else
         "as the model has no such array")
        for name, key in names.items() if key not in used
    )  # fmt: skip
    return Imported(variables, ImportReport(placed, skipped))


def _name_in_openstl(target: str) -> tuple[str, tuple[int, ...], str]:
    """OpenSTL's name for a path in our model, and its axes and gates as `Source`'s."""
    if target == "params/output_kernel":
        return "conv_last.weight", _KERNEL_AXES, ""
    kernel = re.fullmatch(r"params/layer_(\d+)/(input|recurrent)_kernel", target)
    norm = re.fullmatch(
        r"params/layer_(\d+)_(input|recurrent)_norm_(scale|offset)", target
    )
    convolution = {"input": "conv_x", "recurrent": "conv_h"}
    if kernel:
        index, which = kernel.groups()
        name = f"cell_list.{index}.{convolution[which]}.0.weight"
        return name, _KERNEL_AXES, _GATE_ORDER
    if norm:
        index, which, part = norm.groups()
        suffix = {"scale": "weight", "offset": "bias"}[part]
        name = f"cell_list.{index}.{convolution[which]}.1.{suffix}"
        return name, _NORM_AXES, _GATE_ORDER
    raise ValueError(f"{target!r} is no variable of a RecurrentPredictor")


def _refuse_more_cells(path: str | Path, names: dict[str, str], layers: int) -> None:
    matches = [match for match in map(_CELL.match, names) if match]
    found = len({match[1] for match in matches})
    if found > layers:
        raise UserError(
            f"'{path}' has {found} cells: the model of the config has {layers} layers "
            "in model.features"
        )
