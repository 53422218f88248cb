"""Reads the state dicts that PyTorch saves; PyTorch itself is optional."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from convlstm_jax.errors import UserError

# Where training programs keep the state dict inside a checkpoint.
_STATE_DICT_KEYS = ("state_dict", "model_state_dict")


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a file of `torch.save`: a state dict, or a dict with one in "state_dict".

    Nothing but tensors and plain containers is unpickled, so that a file from a
    stranger cannot run code.

    Args:
      path: a `.pth`, `.pt` or `.ckpt` file.

    Returns:
      Its tensors by key, in the order of the file, float16 and bfloat16 as float32.

    Raises:
      UserError: PyTorch is not installed; the file is missing, damaged or holds
        something else.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"reading '{path}' needs PyTorch, which is not installed: "
            "`pip install torch` (its CPU build is enough)"
        ) from error
    if not os.path.isfile(path):
        raise UserError(f"'{path}' is not a file: it must be one that torch.save wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Damage surfaces as a dozen types.
        raise UserError(
            f"'{path}' cannot be read as a state dict of PyTorch: it is damaged, or "
            "holds more than tensors, such as a whole module, of which state_dict() "
            f"alone can be read ({type(error).__name__})"
        ) from error
    for key in _STATE_DICT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = content if isinstance(content, Mapping) else {}
    arrays = {
        str(key): _as_array(tensor)
        for key, tensor in tensors.items()
        if isinstance(tensor, torch.Tensor)
    }
    if not arrays:
        raise UserError(
            f"'{path}' holds no tensors by name: it must be a state dict, or a dict "
            'with one in "state_dict"'
        )
    return arrays


def _as_array(tensor) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()
