"""Optimizers and learning-rate schedules of optax."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from convlstm_jax.cells.convlstm import GATE_ORDER
from convlstm_jax.config import Config, field

_MUON_KERNELS = ("input_kernel", "recurrent_kernel")
# A momentum of 0.95, the usual value, trained more slowly in runs of a few minutes.
_MUON_MOMENTUM = 0.9
# Root mean square of an update at a learning rate of 1, about Adam's (Liu et al.,
# arXiv:2502.16982), so that one learning rate suits both.
_MUON_UPDATE_SIZE = 0.2
_PLATEAU = {"schedule": ("reduce_on_plateau",)}


class OptimizerConfig(Config):
    """Fields of all optimizers: learning rate, schedule, clipping and averaging."""

    name: str = ""
    learning_rate: float = field(1e-3, "Highest learning rate of the schedule.", gt=0)
    schedule: Literal["constant", "cosine", "one_cycle", "reduce_on_plateau"] = field(
        "constant",
        "Learning rate by step: constant; cosine, which falls to 0 at the last step; "
        "one_cycle (arXiv:1708.07120), which rises for 30 % of the steps and falls to "
        "almost 0, as PyTorch's OneCycleLR; or reduce_on_plateau, by a factor where "
        "the training loss stalls.",
    )
    warmup_steps: int = field(
        0,
        "Steps of linear rise from 0 before the schedule.",
        ge=0,
        le=10**9,
        when={"schedule": ("constant", "cosine", "reduce_on_plateau")},
    )
    clip_norm: float = field(
        0.0, "Largest global norm of the gradient; 0: no clipping.", ge=0
    )
    ema_decay: float = field(
        0.0, "Decay of the moving average that is evaluated; 0: none.", ge=0, lt=1
    )
    plateau_factor: float = field(
        0.5, "Factor on the learning rate at a plateau.", gt=0, lt=1, when=_PLATEAU
    )
    plateau_patience: int = field(
        5,
        "Spans of train.eval_every_steps steps without a lower mean training loss "
        "before the learning rate is reduced.",
        ge=1,
        le=10**9,
        when=_PLATEAU,
    )

    def _optimizer(
        self, rate: optax.Schedule, num_steps: int
    ) -> optax.GradientTransformation:
        raise NotImplementedError

    def learning_rates(self, num_steps: int) -> optax.Schedule:
        """The learning rate by step, of a run of so many, before any plateau."""
        rate, warmup_steps = self.learning_rate, self.warmup_steps
        if self.schedule == "one_cycle":
            return _one_cycle(num_steps, rate / 25, rate, rate / 25e4)
        main = optax.constant_schedule(rate)
        if self.schedule == "cosine":
            main = optax.cosine_decay_schedule(rate, max(1, num_steps - warmup_steps))
        if not warmup_steps:
            return main
        warmup = optax.linear_schedule(0.0, rate, warmup_steps)
        return optax.join_schedules([warmup, main], [warmup_steps])

    def build(
        self, num_steps: int, plateau_window_steps: int
    ) -> optax.GradientTransformationExtraArgs:
        """From gradients to updates, for a run of `num_steps`.

        `update` takes the training loss as `value`, averaged over the plateau window.
        """
        chain = []
        if self.clip_norm:
            chain.append(optax.clip_by_global_norm(self.clip_norm))
        chain.append(self._optimizer(self.learning_rates(num_steps), num_steps))
        if self.schedule == "reduce_on_plateau":
            chain.append(
                optax.contrib.reduce_on_plateau(
                    factor=self.plateau_factor,
                    patience=self.plateau_patience,
                    accumulation_size=plateau_window_steps,
                )
            )
        return optax.with_extra_args_support(optax.chain(*chain))


def _one_cycle(
    num_steps: int, first: float, middle: float, last: float
) -> optax.Schedule:
    """Half a cosine from the first value to the middle one, another to the last.

    The steps are those of PyTorch's OneCycleLR: the middle is at 0.3·N − 1, the last
    value at step N − 1. (Optax has them at 0.3·N and N, one step after the last.)
    """
    turn, end = 0.3 * num_steps - 1, num_steps - 1

    def value(step: Any) -> Any:
        rises = step <= turn
        done = jnp.where(rises, step / turn, (step - turn) / (end - turn))
        start, stop = (jnp.where(rises, *x) for x in ((first, middle), (middle, last)))
        left = (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1))) / 2
        return stop + (start - stop) * left

    return value


class _AdamFamilyConfig(OptimizerConfig):
    """The fields of Adam and AdamW."""

    cycle_momentum: bool = field(
        False,
        "Whether the decay of Adam's first moment falls from 0.95 to 0.85 while the "
        "learning rate rises, and returns while it falls, as PyTorch's OneCycleLR has "
        "it by default; otherwise it stays at 0.9.",
        when={"schedule": ("one_cycle",)},
    )

    def _direction(self, num_steps: int) -> optax.GradientTransformation:
        """Updates before the learning rate; states are Adam's in either case."""
        adam = optax.scale_by_adam()
        if self.schedule != "one_cycle" or not self.cycle_momentum:
            return adam
        decay = _one_cycle(num_steps, 0.95, 0.85, 0.95)

        def update(updates, state, params=None):
            now = optax.scale_by_adam(b1=decay(state.count))
            return now.update(updates, state, params)

        return optax.GradientTransformation(adam.init, update)

    def _decay(self) -> list[optax.GradientTransformation]:
        return []

    def _optimizer(
        self, rate: optax.Schedule, num_steps: int
    ) -> optax.GradientTransformation:
        return optax.chain(
            self._direction(num_steps),
            *self._decay(),
            optax.scale_by_learning_rate(rate),
        )


