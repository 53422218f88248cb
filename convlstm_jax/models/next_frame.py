"""Next-frame predictors: those of Keras's two ConvLSTM examples, and for bubbles.

A. Joshi, "Next-Frame Video Prediction with Convolutional LSTMs", 2021,
https://keras.io/examples/vision/conv_lstm/, and the older `examples/conv_lstm.py` of
Keras 2, with the network of

@inproceedings{shi2015convolutional,
  title={Convolutional {LSTM} Network: A Machine Learning Approach for Precipitation
         Nowcasting},
  author={Shi, Xingjian and Chen, Zhourong and Wang, Hao and Yeung, Dit-Yan and Wong,
          Wai-kin and Woo, Wang-chun},
  booktitle={Advances in Neural Information Processing Systems},
  year={2015}
}
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from convlstm_jax.layers.convlstm import ConvLSTM, ConvLSTMCell
from convlstm_jax.layers.video_convolution import VideoConvolution
from convlstm_jax.models.encoder_forecaster import require_video
from convlstm_jax.types import Carry, Frame, HiddenSequence, Video

# Those of Keras's BatchNormalization.
BATCH_NORM_MOMENTUM = 0.99
BATCH_NORM_EPSILON = 1e-3

_HEAD_KERNEL_SIZE = 3


class PredictorState(NamedTuple):
    """What a predictor keeps of the frames it has seen.

    Attributes:
      carries: `(c, h)` of each ConvLSTM layer, bottom layer first.
      past_features: the last outputs of the stack, as many as the head looks back at.
    """

    carries: tuple[Carry, ...]
    past_features: HiddenSequence


class NextFramePredictor(nn.Module):
    """A stack of ConvLSTM layers that tells at every frame what the next one is.

    The lower layers are followed by batch normalisation over batch, time, height and
    width, with Keras's rule for the running statistics: r ← m r + (1 − m) s, where s
    are the (biased) mean and variance of a training batch. A 3×3 convolution over one
    or more frames gives one logit per pixel. Kernels are initialised as in Keras: input
    kernels and the head's Glorot-uniform, recurrent kernels orthogonal, forget gates
    with a bias of one. The layout of all parameters is Keras's too (gates i, f, c, o).

    The gates are plain sigmoids, as in Keras 3; Keras 2 had the "hard" one, a straight
    line cut at 0 and 1.

    Attributes:
      features: hidden channels of each layer, bottom layer first.
      kernel_sizes: kernel of each layer, input-to-state and state-to-state alike,
        pixels, odd.
      num_normalized_layers: layers, from the bottom, followed by batch normalisation.
      batch_norm_momentum: m, in [0, 1). Statistics start at mean 0 and variance 1 and
        are of use once mⁿ is small after n steps: Keras's 0.99 wants many hundreds.
      head_frames: frames the head spans, odd: 3 in the Keras examples; with 1 it sees
        the frame at hand alone.
      causal_head: whether the head sees no frame later than its own. The Keras
        examples' does: trained so, the prediction of frame t+1 sees the features of
        frame t+1 itself, a leak of one frame that is not there when it matters.
        `False` is for the weights of such a model.
      peephole: "none" as in Keras, "channel" or "location".
      activation: "tanh" or "relu".
      dtype: dtype of the convolutions; cell states, statistics and logits are float32.
      implementation: "fused" or "scan", see `ConvLSTM`.
      memory: what the layers keep for the backward pass, see `ConvLSTM`.

    Raises:
      ValueError: at construction, where there is not one kernel size for each layer, or
        more layers are to be normalised than there are.
    """

    features: tuple[int, ...]
    kernel_sizes: tuple[int, ...]
    num_normalized_layers: int = 0
    batch_norm_momentum: float = BATCH_NORM_MOMENTUM
    head_frames: int = 3
    causal_head: bool = True
    peephole: str = "none"
    activation: str = "tanh"
    dtype: Any = jnp.float32
    implementation: str = "fused"
    memory: str = "default"

    def __post_init__(self):
        """Refuses what does not fit together."""
        layers = len(self.features)
        if len(self.kernel_sizes) != layers:
            raise ValueError(
                f"kernel_sizes is {tuple(self.kernel_sizes)}: it must have one entry "
                f"for each of the {layers} layers in features"
            )
        if not 0 <= self.num_normalized_layers <= layers:
            raise ValueError(
                f"num_normalized_layers is {self.num_normalized_layers}: it must be "
                f"from 0 to the number of layers in features, {layers}"
            )
        super().__post_init__()

    def __call__(self, inputs: Video, *, train: bool = False) -> Video:
        """Predicts every next frame of a clip from the frames up to it.

        Args:
          inputs: `[B, T, H, W, C]`, pixels in [0, 1].
          train: normalises with the batch's own statistics and updates the running
            ones (collection "batch_stats", which must be mutable) instead of using
            them.

        Returns:
          Logits `[B, T, H, W, C]` in float32; those at t are of the frame at t+1.

        Raises:
          ValueError: the inputs are not five-dimensional.
        """
        _, logits = self._run(inputs, None, train)
        return logits

    def read(self, inputs: Video) -> tuple[PredictorState, Frame]:
        """Reads the given frames; returns the state and the next frame's logits."""
        state, logits = self._run(inputs, None, False)
        return state, logits[:, -1]

    def step(self, state: PredictorState, frame: Frame) -> tuple[PredictorState, Frame]:
        """Goes on by one frame `[B, H, W, C]`, as if it had been read with the rest."""
        state, logits = self._run(frame[:, None], state, False)
        return state, logits[:, 0]

    @nn.compact
    def _run(
        self, inputs: Video, state: PredictorState | None, train: bool
    ) -> tuple[PredictorState, Video]:
        """A whole clip from its start, or (with a state) one single frame."""
        require_video(inputs)
        hidden = inputs
        carries = []
        sizes = zip(self.features, self.kernel_sizes, strict=True)
        for index, (features, kernel_size) in enumerate(sizes):
            cell = ConvLSTMCell(
                features=features,
                input_kernel_size=kernel_size,
                recurrent_kernel_size=kernel_size,
                peephole=self.peephole,
                activation=self.activation,
                dtype=self.dtype,
                kernel_init=nn.initializers.glorot_uniform(),
                recurrent_kernel_init=nn.initializers.orthogonal(),
                name=f"layer_{index}",
            )
            if state is None:
                layer = ConvLSTM(
                    cell, implementation=self.implementation, memory=self.memory
                )
                carry, hidden = layer(hidden)
            else:
                carry, output = cell(state.carries[index], hidden[:, 0])
                hidden = output[:, None]
            carries.append(carry)
            if index < self.num_normalized_layers:
                hidden = nn.BatchNorm(
                    use_running_average=not train,
                    momentum=self.batch_norm_momentum,
                    epsilon=BATCH_NORM_EPSILON,
                    dtype=self.dtype,
                    # E[x²] − E[x]² loses digits where the mean is large.
                    use_fast_variance=False,
                    name=f"normalization_{index}",
                )(hidden)
        head = VideoConvolution(
            inputs.shape[-1],
            _HEAD_KERNEL_SIZE,
            self.head_frames,
            causal=self.causal_head,
            dtype=self.dtype,
            name="head",
        )
        past = None if state is None else state.past_features
        logits = head(hidden, past).astype(jnp.float32)
        return PredictorState(tuple(carries), head.remember(past, hidden)), logits
