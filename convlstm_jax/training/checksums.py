"""The record beside a checkpoint: what it holds, leaf by leaf, with checksums.

Storage formats notice a missing file, yet a flipped bit inside a compressed array can
restore to wrong numbers without a word. The record lists every leaf of the state under
its path with shape, dtype and CRC-32, and is itself sealed by a CRC-32.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

LeafRecord = dict[str, Any]


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves of any pytree under paths such as `params/cell/kernel`.

    Fields of dataclasses and named tuples, dictionary keys and positions in sequences
    all become parts of the path. `None` and empty containers have no leaves.
    """
    paths_and_leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in paths_and_leaves
    }


def describe(leaf: Any) -> LeafRecord:
    """Returns shape and dtype of an array, a `jax.ShapeDtypeStruct` or a scalar."""
    if not hasattr(leaf, "shape"):
        leaf = np.asarray(leaf)
    return {"shape": list(leaf.shape), "dtype": str(np.dtype(leaf.dtype))}


def checksum(name: str, array: np.ndarray) -> int:
    """Returns the CRC-32 over a leaf's name, dtype, shape and bytes.

    The name takes part so that two leaves of equal shape cannot trade places.
    """
    header = f"{name} {array.dtype} {array.shape}".encode()
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return zlib.crc32(content.data, zlib.crc32(header))


def describe_with_checksums(arrays: Mapping[str, np.ndarray]) -> dict[str, LeafRecord]:
    """Returns the record of each leaf: shape, dtype and `crc32`."""
    return {
        name: {**describe(array), "crc32": checksum(name, array)}
        for name, array in arrays.items()
    }


def first_difference(
    saved: Mapping[str, LeafRecord],
    wanted: Mapping[str, LeafRecord],
    *,
    allow_more_saved: bool = False,
) -> str | None:
    """Returns the first leaf in which two states differ, in words, or None.

    Args:
      saved: the leaves of a checkpoint.
      wanted: the leaves of the model that it is to be restored into.
      allow_more_saved: whether the checkpoint may hold further leaves.
    """

    def told(leaf: LeafRecord) -> str:
        return f"shape {tuple(leaf['shape'])} and dtype {leaf['dtype']}"

    for name, leaf in wanted.items():
        if name not in saved:
            return f"{name} has {told(leaf)} in this model and is absent there"
        there = saved[name]
        if (list(there["shape"]), there["dtype"]) != (leaf["shape"], leaf["dtype"]):
            return f"{name} has {told(there)} there and {told(leaf)} in this model"
    if not allow_more_saved:
        for name, leaf in saved.items():
            if name not in wanted:
                return f"{name} has {told(leaf)} there and is absent in this model"
    return None


def seal(content: Any) -> dict[str, Any]:
    """Wraps JSON-able `content` with a checksum of its canonical text.

    Raises:
      TypeError: if JSON cannot hold `content`.
    """
    text = json.dumps(content, sort_keys=True)
    return {"crc32": zlib.crc32(text.encode()), "content": json.loads(text)}


def unseal(sealed: Any) -> Any:
    """Returns what `seal` wrapped.

    Raises:
      ValueError: if the content does not match its checksum.
    """
    if not isinstance(sealed, dict) or sorted(sealed) != ["content", "crc32"]:
        raise ValueError("its record is not one of ours")
    text = json.dumps(sealed["content"], sort_keys=True)
    if zlib.crc32(text.encode()) != sealed["crc32"]:
        raise ValueError("its record does not match its checksum")
    return sealed["content"]
