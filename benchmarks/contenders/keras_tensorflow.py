"""Keras's `ConvLSTM2D` on TensorFlow, in a `tf.function`."""

from typing import Any

import tensorflow as tf

from benchmarks.contenders import Settings, Skip
from benchmarks.contenders.keras_layer import PATHS, make_layer
from benchmarks.workloads import Arrays, Problem, Workload


class TensorFlowProgram:
    """See `Program`."""

    def __init__(self, layer: Any, problem: Problem):
        frames = tf.constant(problem.inputs["frames"])
        cotangent = tf.constant(problem.cotangent)
        variables = [variable.value for variable in layer.trainable_variables]

        @tf.function
        def forward(frames):
            return layer(frames)

        @tf.function
        def train(frames, cotangent):
            with tf.GradientTape() as tape:
                tape.watch(frames)
                loss = tf.reduce_sum(layer(frames) * cotangent)
            return tape.gradient(loss, [*variables, frames])

        self._forward = lambda: forward(frames)
        self._train = lambda: train(frames, cotangent)

    def compile(self) -> None:
        """Traces both functions, which the first call does."""
        self.forward()
        self.train()

    def forward(self) -> Any:
        """See `Program`."""
        return self._forward().numpy()

    def train(self) -> Any:
        """See `Program`."""
        return [gradient.numpy() for gradient in self._train()]

    def results(self) -> Arrays:
        """See `Program`."""
        names = (*PATHS, "frames")
        gradients = dict(zip(names, self.train(), strict=True))
        return {"outputs": self.forward()} | gradients

    def device_facts(self) -> dict[str, Any]:
        """See `Program`."""
        gpus = tf.config.list_physical_devices("GPU")
        return {"device": gpus[0].name if gpus else "cpu"}


def build(
    name: str, workload: Workload, problem: Problem, settings: Settings
) -> TensorFlowProgram:
    """See `Program`."""
    del name
    if settings.device == "gpu" and not tf.config.list_physical_devices("GPU"):
        raise Skip("the TensorFlow that is installed sees no GPU")
    return TensorFlowProgram(make_layer(workload, problem), problem)
