"""Keras's `ConvLSTM2D` on JAX, jitted."""

from benchmarks.contenders import Settings
from benchmarks.contenders.jax_program import JaxProgram
from benchmarks.contenders.keras_layer import PATHS, make_layer
from benchmarks.workloads import Problem, Workload


def build(
    name: str, workload: Workload, problem: Problem, settings: Settings
) -> JaxProgram:
    """See `Program`."""
    del name, settings
    layer = make_layer(workload, problem)
    others = [variable.value for variable in layer.non_trainable_variables]

    def apply(weights, frames):
        return layer.stateless_call(weights, others, frames)[0]

    def gradients_by_path(gradients):
        return dict(zip(PATHS, gradients, strict=True))

    weights = [problem.weights[path] for path in PATHS]
    return JaxProgram(apply, weights, problem, workload, gradients_by_path)
