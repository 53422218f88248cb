"""The work that all contenders do: shapes, and random weights and inputs for them."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]

# The minimal cells, and the gates of each.
MINIMAL_LAYERS = {"mingru": 2, "minlstm": 3}
SYSTEMS = ("layer", *MINIMAL_LAYERS, "encoder_forecaster", "recurrent_predictor")


@dataclass(frozen=True)
class Workload:
    """One system on inputs of one shape.

    Attributes:
        name: what it is called on the command line and in tables.
        system: "layer", one ConvLSTM layer; "mingru", "minlstm", one of these cells;
            "encoder_forecaster", Shi et al. 2015; "recurrent_predictor", OpenSTL's,
            every second frame to be forecast is read.
        batch_size: B.
        num_frames: T, frames given.
        frame_shape: (H, W, C) of a frame, pixels and channels.
        features: F of each layer.
        kernel_size: of input-to-state and state-to-state convolutions alike.
        num_outputs: frames forecast; a layer has none.
        patch_size: side of the patches that become channels.
    """

    name: str
    system: str
    batch_size: int
    num_frames: int
    frame_shape: tuple[int, int, int]
    features: tuple[int, ...]
    kernel_size: int
    num_outputs: int = 0
    patch_size: int = 1

    @property
    def is_layer(self) -> bool:
        """Whether it is a single layer, whose inputs have gradients too."""
        return self.system in ("layer", *MINIMAL_LAYERS)

    @property
    def patched_shape(self) -> tuple[int, int, int]:
        """(H, W, C) as the layers see it."""
        height, width, channels = self.frame_shape
        size = self.patch_size
        return height // size, width // size, channels * size * size

    @property
    def multiply_adds(self) -> int:
        """Of the convolutions of one forward pass, padding counted as if it were data.

        A training step has three times as many: each convolution's result has a
        gradient by what it reads and one by its kernel.
        """
        height, width, depth = self.patched_shape
        area = self.kernel_size**2
        recurrent = sum(area * size * 4 * size for size in self.features)
        pairs = zip(self.features[:-1], self.features[1:], strict=True)
        between = sum(area * below * 4 * size for below, size in pairs)
        gates = MINIMAL_LAYERS.get(self.system, 4)
        first = area * depth * gates * self.features[0]
        if self.system in MINIMAL_LAYERS:
            recurrent = 0
        per_point = self.num_frames * (first + between + recurrent)
        if self.system == "encoder_forecaster":
            output = sum(self.features) * depth
            per_point += self.num_outputs * (between + recurrent + output)
        if self.system == "recurrent_predictor":
            steps = self.num_frames + self.num_outputs - 1
            output = self.features[-1] * depth
            per_point = steps * (first + between + recurrent + output)
        return self.batch_size * height * width * per_point

    @property
    def description(self) -> str:
        """The shapes in a line, as in `T10 B8 16×16, 16→128, 5×5`."""
        height, width, channels = self.patched_shape
        frames = f"T{self.num_frames}" + (
            f"→{self.num_outputs}" * bool(self.num_outputs)
        )
        layers = "-".join(map(str, self.features))
        return (
            f"{frames} B{self.batch_size} {height}×{width}, {channels}→{layers}, "
            f"{self.kernel_size}×{self.kernel_size}"
        )


WORKLOADS = (
    Workload("layer_16x16", "layer", 8, 10, (16, 16, 16), (128,), 5),
    Workload("layer_64x64", "layer", 4, 10, (64, 64, 64), (64,), 3),
    Workload("layer_40x40", "layer", 10, 15, (40, 40, 40), (40,), 3),
    Workload("mingru_64x64", "mingru", 4, 20, (64, 64, 64), (64,), 3),
    Workload("minlstm_64x64", "minlstm", 4, 20, (64, 64, 64), (64,), 3),
    Workload(
        "encoder_forecaster",
        "encoder_forecaster",
        8,
        10,
        (64, 64, 1),
        (128, 64, 64),
        5,
        num_outputs=10,
        patch_size=4,
    ),
    Workload(
        "openstl_convlstm_s",
        "recurrent_predictor",
        4,
        10,
        (64, 64, 1),
        (128, 128, 128, 128),
        5,
        num_outputs=10,
        patch_size=4,
    ),
)


def tiny(workload: Workload) -> Workload:
    """The same system in a size for tests, of two layers; no two sizes are equal."""
    if workload.is_layer:
        return replace(
            workload, batch_size=2, num_frames=3, frame_shape=(5, 6, 2), features=(3,)
        )
    return replace(
        workload,
        batch_size=2,
        num_frames=3,
        num_outputs=2,
        frame_shape=(8, 12, 1),
        features=(3, 4),
    )


class Problem(NamedTuple):
    """What a contender is given, float32.

    Attributes:
        weights: by path, as in this project's parameter trees: kernels `[K, K, C, 4F]`
            with gates in the order i, f, g, o.
        inputs: "frames" `[B, T, H, W, C]`; for the recurrent predictor
            "teacher_forcing" `[B, S]` besides, true where a step reads its frame and
            false where it reads what the step before predicted.
        cotangent: of the shape of the outputs; the loss is the sum of their product.
    """

    weights: Arrays
    inputs: Arrays
    cotangent: np.ndarray


def draw(workload: Workload, seed: int = 0) -> Problem:
    """Random, distinct weights and inputs, with pre-activations of about one."""
    generator = np.random.default_rng(seed)
    size = workload.kernel_size
    height, width, depth = workload.patched_shape

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (scale * generator.standard_normal(shape)).astype(np.float32)

    def kernel(channels: int, features: int, gates: int = 4) -> np.ndarray:
        scale = (size * size * channels) ** -0.5
        return normal(size, size, channels, gates * features, scale=scale)

    def layer(channels: int, features: int, bias: bool = True) -> Arrays:
        weights = {}
        if channels:
            weights["input_kernel"] = kernel(channels, features)
        weights["recurrent_kernel"] = kernel(features, features)
        if bias:
            weights["bias"] = normal(4 * features)
        return weights

    batch, frames = workload.batch_size, workload.num_frames
    features = workload.features
    inputs = {"frames": normal(batch, frames, *workload.frame_shape)}
    weights: Arrays = {}

    def add(name: str, layer_weights: Arrays) -> None:
        weights.update({f"{name}/{key}": value for key, value in layer_weights.items()})

    if workload.is_layer:
        gates = MINIMAL_LAYERS.get(workload.system)
        if gates:
            bias = normal(gates * features[0])
            # Far from 0, where the slope of the candidate's nonlinearity jumps.
            bias[-features[0] :] = 4 * np.sign(bias[-features[0] :])
            kernels = kernel(depth, features[0], gates)
            add("cell", {"input_kernel": kernels, "bias": bias})
        else:
            add("cell", layer(depth, features[0]))
        return Problem(weights, inputs, normal(batch, frames, height, width, *features))
    num_predicted = workload.num_outputs
    if workload.system == "encoder_forecaster":
        for part, first in (("encoder", depth), ("forecaster", 0)):
            for index, channels in enumerate((first, *features[:-1])):
                add(f"{part}_{index}", layer(channels, features[index]))
        total = sum(features)
        weights["output/kernel"] = normal(total, depth, scale=total**-0.5)
        weights["output/bias"] = normal(depth)
    else:
        num_predicted += frames - 1
        inputs["frames"] = normal(batch, num_predicted, *workload.frame_shape)
        teacher_forcing = np.ones((batch, num_predicted), bool)
        teacher_forcing[::2, frames::2] = teacher_forcing[1::2, frames + 1 :: 2] = False
        inputs["teacher_forcing"] = teacher_forcing
        for index, channels in enumerate((depth, *features[:-1])):
            add(f"layer_{index}", layer(channels, features[index], bias=False))
        scale = features[-1] ** -0.5
        weights["output_kernel"] = normal(1, 1, features[-1], depth, scale=scale)
    return Problem(weights, inputs, normal(batch, num_predicted, *workload.frame_shape))


def reorder_gates(array: np.ndarray, order: str, new_order: str) -> np.ndarray:
    """Sorts the four blocks of the last axis from one order of gates to another."""
    blocks = dict(zip(order, np.split(array, 4, axis=-1), strict=True))
    return np.concatenate([blocks[gate] for gate in new_order], axis=-1)
