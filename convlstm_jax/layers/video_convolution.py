"""Causal 3-D convolution with streaming state."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from convlstm_jax.ops.convolution import same_convolution
from convlstm_jax.types import Array, HiddenSequence, Video


class VideoConvolution(nn.Module):
    """An N×K×K convolution over the frames of a clip, padded with zeros.

    If causal, frame t of the output depends on the frames t−N+1 … t of the input.
    Otherwise the kernel is centred in time, as in Keras's `Conv3D(padding="same")`, and
    the output depends on (N−1)/2 later frames. Parameters are "kernel"
    `[N, K, K, C, F]` (as in Keras) and "bias" `[F]`. It is computed as one 2-D
    convolution with all N temporal taps side by side, whose results are shifted in time
    and added. The sum over time and the output are float32 (float64 if `dtype` is).

    Raises:
        ValueError: At construction, for `kernel_size` K or `num_frames` N that is even.
    """

    features: int
    kernel_size: int = 3
    num_frames: int = 3
    causal: bool = True
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.glorot_uniform()

    def __post_init__(self) -> None:
        """Refuses a kernel without a middle."""
        for name in ("kernel_size", "num_frames"):
            size = getattr(self, name)
            if size < 1 or size % 2 == 0:
                raise ValueError(
                    f"{name} is {size}: it must be an odd integer of at least 1"
                )
        super().__post_init__()

    @property
    def num_past_frames(self) -> int:
        """Frames before t that the output at t depends on."""
        later = 0 if self.causal else (self.num_frames - 1) // 2
        return self.num_frames - 1 - later

    @nn.nowrap
    def remember(self, past: Array | None, inputs: HiddenSequence) -> Array:
        """The streaming state for a call on the next frames: the last input frames.

        `past` is the state before, or `None` at the start of a clip. Returns
        `[B, num_past_frames, H, W, C]`, zeros where there was no frame.
        """
        count = self.num_past_frames
        if past is None:
            sequence = jnp.pad(inputs, [(0, 0), (count, 0), *[(0, 0)] * 3])
        else:
            sequence = jnp.concatenate([past.astype(inputs.dtype), inputs], axis=1)
        return sequence[:, sequence.shape[1] - count :]

    @nn.compact
    def __call__(self, inputs: HiddenSequence, past: Array | None = None) -> Video:
        """Convolves a clip, or its next frames.

        `past` is the state from `remember`; zeros if not given. (After the last frame
        there are always zeros, which matters where the kernel is not causal.)
        """
        size, spans = self.kernel_size, self.num_frames
        channels = inputs.shape[-1]
        kernel = self.param(
            "kernel",
            self.kernel_init,
            (spans, size, size, channels, self.features),
            self.param_dtype,
        )
        bias = self.param(
            "bias", nn.initializers.zeros, (self.features,), self.param_dtype
        )
        before = self.num_past_frames
        steps = inputs.shape[1]
        if past is not None:
            inputs = jnp.concatenate([past.astype(inputs.dtype), inputs], axis=1)
        # [K, K, C, N·F]: the temporal taps side by side.
        taps = jnp.moveaxis(kernel, 0, 3).reshape(size, size, channels, -1)
        responses = same_convolution(inputs.astype(self.dtype), taps.astype(self.dtype))
        sum_dtype = jnp.promote_types(self.dtype, jnp.float32)
        responses = responses.astype(sum_dtype).reshape(
            *responses.shape[:-1], spans, self.features
        )
        padding = (0 if past is not None else before, spans - 1 - before)
        responses = jnp.pad(responses, [(0, 0), padding, *[(0, 0)] * 4])
        total = sum(
            responses[:, tap : tap + steps, ..., tap, :] for tap in range(spans)
        )
        return total + bias.astype(sum_dtype).reshape(1, 1, 1, 1, -1)
