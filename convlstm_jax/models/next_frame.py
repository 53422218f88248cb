"""Next-frame predictors: those of Keras's two ConvLSTM examples, and for bubbles.

https://keras.io/examples/vision/conv_lstm/, and `examples/conv_lstm.py` of Keras 2.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from convlstm_jax.config import field
from convlstm_jax.layers.video_convolution import VideoConvolution
from convlstm_jax.models.network import (
    CellNetwork,
    ConvLayersConfig,
    Forecast,
    ForecastingNetwork,
    NetworkTrainingConfig,
    TrainingPrediction,
    TrainingStep,
    Variables,
    forecast_from_logits,
    require_video,
)
from convlstm_jax.ops.engine import Tree
from convlstm_jax.types import Frame, HiddenSequence, Video

# Those of Keras's BatchNormalization.
BATCH_NORM_MOMENTUM = 0.99
BATCH_NORM_EPSILON = 1e-3


class PredictorState(NamedTuple):
    """What the network remembers of a clip.

    The carry of each layer, the last features that the head looks back at, and the
    logits of the next frame.
    """

    carries: tuple[Tree, ...]
    past_features: HiddenSequence
    logits: Frame


class NextFramePredictor(CellNetwork, ForecastingNetwork):
    """A stack of ConvLSTM layers that predicts the next frame at every frame.

    The lower layers are followed by batch normalisation over batch, time, height and
    width, with Keras's rule for the running statistics: r ← m r + (1 − m) s, where s
    are the (biased) mean and variance of a training batch. A 3×3 convolution over one
    or more frames gives one logit per pixel. Initialisers are Keras's: Glorot-uniform
    for input kernels and the head, orthogonal for recurrent kernels, a bias of one for
    forget gates. Gates are plain sigmoids, as in Keras 3; Keras 2 had "hard" ones.
    In training the network reads true frames alone; a forecast reads its own
    predictions.

    Attributes: See `NextFrameConfig`.
    """

    features: tuple[int, ...]  # type: ignore[misc]
    kernel_sizes: tuple[int, ...]  # type: ignore[misc]
    num_normalized_layers: int = 0
    batch_norm_momentum: float = BATCH_NORM_MOMENTUM
    head_frames: int = 3
    causal_head: bool = True
    peephole: str = dataclasses.field(default="none", kw_only=True)

    def __call__(self, inputs: Video, *, train: bool = False) -> Video:
        """Predicts every next frame of a clip from the frames up to it.

        Takes `[B, T, H, W, C]`, pixels in [0, 1], and returns float32 logits of that
        shape; those at t are of the frame at t+1. With `train` it normalises with the
        batch's own statistics, and updates the running ones (mutable "batch_stats").
        """
        _, logits = self._run(inputs, None, train)
        return logits

    def read(self, frames: Video, state: Tree = None) -> PredictorState:
        """See `ForecastingNetwork`.

        A head that is not causal sees zeros after each part that is read at once.
        """
        return self._run(frames, state, False)[0]

    def forecast_from(self, state: PredictorState, num_frames: int) -> Forecast:
        """See `ForecastingNetwork`: reads its own predictions.

        No frame is read twice. The result equals that of the Keras examples, which
        predict from the whole track at every step, also with a head that is not causal:
        it sees zeros after the last frame of a track.
        """

        def step(network: NextFramePredictor, state: Any, _: Any) -> Any:
            frame = jax.nn.sigmoid(state.logits)[:, None]
            state = network.read(frame, state)
            return state, state.logits

        logits = state.logits[:, None]
        if num_frames > 1:
            scan = nn.scan(
                step,
                variable_broadcast=True,
                split_rngs={"params": False},
                out_axes=1,
                length=num_frames - 1,
            )
            _, later = scan(self, state, None)
            logits = jnp.concatenate([logits, later], axis=1)
        return forecast_from_logits(logits)

    @nn.compact
    def _run(
        self, inputs: Video, state: PredictorState | None, train: bool
    ) -> tuple[PredictorState, Video]:
        """Reads the next frames of a clip; logits at t are of the frame at t+1."""
        require_video(inputs)
        hidden = inputs
        carries = []
        sizes = zip(self.features, self.kernel_sizes, strict=True)
        for index, (features, kernel_size) in enumerate(sizes):
            cell = self._cell(
                features,
                f"layer_{index}",
                input_kernel_size=kernel_size,
                recurrent_kernel_size=kernel_size,
                kernel_init=nn.initializers.glorot_uniform(),
                recurrent_kernel_init=nn.initializers.orthogonal(),
            )
            before = None if state is None else state.carries[index]
            if before is not None and hidden.shape[1] == 1:
                # In a loop over frames, the layer would prepare its kernels for each.
                carry, output = cell(before, hidden[:, 0])
                hidden = output[:, None]
            else:
                layer = self._over_time(cell)
                carry, hidden = layer(hidden, initial_carry=before)
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
            3,
            self.head_frames,
            causal=self.causal_head,
            dtype=self.dtype,
            name="head",
        )
        past = None if state is None else state.past_features
        logits = head(hidden, past).astype(jnp.float32)
        past = head.remember(past, hidden)
        return PredictorState(tuple(carries), past, logits[:, -1]), logits

    @nn.nowrap
    def predict_for_training(
        self, variables: Variables, clip: Video, num_inputs: int, step: TrainingStep
    ) -> TrainingPrediction:
        """See `ForecastingNetwork`: reads true frames, all but the last one used."""
        training = step.training
        last = training.num_training_frames or clip.shape[1]
        first = 1 if training.score_inputs else num_inputs
        logits, model_state = self.apply(
            variables, clip[:, : last - 1], train=True, mutable=["batch_stats"]
        )
        # Output t predicts frame t+1.
        forecast = forecast_from_logits(logits[:, first - 1 :])
        return TrainingPrediction(forecast, first, dict(model_state))


class NextFrameTrainingConfig(NetworkTrainingConfig):
    """Which frames of a clip a next-frame predictor learns from."""

    num_training_frames: int = field(
        0,
        "First frames of a clip that the network learns from, each from those before; "
        "0: all of them.",
        ge=0,
    )
    score_inputs: bool = field(
        True,
        "Whether the network learns to predict the given frames too, each from those "
        "before, and not only the frames that follow.",
    )

    def length_problems(self, num_inputs: int, num_outputs: int) -> Iterator[str]:
        """What is wrong for clips of so many given frames and frames to forecast."""
        training, length = self.num_training_frames, num_inputs + num_outputs
        if training == 0:
            return
        if not 2 <= training <= length:
            yield (
                f"num_training_frames is {training}: it must be 0 (all) or from 2 to "
                f"{length}, the sum of num_input_frames and num_output_frames"
            )
        if not self.score_inputs and training <= num_inputs:
            yield (
                f"num_training_frames is {training}: it must be 0 (all) or more than "
                f"num_input_frames, which is {num_inputs}, with score_inputs=False"
            )


class NextFrameConfig(ConvLayersConfig):
    """ConvLSTM that learns every next frame from true frames, as Keras's examples."""

    network: ClassVar = NextFramePredictor
    training_config: ClassVar = NextFrameTrainingConfig
    reads_own_predictions: ClassVar[bool] = True

    name: Literal["next_frame"] = "next_frame"
    kernel_sizes: tuple[int, ...] = field(
        (5, 3, 1),
        "Kernel of each layer, input-to-state and state-to-state alike.",
        unit="pixels",
        ge=1,
        le=63,
        odd=True,
        min_length=1,
        example="(5, 3, 1)",
    )
    num_normalized_layers: int = field(
        2, "Layers, from the bottom, that batch normalisation follows.", ge=0
    )
    batch_norm_momentum: float = field(
        BATCH_NORM_MOMENTUM,
        "Share of batch normalisation's running statistics that each training step "
        "keeps: 0.99 in Keras, which needs many hundreds of steps; less suits shorter "
        "runs.",
        ge=0,
        lt=1,
    )
    head_frames: int = field(
        3,
        "Frames that the last convolution spans: 3 in Keras's examples; with 1 it sees "
        "its own frame alone.",
        ge=1,
        le=63,
        odd=True,
    )
    causal_head: bool = field(
        True,
        "Whether the last convolution sees no later frame; false as in Keras's "
        "examples, which leak one frame in training.",
    )

    def check(self) -> Iterator[str]:
        """One kernel size for each layer, and layers to normalise that exist."""
        yield from super().check()
        layers = len(self.features)
        if len(self.kernel_sizes) != layers:
            yield (
                f"kernel_sizes is {self.kernel_sizes}: it must have as many entries as "
                f"features, which is {self.features}"
            )
        if self.num_normalized_layers > layers:
            yield (
                f"num_normalized_layers is {self.num_normalized_layers}: it must be "
                f"from 0 to {layers}, the number of layers in features"
            )