class AdamConfig(_AdamFamilyConfig):
    """Adam, arXiv:1412.6980."""

    name: Literal["adam"] = "adam"


class AdamWConfig(_AdamFamilyConfig):
    """AdamW, Adam with decoupled weight decay, arXiv:1711.05101."""

    name: Literal["adamw"] = "adamw"
    weight_decay: float = field(0.0, "Decoupled weight decay.", ge=0)

    def _decay(self) -> list[optax.GradientTransformation]:
        return [optax.add_decayed_weights(self.weight_decay)]


class RMSPropConfig(OptimizerConfig):
    """RMSProp, as in arXiv:1506.04214."""

    name: Literal["rmsprop"] = "rmsprop"
    rmsprop_decay: float = field(0.9, "Decay of the mean squared gradient.", ge=0, lt=1)

    def _optimizer(
        self, rate: optax.Schedule, num_steps: int
    ) -> optax.GradientTransformation:
        return optax.rmsprop(rate, decay=self.rmsprop_decay)


class AdadeltaConfig(OptimizerConfig):
    """Adadelta, arXiv:1212.5701."""

    name: Literal["adadelta"] = "adadelta"

    def _optimizer(
        self, rate: optax.Schedule, num_steps: int
    ) -> optax.GradientTransformation:
        return optax.adadelta(rate, rho=0.95)


class MuonConfig(OptimizerConfig):
    """Muon for the kernels of recurrent layers, NAdam for all other weights.

    K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
    https://kellerjordan.github.io/posts/muon/. Each gate's kernel `[K, K, C, F]` is a
    matrix `[K·K·C, F]`, whose momentum is replaced by the nearest orthogonal matrix.
    """

    name: Literal["muon"] = "muon"

    def _optimizer(
        self, rate: optax.Schedule, num_steps: int
    ) -> optax.GradientTransformation:
        inner = optax.contrib.muon(
            rate,
            beta=_MUON_MOMENTUM,
            consistent_rms=_MUON_UPDATE_SIZE,
            muon_weight_dimension_numbers=_matrices,
        )

        def init(params):
            return inner.init(_split_gates(params))

        def update(updates, state, params):
            split, state = inner.update(
                _split_gates(updates), state, _split_gates(params)
            )
            joined = jax.tree.map(lambda u, g: u.reshape(g.shape), split, updates)
            return joined, state

        return optax.GradientTransformation(init, update)


OPTIMIZERS: dict[str, type[OptimizerConfig]] = {
    cls.model_fields["name"].default: cls
    for cls in (AdamConfig, AdamWConfig, RMSPropConfig, AdadeltaConfig, MuonConfig)
}


def _is_kernel(path: tuple[Any, ...]) -> bool:
    """Whether a leaf is a kernel of a recurrent layer."""
    return getattr(path[-1], "key", None) in _MUON_KERNELS


def _split_gates(tree: Any) -> Any:
    """Kernels `[..., C, 4F]` as `[..., C, 4, F]`; other leaves unchanged."""

    def split(path: tuple[Any, ...], leaf: Array) -> Array:
        shape = (*leaf.shape[:-1], len(GATE_ORDER), -1)
        return leaf.reshape(shape) if _is_kernel(path) else leaf

    return jax.tree_util.tree_map_with_path(split, tree)


def _matrices(tree: Any) -> Any:
    """Which axes are the matrix's rows and columns; `None` for Adam's parameters."""

    def axes(path: tuple[Any, ...], leaf: Array) -> Any:
        rows, column = tuple(range(leaf.ndim - 2)), leaf.ndim - 1
        is_kernel = _is_kernel(path)
        return optax.contrib.MuonDimensionNumbers(rows, column) if is_kernel else None

    return jax.tree_util.tree_map_with_path(axes, tree)
