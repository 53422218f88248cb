"""Weights of OpenSTL's ConvLSTM, https://github.com/chengtan9907/OpenSTL.

A cell adds the results of two convolutions without bias, `conv_x` and `conv_h`, each
followed by a layer norm where the model has them, and splits the sum into the gates i,
f, g, o. It declares a forget bias of 1 but adds none. Its `conv_o` and `conv_last` are
never used; the model's own `conv_last` gives the next frame.
"""

import re
from pathlib import Path
from typing import Any

from convlstm_jax.errors import UserError
from convlstm_jax.interop.placement import Imported, Placement
from convlstm_jax.interop.torch_files import KERNEL_AXES, read_state_dict
from convlstm_jax.models.recurrent_predictor import RecurrentPredictor

# The wrappers of OpenSTL's method, Lightning and DataParallel.
_PREFIX = re.compile(r"^(?:(?:model|module|method)\.)+")

_UNUSED = re.compile(r"cell_list\.\d+\.(conv_o\.\d+|conv_last)\.(weight|bias)")
_NORM = re.compile(r"cell_list\.\d+\.conv_[xh]\.1\.(weight|bias)")
_CELL = re.compile(r"cell_list\.(\d+)\.")

_NORM_AXES = (1, 2, 0)  # [channels, H, W] to [H, W, channels].

_LAST = "conv_last.weight"
# Our paths in a layer, and the names in OpenSTL.
_IN_LAYER = re.compile(r"params/layer_(\d+)/(input|recurrent)_(.+)")
_SIDES = {"input": "x", "recurrent": "h"}
_PARTS = {"kernel": "0.weight", "norm_scale": "1.weight", "norm_offset": "1.bias"}


def import_openstl(
    path: str | Path, model: RecurrentPredictor, shapes: dict[str, Any]
) -> Imported:
    """Reads a checkpoint of OpenSTL's ConvLSTM into a `RecurrentPredictor`.

    See `Imported`. Keys of the file may begin with `model.` or `method.`.

    Raises:
        UserError: see `read_state_dict`; the weights do not fit the model.
    """
    if model.forget_offset != 0:
        raise UserError(
            f"model.forget_offset is {model.forget_offset:g}: it must be 0 with the "
            "weights of OpenSTL, whose cells declare a forget bias but add none"
        )
    state_dict = read_state_dict(path)
    keys = {_PREFIX.sub("", key): key for key in state_dict}
    cells = {match[1] for match in map(_CELL.match, keys) if match}
    if len(cells) > len(model.features):
        raise UserError(
            f"'{path}' has {len(cells)} cells: the model of the config has "
            f"{len(model.features)} layers in model.features"
        )
    norms = [key for name, key in keys.items() if _NORM.fullmatch(name)]
    if norms and not model.layer_norm:
        raise UserError(
            f"'{path}' has layer norms ({norms[0]}, ...): model.layer_norm is False, "
            "where it must be True"
        )

    def source(target: str) -> tuple[str, tuple[int, ...], str]:
        match = _IN_LAYER.fullmatch(target)
        if match is None:  # The output kernel.
            return keys.get(_LAST, _LAST), KERNEL_AXES, ""
        layer, side, part = match.groups()
        name = f"cell_list.{layer}.conv_{_SIDES[side]}.{_PARTS[part]}"
        axes = KERNEL_AXES if part == "kernel" else _NORM_AXES
        return keys.get(name, name), axes, "ifgo"

    def reason(key: str) -> str:
        if _UNUSED.fullmatch(_PREFIX.sub("", key)):
            return "as OpenSTL's cells never use it"
        return "as the model has no such array"

    placement = Placement(f"'{path}' does not fit the model of the config", state_dict)
    variables = placement.take_all(shapes, source)
    return Imported(variables, placement.report(reason))
