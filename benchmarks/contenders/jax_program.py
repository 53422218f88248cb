"""What all contenders that run on JAX share."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.workloads import Arrays, Problem, Workload


class JaxProgram:
    """Compiled forward and training programs of a function of weights and frames.

    Args:
        apply: (weights, frames) → outputs.
        weights: a tree in the contender's own form.
        problem: gives frames and cotangent.
        workload: a layer is differentiated by its frames too, as in a stack of layers.
        gradients_by_path: from the weights' gradient, as NumPy arrays, to gradients by
            the paths of `problem.weights`.
    """

    def __init__(
        self,
        apply: Callable[[Any, Any], Any],
        weights: Any,
        problem: Problem,
        workload: Workload,
        gradients_by_path: Callable[[Any], Arrays],
    ):
        self._frames_too = workload.is_layer
        self._gradients_by_path = gradients_by_path
        arrays = (weights, problem.inputs["frames"], problem.cotangent)
        self._arguments = jax.tree.map(jnp.asarray, arrays)

        def loss(weights, frames, cotangent):
            outputs = apply(weights, frames)
            return (outputs.astype(cotangent.dtype) * cotangent).sum()

        argnums = (0, 1) if self._frames_too else (0,)
        self._apply = apply
        self._gradient = jax.grad(loss, argnums)

    @cached_property
    def _forward(self) -> Any:
        return jax.jit(self._apply).lower(*self._arguments[:2]).compile()

    @cached_property
    def _train(self) -> Any:
        return jax.jit(self._gradient).lower(*self._arguments).compile()

    def compile(self) -> None:
        """Compiles both programs, without running them."""
        _ = self._forward, self._train

    def forward(self) -> Any:
        """See `Program`."""
        return jax.block_until_ready(self._forward(*self._arguments[:2]))

    def train(self) -> Any:
        """See `Program`."""
        return jax.block_until_ready(self._train(*self._arguments))

    def results(self) -> Arrays:
        """See `Program`."""
        outputs = np.asarray(self.forward(), np.float32)
        gradients = jax.device_get(self.train())
        found = self._gradients_by_path(gradients[0])
        if self._frames_too:
            found["frames"] = gradients[1]
        return {"outputs": outputs} | found

    def device_facts(self) -> dict[str, Any]:
        """See `Program`."""
        device = jax.devices()[0]
        analysis = self._train.memory_analysis()
        facts: dict[str, Any] = {
            "device": device.device_kind,
            "kept_bytes": self._kept_bytes(),
            "temporary_bytes": analysis.temp_size_in_bytes,
        }
        peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
        if peak is not None:
            facts["peak_bytes"] = peak
        return facts

    def _kept_bytes(self) -> int:
        """What the backward pass is given besides weights and frames."""
        arguments = self._arguments[:2]
        _, pull_back = jax.eval_shape(lambda *a: jax.vjp(self._apply, *a), *arguments)
        return _num_bytes(pull_back) - _num_bytes(arguments)


def _num_bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
