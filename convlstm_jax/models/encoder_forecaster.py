"""The encoder–forecaster, convolutional and fully connected.

X. Shi et al., "Convolutional LSTM Network: A Machine Learning Approach for
Precipitation Nowcasting", NeurIPS 2015, arXiv:1506.04214.
"""

import math
from itertools import accumulate
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from convlstm_jax.cells import RecurrentCell
from convlstm_jax.config import field
from convlstm_jax.layers.recurrent import FCLSTM, RecurrentLayer
from convlstm_jax.models.network import (
    STATE_CELLS,
    CellNetwork,
    ConvLayersConfig,
    EncoderState,
    Forecast,
    ForecastingNetwork,
    LayersConfig,
    LayersNetwork,
    PatchConfig,
    carries_after,
    forecast_from_logits,
    require_video,
)
from convlstm_jax.ops.engine import Tree
from convlstm_jax.ops.patches import from_patches, to_patches
from convlstm_jax.types import Array, Frame, Video

_Logits = Float[Array, "B S H W D"]

DARK_LOGIT = -3.0
"""The logit of 0.047, about the mean pixel of two digits on 64×64."""


class _EncoderForecaster(LayersNetwork, ForecastingNetwork):
    """Base class: encodes frames, and forecasts from the carries."""

    features: tuple[int, ...]
    init_arguments: ClassVar[tuple[int]] = (1,)

    def __call__(self, inputs: Video, num_frames: int) -> _Logits:
        """Forecasts the frames that follow; any number, whatever was trained.

        Takes `[B, T, H, W, C]`, pixels in [0, 1]; `patch_size`, if there is one, must
        divide H and W. Returns float32 logits `[B, num_frames, H, W, C]`, of which the
        forecast is the sigmoid.
        """
        return self._run(inputs, None, num_frames)[1]

    def read(self, frames: Video, state: Tree = None) -> EncoderState:
        """See `ForecastingNetwork`."""
        return self._run(frames, state, 0)[0]

    def forecast_from(self, state: EncoderState, num_frames: int) -> Forecast:
        """See `ForecastingNetwork`; any number of frames, whatever was trained."""
        return forecast_from_logits(self._run(None, state, num_frames)[1])

    @nn.compact
    def _run(
        self, frames: Video | None, state: EncoderState | None, num_frames: int
    ) -> tuple[EncoderState, _Logits]:
        """Reads frames, if any, and forecasts, if asked to."""
        if frames is not None:
            require_video(frames, "inputs")
            layers = (
                self._layer(f, f"encoder_{i}") for i, f in enumerate(self.features)
            )
            before = None if state is None else state.carries
            carries = carries_after(layers, self._hidden(frames), before)
            state = EncoderState(carries, frames[:, -1])
        assert state is not None
        if num_frames == 0:
            return state, state.last_frame[:, None][:, :0]
        logits = self._logits(self._decode(state.carries, num_frames), state.last_frame)
        return state, logits.astype(jnp.float32)

    def _layer(self, features: int, name: str) -> Any:
        raise NotImplementedError

    def _hidden(self, frames: Video) -> Array:
        """Frames as the first layer reads them."""
        raise NotImplementedError

    def _logits(self, outputs: list[Array], frame: Frame) -> _Logits:
        """Logits in a frame's shape, from the outputs of the forecaster's layers."""
        raise NotImplementedError

    def _decode(self, carries: tuple[Tree, ...], num_frames: int) -> list[Array]:
        """The outputs of all forecaster layers."""
        outputs: list[Array] = []
        forecast: Array | None = None
        for index, features in enumerate(self.features):
            layer = self._layer(features, f"forecaster_{index}")
            _, forecast = layer(
                forecast, initial_carry=carries[index], num_steps=num_frames
            )
            outputs.append(forecast)
        return outputs


