"""Weights of OpenSTL's recurrent networks, https://github.com/chengtan9907/OpenSTL.

These are ConvLSTM, PredRNN, PredRNN++, PredRNN-V2 and MIM. A cell adds the results of
convolutions without bias, each followed by a layer norm where the model has them, and
splits the sum into its gates, whose order is that of our cells. The cells of ConvLSTM
declare a forget bias of 1 but add none.
"""

import re
from pathlib import Path
from typing import Any

from convlstm_jax.errors import UserError
from convlstm_jax.interop.placement import Imported, Placement
from convlstm_jax.interop.torch_files import KERNEL_AXES, read_state_dict
from convlstm_jax.models.recurrent_predictor import RecurrentPredictor

# The wrappers of OpenSTL's method, Lightning and others.
_PREFIX = re.compile(r"^(?:(?:model|module|method)\.)+")
_NORM_AXES = (1, 2, 0)  # [channels, H, W] to [H, W, channels].

_NAMES = {
    "convlstm": "ConvLSTM",
    "predrnn": "PredRNN",
    "predrnnpp": "PredRNN++",
    "mim": "MIM",
}
# Names that one kind of cell alone has, the most special first.
_SIGNS = {"mim": "stlstm_layer.", "predrnnpp": "conv_c2m.", "predrnn": "conv_m."}

_PREDRNN = {
    "input": "conv_x",
    "recurrent": "conv_h",
    "memory": "conv_m",
    "output": "conv_o",
    "mixing": "conv_last",
}
# The parts of our layers, and the names in OpenSTL.
_PARTS = {
    "convlstm": {"input": "conv_x", "recurrent": "conv_h"},
    "predrnn": _PREDRNN,
    "predrnnpp": {
        **_PREDRNN,
        "cell": "conv_c",
        "cell_to_memory": "conv_c2m",
        "memory_to_output": "conv_om",
    },
    "mim": {
        "input": "conv_x_cc",
        "recurrent": "conv_t_cc",
        "memory": "conv_s_cc",
        "mixing": "conv_last",
        "stationary_input": "conv_x_concat",
        "stationary_recurrent": "conv_h_concat",
        "stationary_peephole": "ct_weight",
        "stationary_output_peephole": "oc_weight",
    },
}
_HIGHWAY = {"input": "x_concat", "recurrent": "z_concat"}

_KINDS = {"kernel": "0.weight", "norm_scale": "1.weight", "norm_offset": "1.bias"}
_IN_LAYER = re.compile(
    r"params/(layer_(?P<layer>\d+)|gradient_highway)/"
    r"(?P<part>\w+?)(_(?P<kind>kernel|norm_scale|norm_offset))?"
)
_UNUSED = {
    "convlstm": r"cell_list\.\d+\.(conv_o\.\d+|conv_last)\.(weight|bias)",
    "predrnnpp": r"cell_list\.\d+\.conv_o\.\d+\.(weight|bias)",
    "mim": r"stlstm_layer_diff\.\d+\.conv_last\.weight",
}
_CELL = re.compile(r"(?:cell_list|stlstm_layer)\.(\d+)\.")
_NORM = re.compile(r".*\.1\.(?:weight|bias)")


def import_openstl(
    path: str | Path, model: RecurrentPredictor, shapes: dict[str, Any]
) -> Imported:
    """Reads a checkpoint of one of OpenSTL's networks into a `RecurrentPredictor`.

    See `Imported`. Keys of the file may begin with `model.` or `method.`.

    Raises:
        UserError: see `read_state_dict`; the weights do not fit the model.
    """
    state_dict = read_state_dict(path)
    keys = {_PREFIX.sub("", key): key for key in state_dict}
    _require_same_network(path, model, keys)

    def source(target: str) -> tuple[str, tuple[int, ...], str]:
        name = openstl_name(target, model.cell)
        axes = KERNEL_AXES if target.endswith("kernel") else _NORM_AXES
        return keys.get(name, name), axes, ""

    def reason(key: str) -> str:
        name = _PREFIX.sub("", key)
        if re.fullmatch(_UNUSED.get(model.cell, "-"), name):
            return "as OpenSTL's cells never use it"
        if name == "adapter.weight":
            return "as it serves the decoupling loss alone, whose weight is 0"
        return "as the model has no such array"

    placement = Placement(f"'{path}' does not fit the model of the config", state_dict)
    variables = placement.take_all(shapes, source)
    return Imported(variables, placement.report(reason))


def _require_same_network(
    path: str | Path, model: RecurrentPredictor, keys: dict[str, str]
) -> None:
    """Refuses settings with which the network computes something else."""
    found = [cell for cell, sign in _SIGNS.items() if any(sign in key for key in keys)]
    cell = found[0] if found else "convlstm"
    if cell != model.cell:
        raise UserError(
            f"'{path}' has the cells of {_NAMES[cell]}: model.cell is {model.cell!r}, "
            f"where it must be {cell!r}"
        )
    offset = 0 if cell == "convlstm" else 1
    if model.forget_offset != offset:
        declares = ", whose cells declare a forget bias but add none"
        raise UserError(
            f"model.forget_offset is {model.forget_offset:g}: it must be {offset} with "
            f"the weights of OpenSTL{'' if offset else declares}"
        )
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


def openstl_name(target: str, cell: str) -> str:
    """The name in OpenSTL of an array of our model, given its path `params/…`."""
    match = _IN_LAYER.fullmatch(target)
    if match is None:
        name = target.removeprefix("params/").removesuffix("_kernel")
        return {"output": "conv_last.weight", "adapter": "adapter.weight"}[name]
    part, kind = match["part"], match["kind"]
    if match["layer"] is None:
        return f"gradient_highway.{_HIGHWAY[part]}.{_KINDS[kind]}"
    layer = int(match["layer"])
    folder, names = "cell_list", _PARTS[cell]
    if cell == "mim":
        folder = "stlstm_layer"
        if layer == 0:
            names = _PREDRNN
        elif part.startswith("non"):
            folder, layer = "stlstm_layer_diff", layer - 1
            part = part.removeprefix("non")
    name = f"{folder}.{layer}.{names[part]}"
    if kind is None:
        return name
    return f"{name}.weight" if part == "mixing" else f"{name}.{_KINDS[kind]}"
