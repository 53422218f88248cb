"""The record in a checkpoint: its step and its leaves, with checksums.

A flipped bit in a compressed array can restore to wrong numbers without an error. The
record lists every leaf of the state under its path with shape, dtype and CRC-32, and is
itself sealed by a CRC-32. It also holds the step, as folders can be renamed or linked.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pydantic

from convlstm_jax.training.state import EarlyStopping, FrozenModel


class LeafRecord(FrozenModel):
    """Shape, dtype and, of a saved leaf, CRC-32."""

    shape: list[int]
    dtype: str
    crc32: int | None = None

    def __str__(self) -> str:
        return f"shape {tuple(self.shape)} and dtype {self.dtype}"


class Record(FrozenModel):
    """What a checkpoint holds.

    Attributes:
        step: training steps done.
        validation_loss: the loss that ranks the checkpoints; None where there was no
            evaluation or it was NaN.
        early_stopping: the part of the loop's state outside the training state.
        leaves: the leaves of the state by path.
    """

    step: int
    validation_loss: float | None
    early_stopping: EarlyStopping
    leaves: dict[str, LeafRecord]

    def seal(self) -> dict[str, Any]:
        """Returns the record as JSON with a checksum of its canonical text."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return {"crc32": zlib.crc32(text.encode()), "content": json.loads(text)}

    @classmethod
    def unseal(cls, sealed: Any) -> Record:
        """Returns the record that `seal` wrapped.

        Raises:
            ValueError: the content does not match its checksum, or is no record.
        """
        if not isinstance(sealed, dict) or sorted(sealed) != ["content", "crc32"]:
            raise ValueError("its record is not one of ours")
        text = json.dumps(sealed["content"], sort_keys=True)
        if zlib.crc32(text.encode()) != sealed["crc32"]:
            raise ValueError("its record does not match its checksum")
        try:
            return cls.model_validate(sealed["content"])
        except pydantic.ValidationError as error:
            field = ".".join(map(str, error.errors()[0]["loc"]))
            raise ValueError(
                f"its record is of another version: {field} has no or another value"
            ) from error


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves of any pytree under paths such as `params/cell/kernel`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def describe(leaf: Any) -> LeafRecord:
    """Returns shape and dtype of an array or a `jax.ShapeDtypeStruct`."""
    return LeafRecord(shape=list(leaf.shape), dtype=str(leaf.dtype))


def checksum(name: str, array: np.ndarray) -> int:
    """Returns the CRC-32 over a leaf's name, dtype, shape and bytes.

    The name is included so that two leaves of equal shape cannot be exchanged.
    """
    header = f"{name} {array.dtype} {array.shape}".encode()
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return zlib.crc32(content.data, zlib.crc32(header))


def first_difference(
    saved: Mapping[str, LeafRecord], template: Mapping[str, Any], *, partly: bool
) -> str | None:
    """Returns the first leaf in which two states differ, in words, or None."""
    for name, wanted in template.items():
        leaf = describe(wanted)
        if name not in saved:
            return f"{name} has {leaf} in this model and is absent there"
        if str(saved[name]) != str(leaf):
            return f"{name} has {saved[name]} there and {leaf} in this model"
    for name in [] if partly else saved:
        if name not in template:
            return f"{name} has {saved[name]} there and is absent in this model"
    return None
