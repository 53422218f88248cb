"""Keras's ConvLSTM layer with given weights, whichever backend Keras runs on."""

from typing import Any

import keras

from benchmarks.workloads import Problem, Workload

# The order of the layer's weights; gates come as i, f, candidate, o in both.
PATHS = ("cell/input_kernel", "cell/recurrent_kernel", "cell/bias")


def make_layer(workload: Workload, problem: Problem) -> Any:
    """The layer, built for the workload's frames."""
    layer = keras.layers.ConvLSTM2D(
        *workload.features,
        workload.kernel_size,
        padding="same",
        recurrent_activation="sigmoid",
        data_format="channels_last",
        return_sequences=True,
    )
    layer.build(problem.inputs["frames"].shape)
    layer.set_weights([problem.weights[path] for path in PATHS])
    return layer
