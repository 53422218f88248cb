"""Muon: orthogonalised momentum, for the kernels of recurrent layers.

@misc{jordan2024muon,
  author={Keller Jordan and Yuchen Jin and Vlado Boza and Jiacheng You and Franz Cesista
          and Laker Newhouse and Jeremy Bernstein},
  title={Muon: An optimizer for hidden layers in neural networks},
  year={2024},
  url={https://kellerjordan.github.io/posts/muon/}
}
"""

from typing import Any

import jax
import optax
from jax import Array

from convlstm_jax.ops.cell import GATE_ORDER

_KERNELS = ("input_kernel", "recurrent_kernel")
# Momentum of 0.95, the usual value, learned more slowly in runs of a few minutes.
_MOMENTUM = 0.9
# Root mean square of an update at a learning rate of 1, about Adam's (Liu et al.,
# arXiv:2502.16982), so that one learning rate suits both.
_UPDATE_SIZE = 0.2


def muon(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Muon for input and recurrent kernels, NAdam for the rest, at one learning rate.

    The kernel `[K, K, C, 4F]` (or `[C, 4F]`) of a layer holds those of four gates. Each
    of them is one matrix, `[K·K·C, F]`, whose momentum is replaced by the nearest
    orthogonal one: all directions of the matrix learn at one speed. `update` needs the
    parameters.
    """
    inner = optax.contrib.muon(
        learning_rate,
        beta=_MOMENTUM,
        consistent_rms=_UPDATE_SIZE,
        muon_weight_dimension_numbers=_matrices,
    )

    def init(params):
        return inner.init(_split_gates(params))

    def update(updates, state, params):
        shapes = updates
        updates, state = inner.update(
            _split_gates(updates), state, _split_gates(params)
        )
        joined = jax.tree.map(lambda u, like: u.reshape(like.shape), updates, shapes)
        return joined, state

    return optax.GradientTransformation(init, update)


def _is_kernel(path: tuple[Any, ...]) -> bool:
    return getattr(path[-1], "key", None) in _KERNELS


def _split_gates(tree: Any) -> Any:
    """Kernels `[..., C, 4F]` as `[..., C, 4, F]`; all else as it is."""

    def split(path: tuple[Any, ...], leaf: Array) -> Array:
        if not _is_kernel(path):
            return leaf
        return leaf.reshape(*leaf.shape[:-1], len(GATE_ORDER), -1)

    return jax.tree_util.tree_map_with_path(split, tree)


def _matrices(tree: Any) -> Any:
    """Which axes are the matrix's rows and columns; `None` for Adam's parameters."""

    def axes(path: tuple[Any, ...], leaf: Array):
        if not _is_kernel(path):
            return None
        return optax.contrib.MuonDimensionNumbers(
            reduction_axis=tuple(range(leaf.ndim - 2)), output_axis=leaf.ndim - 1
        )

    return jax.tree_util.tree_map_with_path(axes, tree)
