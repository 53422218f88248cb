"""Reads the state dicts that PyTorch saves; PyTorch itself is optional."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.errors import UserError
from convlstm_jax.paths import MAX_BYTES

# The axes of a kernel, for `Placement.take`: [out, in, K, K] to [K, K, in, out].
KERNEL_AXES = (2, 3, 1, 0)

# Where training programs keep the state dict inside a checkpoint.
_STATE_DICT_KEYS = ("state_dict", "model_state_dict")
# Modules that PyTorch puts around others to compile, distribute or checkpoint them.
_WRAPPERS = (
    "_orig_mod",
    "module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
)


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Reads a file of `torch.save`: a state dict, or a dict with one in "state_dict".

    Only tensors and plain containers are unpickled: no code of the file runs. Returns
    its tensors by key, floating-point ones as float32, see also `without_wrappers`.

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
        _check_size(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
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
    arrays = {}
    for key, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor):
            try:
                if tensor.untyped_storage().nbytes() < tensor.nbytes:
                    raise ValueError("one value stands for many")
                tensor = tensor.float() if tensor.is_floating_point() else tensor
                arrays[str(key)] = tensor.numpy(force=True)
            except Exception as error:  # Sparse, quantized or without values.
                raise UserError(
                    f"'{path}' cannot be read: {key} must be a dense tensor with its "
                    f"values ({error})"
                ) from error
    if not arrays:
        raise UserError(
            f"'{path}' holds no tensors by name: it must be a state dict, or a dict "
            'with one in "state_dict"'
        )
    return without_wrappers(arrays)


def _check_size(path: str | Path) -> None:
    """Refuses a zip archive that would be unpacked to more than is allowed."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_BYTES:
            raise UserError(
                f"'{path}' holds {size:,} bytes: it must hold at most {MAX_BYTES:,}"
            )


def without_wrappers(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The same under keys without the modules that wrap others."""
    found: dict[str, Any] = {}
    for key, value in state_dict.items():
        plain = ".".join(part for part in key.split(".") if part not in _WRAPPERS)
        if plain in found:
            raise UserError(f"the state dict has {plain} twice, once as {key}")
        found[plain] = value
    return found