class EncoderForecaster(CellNetwork, _EncoderForecaster):
    """ConvLSTM encoder–forecaster (arXiv:1506.04214, section 3.2).

    Frames are cut into patches. A stack of ConvLSTM layers, the encoder, reads them;
    each layer's last state starts the same layer of a second stack, the forecaster,
    whose first layer has no input. A 1×1 convolution over the hidden states of all
    forecaster layers gives one logit per pixel and frame. With peepholes per
    channel and patches of 4×4 the parameter counts are those of the paper's table 1.

    Attributes: See `EncoderForecasterConfig`; and
        first_logit: Initial bias of the output, about what an untrained network gives.
        output_channels: Channels of the output, if not those of the frames; its weights
            then begin at zero.
    """

    input_kernel_size: int = 5
    recurrent_kernel_size: int = 5
    patch_size: int = 4
    first_logit: float = DARK_LOGIT
    output_channels: int | None = None

    @nn.nowrap
    def reach(self, num_frames: int) -> int | None:
        """See `ForecastingNetwork`: one step a frame, and once up both stacks."""
        of_a_step = self._layer_cell(1, None).reach
        if of_a_step is None:
            return None
        up = 2 * len(self.features) * (self.input_kernel_size // 2)
        return self.patch_size * (num_frames * of_a_step + up)

    def _layer(self, features: int, name: str) -> RecurrentLayer:
        return self._over_time(self._layer_cell(features, name))

    @nn.nowrap
    def _layer_cell(self, features: int, name: str | None) -> RecurrentCell:
        sizes = {
            "input_kernel_size": self.input_kernel_size,
            "recurrent_kernel_size": self.recurrent_kernel_size,
        }
        return self._cell(features, name, **sizes)

    def _hidden(self, frames: Video) -> Array:
        return to_patches(frames, self.patch_size)

    def _logits(self, outputs: list[Array], frame: Frame) -> _Logits:
        channels, kernel = frame.shape[-1], nn.initializers.lecun_normal()
        if self.output_channels is not None:
            channels, kernel = self.output_channels, nn.initializers.zeros
        output = _DenseOfAll(
            channels * self.patch_size**2,
            dtype=self.dtype,
            kernel_init=kernel,
            bias_init=nn.initializers.constant(self.first_logit),
            name="output",
        )
        return from_patches(output(outputs), self.patch_size)


class _DenseOfAll(nn.Module):
    """`nn.Dense` of concatenated arrays, without copying them."""

    features: int
    dtype: Any
    kernel_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, inputs: list[Array]) -> Array:
        channels = [x.shape[-1] for x in inputs]
        shape = (sum(channels), self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, shape[-1:])
        total = bias.astype(self.dtype).reshape(*[1] * (inputs[0].ndim - 1), -1)
        parts = jnp.split(kernel, list(accumulate(channels))[:-1])
        for x, part in zip(inputs, parts, strict=True):
            total = total + x.astype(self.dtype) @ part.astype(self.dtype)
        return total


class FCLSTMEncoderForecaster(_EncoderForecaster):
    """The paper's fully connected baseline: the same structure over whole frames.

    Every frame is one vector of H·W·C pixels; the output layer reads the last
    forecaster layer only, which gives table 1's 142,667,776 parameters for 2048-2048
    on 64×64 frames. Attributes: as for `EncoderForecaster`, see `FCLSTMConfig`.
    """

    first_logit: float = DARK_LOGIT

    def _layer(self, features: int, name: str) -> FCLSTM:
        return self._fc_lstm(features, name)

    def _hidden(self, frames: Video) -> Array:
        return frames.reshape(*frames.shape[:2], -1)

    def _logits(self, outputs: list[Array], frame: Frame) -> _Logits:
        bias = nn.initializers.constant(self.first_logit)
        output = nn.Dense(
            math.prod(frame.shape[1:]), dtype=self.dtype, bias_init=bias, name="output"
        )
        logits = output(outputs[-1])
        return logits.reshape(*logits.shape[:2], *frame.shape[1:])


class EncoderForecasterConfig(PatchConfig, ConvLayersConfig):
    """ConvLSTM encoder–forecaster (arXiv:1506.04214)."""

    network: ClassVar = EncoderForecaster
    takes_any_channels: ClassVar = True

    name: Literal["encoder_forecaster"] = "encoder_forecaster"
    cell: Literal[STATE_CELLS] = field(
        "convlstm",
        "Recurrent cell; the first layer of the forecaster runs without input.",
    )


class FCLSTMConfig(LayersConfig):
    """The encoder–forecaster with fully connected layers (arXiv:1506.04214)."""

    network: ClassVar = FCLSTMEncoderForecaster

    name: Literal["fc_lstm"] = "fc_lstm"

    @property
    def takes_any_size(self) -> bool:
        """Fully connected layers have a weight for each pixel."""
        return False
