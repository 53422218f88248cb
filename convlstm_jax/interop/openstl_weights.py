"""Weights of OpenSTL's ConvLSTM, https://github.com/chengtan9907/OpenSTL.

The model there reads patches whose channels are (row in patch, column, channel), as in
`ops.patches`. A cell adds the results of two convolutions without bias,
`conv_x` and `conv_h`, each followed by a layer norm where the model has them, and
splits the sum into the gates i, f, g, o. It declares a forget bias of 1 but adds none.
Its `conv_o` and `conv_last` are never used; the model's own `conv_last` gives the next
frame.
"""

import re
from pathlib import Path
from typing import Any

from convlstm_jax.errors import UserError
from convlstm_jax.interop.placement import Imported, ImportReport, Source, fill
from convlstm_jax.interop.torch_files import read_state_dict
from convlstm_jax.models.recurrent_predictor import RecurrentPredictor

# The wrappers of OpenSTL's method, Lightning and DataParallel.
_PREFIX = re.compile(r"^(?:(?:model|module|method)\.)+")

_UNUSED = re.compile(r"cell_list\.\d+\.(conv_o\.\d+|conv_last)\.(weight|bias)")
_NORM = re.compile(r"cell_list\.\d+\.conv_[xh]\.1\.(weight|bias)")
_CELL = re.compile(r"cell_list\.(\d+)\.")

_KERNEL_AXES = (2, 3, 1, 0)  # [out, in, K, K] to [K, K, in, out].
_NORM_AXES = (1, 2, 0)  # [channels, H, W] to [H, W, channels].

# Our path in a model; its name in OpenSTL, with x or h for input or recurrent; the axes
# and the order of the gates there.
_LAYER, _CONV = r"params/layer_(\d+)", "cell_list.{}.conv_{}"
_PATHS = (
    (r"params/output_kernel()()", "conv_last.weight", _KERNEL_AXES, ""),
    (_LAYER + r"/(.*)_kernel", _CONV + ".0.weight", _KERNEL_AXES, "ifgo"),
    (_LAYER + r"_(.*)_norm_scale", _CONV + ".1.weight", _NORM_AXES, "ifgo"),
    (_LAYER + r"_(.*)_norm_offset", _CONV + ".1.bias", _NORM_AXES, "ifgo"),
)


def import_openstl(
    path: str | Path, model: RecurrentPredictor, shapes: dict[str, Any]
) -> Imported:
    """Reads a checkpoint of OpenSTL's ConvLSTM into a `RecurrentPredictor`.

    See `Imported`. Keys of the file may begin with `model.` or `method.`.

    Raises:
        UserError: see `read_state_dict`; the model adds a forget offset; arrays are
            missing, have other shapes, or belong to cells or norms that the model
            lacks.
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

    def find(target: str) -> Source:
        for pattern, template, axes, gate_order in _PATHS:
            match = re.fullmatch(pattern, target)
            if match is not None:
                name = template.format(
                    match[1], "h" if match[2] == "recurrent" else "x"
                )
                key = keys.get(name, name)
                return Source(key, state_dict.get(key), axes, gate_order)
        raise ValueError(f"{target!r} is no variable of a RecurrentPredictor")

    variables, placed = fill(path, shapes, find)
    used = {key for key, _ in placed}
    skipped = tuple(
        (key, "as OpenSTL's cells never use it" if _UNUSED.fullmatch(name) else
         "as the model has no such array")
        for name, key in keys.items() if key not in used
    )  # fmt: skip
    return Imported(variables, ImportReport(placed, skipped))
