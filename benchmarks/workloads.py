"""The work that all contenders do: shapes, and random weights and inputs for them."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]

GRU_LAYERS = ("convgru", "trajgru")
# The minimal cells, and the gates of each.
MINIMAL_LAYERS = {"mingru": 2, "minlstm": 3}
CELL_LAYERS = (*GRU_LAYERS, *MINIMAL_LAYERS)
OPENSTL_NETWORKS = ("predrnn", "predrnnpp", "mim")
SYSTEMS = (
    "layer",
    *CELL_LAYERS,
    "encoder_forecaster",
    "recurrent_predictor",
    *OPENSTL_NETWORKS,
)

FLOW_FEATURES, FLOW_KERNEL_SIZE = 32, 5


@dataclass(frozen=True)
class Workload:
    """One system on inputs of one shape.

    Attributes:
        name: what it is called on the command line and in tables.
        system: "layer", one ConvLSTM layer; "convgru", "trajgru", one of HKO-7's;
            "mingru", "minlstm", one of these cells;
            "encoder_forecaster", Shi et al. 2015; "recurrent_predictor", OpenSTL's,
            every second frame to be forecast is read; "predrnn", "predrnnpp" and "mim",
            the same with these cells.
        batch_size: B.
        num_frames: T, frames given.
        frame_shape: (H, W, C) of a frame, pixels and channels.
        features: F of each layer.
        kernel_size: of input-to-state and state-to-state convolutions alike.
        num_outputs: frames forecast; a layer has none.
        patch_size: side of the patches that become channels.
        num_links: L of a TrajGRU.
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
    num_links: int = 0

    @property
    def is_layer(self) -> bool:
        """Whether it is a single layer, whose inputs have gradients too."""
        return self.system in ("layer", *CELL_LAYERS)

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
        if self.system in GRU_LAYERS:
            kernels = [s for s in gru_shapes(self).values() if len(s) == 4]
            per_point = self.num_frames * sum(map(math.prod, kernels))
            return self.batch_size * height * width * per_point
        if self.system in OPENSTL_NETWORKS:
            kernels = [s for s in openstl_shapes(self).values() if len(s) == 4]
            steps = self.num_frames + self.num_outputs - 1
            per_point = steps * sum(map(math.prod, kernels))
            return self.batch_size * height * width * per_point
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
            + f", L = {self.num_links}"
            * bool(self.num_links)
        )


WORKLOADS = (
    Workload("layer_16x16", "layer", 8, 10, (16, 16, 16), (128,), 5),
    Workload("layer_64x64", "layer", 4, 10, (64, 64, 64), (64,), 3),
    Workload("layer_40x40", "layer", 10, 15, (40, 40, 40), (40,), 3),
    Workload("mingru_64x64", "mingru", 4, 20, (64, 64, 64), (64,), 3),
    Workload("minlstm_64x64", "minlstm", 4, 20, (64, 64, 64), (64,), 3),
    Workload("convgru_64x64", "convgru", 4, 10, (64, 64, 64), (64,), 3),
    Workload("trajgru_32x32", "trajgru", 4, 10, (32, 32, 64), (64,), 3, num_links=13),
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
    *(
        Workload(
            f"openstl_{name}", name, 4, 10, (64, 64, 1), (128,) * 4, 5, 10, patch_size=4
        )
        for name in OPENSTL_NETWORKS
    ),
)


def tiny(workload: Workload) -> Workload:
    """The same system in a size for tests, of two layers; no two sizes are equal."""
    if workload.is_layer:
        return replace(
            workload,
            batch_size=2,
            num_frames=3,
            frame_shape=(5, 6, 2),
            features=(3,),
            num_links=min(workload.num_links, 2),
        )
    return replace(
        workload,
        batch_size=2,
        num_frames=3,
        num_outputs=2,
        frame_shape=(8, 12, 1),
        features=(3, 3) if workload.system in OPENSTL_NETWORKS else (3, 4),
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
        elif workload.system == "layer":
            add("cell", layer(depth, features[0]))
        else:
            # Far from where gradients jump: leaky ReLU at 0, flows at whole numbers.
            for key, shape in gru_shapes(workload).items():
                weight = normal(*shape, scale=0.2 * math.prod(shape[:-1]) ** -0.5)
                if key in ("bias", "flow_bias"):
                    weight = np.sign(weight)
                if key == "flow_output_bias":
                    weight = (np.round(10 * weight) + 0.5).astype(np.float32)
                weights[f"cell/{key}"] = weight
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
        cotangent = normal(batch, num_predicted, *workload.frame_shape)
        if workload.system in OPENSTL_NETWORKS:
            for key, shape in openstl_shapes(workload).items():
                scale = math.prod(shape[:-1]) ** -0.5 if len(shape) == 4 else 0.3
                weights[key] = normal(*shape, scale=scale)
            return Problem(weights, inputs, cotangent)
        for index, channels in enumerate((depth, *features[:-1])):
            add(f"layer_{index}", layer(channels, features[index], bias=False))
        scale = features[-1] ** -0.5
        weights["output_kernel"] = normal(1, 1, features[-1], depth, scale=scale)
    return Problem(weights, inputs, normal(batch, num_predicted, *workload.frame_shape))


def gru_shapes(workload: Workload) -> dict[str, tuple[int, ...]]:
    """The weights of a GRU layer, by their names in this project."""
    size, depth, (features,) = (
        workload.kernel_size,
        workload.patched_shape[-1],
        workload.features,
    )
    links = workload.num_links
    reads = (1, 1, links * features) if links else (size, size, features)
    shapes = {
        "gates_input_kernel": (size, size, depth, 3 * features),
        "gates_kernel": (*reads, 3 * features),
        "bias": (3 * features,),
        "recurrent_bias": (features,),
    }
    if links:
        area = FLOW_KERNEL_SIZE, FLOW_KERNEL_SIZE
        shapes |= {
            "flow_input_kernel": (*area, depth, FLOW_FEATURES),
            "flow_kernel": (*area, features, FLOW_FEATURES),
            "flow_bias": (FLOW_FEATURES,),
            "flow_output_kernel": (*area, FLOW_FEATURES, 2 * links),
            "flow_output_bias": (2 * links,),
        }
    return shapes


def openstl_shapes(workload: Workload) -> dict[str, tuple[int, ...]]:
    """The weights of one of `OPENSTL_NETWORKS`, by their paths; imports JAX."""
    import jax

    from convlstm_jax.models.recurrent_predictor import RecurrentPredictor

    model = RecurrentPredictor(
        workload.features,
        workload.kernel_size,
        workload.kernel_size,
        workload.patch_size,
        workload.system,
    )
    init = partial(model.init_forecaster, frame_shape=workload.frame_shape)
    shapes = jax.eval_shape(init, jax.random.key(0))["params"]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
    }


def reorder_gates(array: np.ndarray, order: str, new_order: str) -> np.ndarray:
    """Sorts the four blocks of the last axis from one order of gates to another."""
    blocks = dict(zip(order, np.split(array, 4, axis=-1), strict=True))
    return np.concatenate([blocks[gate] for gate in new_order], axis=-1)
