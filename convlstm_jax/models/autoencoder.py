"""The FC-LSTM autoencoder of Srivastava et al. 2015, arXiv:1502.04681."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from convlstm_jax.config import field
from convlstm_jax.models.network import (
    EncoderState,
    LayersConfig,
    LayersNetwork,
    carries_after,
    require_video,
)
from convlstm_jax.types import Array, Video

# What a decoder can be asked for: the inputs, last frame first, or what follows them.
DECODERS = ("reconstruction", "forecast")

_Vectors = Float[Array, "B T D"]
# As `VectorCarry`; layers differ in F.
_Carry = tuple[Array, Array]


class Decoder(LayersNetwork):
    """A stack of LSTMs and a dense layer from the top one to the pixels' logits."""

    features: tuple[int, ...]

    @nn.compact
    def __call__(
        self,
        inputs: _Vectors | None,
        carries: tuple[_Carry, ...],
        num_frames: int,
        num_pixels: int,
    ) -> tuple[tuple[_Carry, ...], _Vectors]:
        """Unrolls the stack from a carry of each layer.

        `inputs` are those of the bottom layer, `[B, num_frames, num_pixels]`, if any.
        Returns the carries after the last frame, and float32 logits of the frames.
        """
        hidden, final_carries = inputs, []
        for index, features in enumerate(self.features):
            layer = self._fc_lstm(features, f"lstm_{index}")
            carry, hidden = layer(
                hidden, initial_carry=carries[index], num_steps=num_frames
            )
            final_carries.append(carry)
        logits = nn.Dense(num_pixels, dtype=self.dtype, name="output")(hidden)
        return tuple(final_carries), logits.astype(jnp.float32)


class FCLSTMAutoencoder(LayersNetwork):
    """An LSTM encoder with one or two LSTM decoders (arXiv:1502.04681, section 2).

    The encoder reads the frames, each as one vector of H·W·C pixels. Its last states,
    layer by layer, start every decoder: "reconstruction" gives the inputs back in
    reverse order, "forecast" the frames that follow. With both it is the paper's
    composite model. Each decoder has weights and an output layer of its own.

    An unconditional decoder has no input. A conditional one reads the frame before: in
    training the true one, at test time its own output, a probability per pixel; before
    its first frame it reads zeros. All three are as in the authors' published code.

    Attributes: See `FCLSTMAutoencoderConfig`; and
        decoders: Which of `DECODERS` the model has.
    """

    features: tuple[int, ...]
    decoders: tuple[str, ...] = DECODERS
    conditional: bool = False

    def setup(self) -> None:
        """The encoder's layers and the decoders."""
        fields = {
            "peephole": self.peephole,
            "activation": self.activation,
            "dtype": self.dtype,
            "implementation": self.implementation,
            "memory": self.memory,
        }
        self.encoder = [self._fc_lstm(features) for features in self.features]
        self.decoder = {
            name: Decoder(self.features, **fields) for name in self.decoders
        }

    def __call__(self, inputs: Video, targets: Mapping[str, Array]) -> dict[str, Array]:
        """Logits of each decoder in training; conditional ones read the true frames.

        Takes `[B, T, H, W, C]`, pixels in [0, 1], and for each decoder its true output
        `[B, T_out, H, W, C]`, of which an unconditional one uses the length alone; the
        logits of frame t do not depend on the frames from t on. Returns each decoder's
        logits in the shape of its target, float32.
        """
        if not self.conditional:
            return self.generate(
                inputs, {name: video.shape[1] for name, video in targets.items()}
            )
        carries = self.read(inputs).carries
        logits = {}
        for name, target in targets.items():
            frames = target.reshape(*target.shape[:2], -1)
            before = jnp.concatenate(
                [jnp.zeros_like(frames[:, :1]), frames[:, :-1]], axis=1
            )
            _, flat = self.decoder[name](before, carries, *frames.shape[1:])
            logits[name] = flat.reshape(target.shape)
        return logits

    def generate(
        self, inputs: Video, num_frames: Mapping[str, int]
    ) -> dict[str, Array]:
        """Logits `[B, num_frames, H, W, C]` of each decoder from the inputs alone.

        `num_frames` gives the number of frames, any, for each decoder to run.
        """
        return self.decode(self.read(inputs), num_frames)

    def read(self, frames: Video, state: EncoderState | None = None) -> EncoderState:
        """The state after some frames, see `ForecastingNetwork.read`."""
        require_video(frames)
        hidden = frames.reshape(*frames.shape[:2], -1)
        before = None if state is None else state.carries
        carries = carries_after(self.encoder, hidden, before)
        return EncoderState(carries, frames[:, -1])

    def decode(
        self, state: EncoderState, num_frames: Mapping[str, int]
    ) -> dict[str, Array]:
        """As `generate`, from the state after the inputs."""
        carries, last_frame = state
        batch, *frame_shape = last_frame.shape
        # Sharded as the inputs are.
        black = jnp.zeros_like(last_frame.reshape(batch, -1), jnp.float32)
        logits = {}
        for name, steps in num_frames.items():
            if self.conditional:
                flat = self._feed_back(self.decoder[name], carries, steps, black)
            else:
                _, flat = self.decoder[name](None, carries, steps, black.shape[1])
            logits[name] = flat.reshape(batch, steps, *frame_shape)
        return logits

    def _feed_back(
        self,
        decoder: Decoder,
        carries: tuple[_Carry, ...],
        num_frames: int,
        first: Float[Array, "B D"],
    ) -> _Vectors:
        """Unrolls a conditional decoder frame by frame on its own outputs."""

        def step(decoder: Any, state: Any, _: Any) -> Any:
            carries, frame = state
            carries, logits = decoder(frame[:, None], carries, 1, frame.shape[1])
            logits = logits[:, 0]
            return (carries, jax.nn.sigmoid(logits)), logits

        scan = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False},
            out_axes=1,
            length=num_frames,
        )
        _, logits = scan(decoder, (carries, first), None)
        return logits


class FCLSTMAutoencoderConfig(LayersConfig):
    """LSTM encoder with one or two LSTM decoders (arXiv:1502.04681)."""

    network: ClassVar = FCLSTMAutoencoder
    kind: ClassVar[str] = "decoders"

    name: Literal["fc_lstm_autoencoder"] = "fc_lstm_autoencoder"
    conditional: bool = field(
        False,
        "Whether decoders read the frame before: the true one in training, their own "
        "output in evaluation and prediction.",
    )
