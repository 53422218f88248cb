"""The one-step predictor unrolled over time, OpenSTL's ConvLSTM-S and -L.

@inproceedings{tan2023openstl,
  title={{OpenSTL}: A Comprehensive Benchmark of Spatio-Temporal Predictive Learning},
  author={Tan, Cheng and Li, Siyuan and Gao, Zhangyang and Guan, Wenfei and Wang,
          Zedong and Liu, Zicheng and Wu, Lirong and Li, Stan Z},
  booktitle={Advances in Neural Information Processing Systems Datasets and Benchmarks
             Track},
  year={2023}
}
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from convlstm_jax.layers.convlstm import ConvLSTMCell, require_choice
from convlstm_jax.ops.memory import ROLLOUT_MEMORY
from convlstm_jax.ops.patches import from_patches, to_patches
from convlstm_jax.ops.rollout import (
    LayerWeights,
    Norm,
    StackWeights,
    TakesTruth,
    initial_state,
)
from convlstm_jax.types import Video


class RecurrentPredictor(nn.Module):
    """A stack of ConvLSTM layers that predicts the next frame (arXiv:2306.11249).

    Frames are cut into patches. The layers have neither biases nor peepholes; a 1×1
    convolution without bias from the last layer's hidden state gives the patches of
    the next frame, without a non-linearity. Four layers of 128 or 192 features with
    kernels of 5×5 on 4×4 patches are OpenSTL's ConvLSTM-S and -L, whose published
    counts also hold two convolutions per cell that are never used.

    Attributes:
      features: hidden channels of each layer, bottom layer first.
      input_kernel_size: input-to-state kernel, pixels of the patched frame, odd.
      recurrent_kernel_size: state-to-state kernel, pixels of the patched frame, odd.
      patch_size: side of a patch, pixels; divides height and width.
      layer_norm: whether the results of each layer's two convolutions are normalised
        over height, width and channels, with one weight and offset per pixel and
        channel as in OpenSTL's cells, which ties the weights to one frame size.
      forget_offset: constant added to the forget gate's pre-activation. Cells of
        OpenSTL's family add 1; its ConvLSTM cell declares it but leaves it out.
      memory: what is kept for the backward pass: "default", all gates and cell states,
        or "checkpoint", every ⌈√S⌉th state; the rest is then computed a second time,
        see `ops.memory`.
      dtype: dtype of the convolutions; cell states and predictions are float32.
    """

    features: tuple[int, ...]
    input_kernel_size: int = 5
    recurrent_kernel_size: int = 5
    patch_size: int = 4
    layer_norm: bool = False
    forget_offset: float = 1.0
    memory: str = "default"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, frames: Video, takes_truth: TakesTruth) -> Video:
        """Predicts frames 1 … S of clips from true frames or its own predictions.

        Args:
          frames: `[B, T, H, W, C]`, pixels in [0, 1]; T may be less than S.
          takes_truth: `[B, S]`, true where step t reads frame t of the clip, false
            where it reads its own prediction of it. The first step has no prediction.

        Returns:
          `[B, S, H, W, C]` in float32; output t predicts frame t+1. Nothing keeps
          the values inside [0, 1].

        Raises:
          ValueError: the frames are not five-dimensional, `patch_size` does not divide
            height and width, or `memory` is unknown.
        """
        require_choice("memory", self.memory, tuple(ROLLOUT_MEMORY))
        if frames.ndim != 5:
            raise ValueError(
                f"frames has shape {frames.shape}: it must be [B, T, H, W, C]"
            )
        patches = to_patches(frames, self.patch_size)
        batch, _, *frame_shape = patches.shape
        weights = self._weights(*frame_shape)
        _, predictions = ROLLOUT_MEMORY[self.memory](
            weights,
            patches,
            takes_truth,
            initial_state(weights, (batch, *frame_shape), self.dtype),
            forget_offset=self.forget_offset,
            dtype=self.dtype,
        )
        return from_patches(predictions, self.patch_size).astype(jnp.float32)

    def _weights(self, height: int, width: int, depth: int) -> StackWeights:
        layers = []
        channels = depth
        for index, features in enumerate(self.features):
            name = f"layer_{index}"
            cell = ConvLSTMCell(
                features=features,
                input_kernel_size=self.input_kernel_size,
                recurrent_kernel_size=self.recurrent_kernel_size,
                peephole="none",
                use_bias=False,
                name=name,
            )
            weights = cell.weights(channels, height, width)
            norms = None
            if self.layer_norm:
                shape = (height, width, 4 * features)
                norms = (
                    self._norm(f"{name}_input_norm", shape),
                    self._norm(f"{name}_recurrent_norm", shape),
                )
            kernels = (weights.input_kernel, weights.recurrent_kernel)
            layers.append(LayerWeights(*kernels, norms))  # type: ignore[arg-type]
            channels = features
        output_kernel = self.param(
            "output_kernel", nn.initializers.lecun_normal(), (1, 1, channels, depth)
        )
        return StackWeights(tuple(layers), output_kernel)

    def _norm(self, name: str, shape: tuple[int, ...]) -> Norm:
        return Norm(
            self.param(f"{name}_scale", nn.initializers.ones, shape),
            self.param(f"{name}_offset", nn.initializers.zeros, shape),
        )
