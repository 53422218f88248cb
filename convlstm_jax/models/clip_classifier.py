"""Classification of clips by the last hidden state of a stack of ConvLSTM layers."""

from typing import ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from convlstm_jax.config import field
from convlstm_jax.models.network import (
    CellNetwork,
    ConvLayersConfig,
    PatchConfig,
    require_video,
)
from convlstm_jax.ops.engine import Tree
from convlstm_jax.ops.patches import to_patches
from convlstm_jax.types import Array, Video

Logits = Float[Array, "B N"]
"""One logit for each of N classes."""


class ClassifierState(NamedTuple):
    """The carry of each layer, and the logits of the frames read so far."""

    carries: tuple[Tree, ...]
    logits: Logits


class ClipClassifier(CellNetwork):
    """ConvLSTM layers → last frame → global average pool → dense.

    Pixels are shifted from [0, 1] to [−1, 1], so that the brightness of frames does not
    dominate; frames are cut into patches and read by a stack of ConvLSTM layers.
    Between two layers every frame is max-pooled, as in Keras's stacks of `ConvLSTM2D`
    and `MaxPooling3D((1, 2, 2))`. The top layer's hidden state after the last frame is
    averaged over height and width, and a dense layer gives one logit per class.

    By default three layers read a 224×224 frame at 56×56 (patches of 4×4), 28×28 and
    14×14 pixels; otherwise [32, 64, 64] would take 54 times the multiply-adds.

    Attributes: See `ClipClassifierConfig`; and
        num_classes: Number of classes, at least 2.
    """

    features: tuple[int, ...]
    num_classes: int = 2
    input_kernel_size: int = 3
    recurrent_kernel_size: int = 3
    patch_size: int = 4
    pool_size: int = 2

    def __call__(
        self, inputs: Video, *, seq_lengths: Int[Array, " B"] | None = None
    ) -> Logits:
        """Classifies clips of any number of frames.

        Args:
            inputs: `[B, T, H, W, C]`, pixels in [0, 1]; H and W must be multiples of
                `patch_size`.
            seq_lengths: Valid frames of each clip, `[B]`, at least 1; later frames are
                ignored. All T if not given.

        Returns:
            Logits `[B, num_classes]` in float32.
        """
        return self.read(inputs, seq_lengths=seq_lengths).logits

    @nn.compact
    def read(
        self,
        frames: Video,
        state: ClassifierState | None = None,
        seq_lengths: Int[Array, " B"] | None = None,
    ) -> ClassifierState:
        """The state after some frames, see `ForecastingNetwork.read`."""
        require_video(frames)
        hidden = to_patches(2 * frames - 1, self.patch_size)
        carries = []
        for index, features in enumerate(self.features):
            if index:
                hidden = _max_pool(hidden, self.pool_size)
            cell = self._cell(
                features,
                f"layer_{index}",
                input_kernel_size=self.input_kernel_size,
                recurrent_kernel_size=self.recurrent_kernel_size,
            )
            before = None if state is None else state.carries[index]
            layer = self._over_time(cell)
            carry, hidden = layer(hidden, initial_carry=before, seq_lengths=seq_lengths)
            carries.append(carry)
        pooled = cell.hidden(carry).astype(jnp.float32).mean(axis=(1, 2))
        logits = nn.Dense(self.num_classes, name="output")(pooled)
        return ClassifierState(tuple(carries), logits)


def _max_pool(video: Video, size: int) -> Array:
    """Max-pools every frame; refuses frames that are smaller than the window."""
    height, width = video.shape[2:4]
    if min(height, width) < size:
        raise ValueError(
            f"pool_size is {size}: the frames have {height}×{width} pixels where they "
            "are pooled, and it must be at most their height and width"
        )
    window = (1, size, size)
    return nn.max_pool(video, window, strides=window)


class ClipClassifierConfig(PatchConfig, ConvLayersConfig):
    """ConvLSTM layers, last frame, average over its points, dense layer."""

    network: ClassVar = ClipClassifier
    kind: ClassVar[str] = "classes"

    name: Literal["clip_classifier"] = "clip_classifier"
    pool_size: int = field(
        2,
        "Window of the max-pooling between layers; rows and columns at the bottom and "
        "right that do not fill a window are dropped. 1: no pooling.",
        unit="points",
        ge=1,
    )
