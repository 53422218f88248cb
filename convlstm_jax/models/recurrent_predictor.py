"""The one-step predictor unrolled over time: OpenSTL's ConvLSTM, PredRNN and MIM.

C. Tan et al., "OpenSTL: A Comprehensive Benchmark of Spatio-Temporal Predictive
Learning", NeurIPS Datasets and Benchmarks 2023, arXiv:2306.11249.
"""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from convlstm_jax.cells import CELLS, build_layers
from convlstm_jax.cells.cell import ACTIVATIONS
from convlstm_jax.config import field
from convlstm_jax.layers.rollout import RolloutState, TeacherForcing, rollout
from convlstm_jax.models.network import (
    CellConfig,
    Forecast,
    ForecastingNetwork,
    ModelConfig,
    NetworkTrainingConfig,
    PatchConfig,
    TrainingPrediction,
    TrainingStep,
    Variables,
    require_video,
)
from convlstm_jax.ops.engine import Tree
from convlstm_jax.ops.patches import from_patches, to_patches
from convlstm_jax.types import Array, ForecastVideo, PerExample, Video

Probability = Float[Array, ""]


class RecurrentPredictor(ForecastingNetwork):
    """A stack of recurrent layers that predicts the next frame.

    Frames are cut into patches. ConvLSTM layers have neither biases nor peepholes; a
    1×1 convolution without bias from the last layer's hidden state gives the patches of
    the next frame, without a nonlinearity. Four layers of 128 or 192 features with
    kernels of 5×5 on 4×4 patches are OpenSTL's ConvLSTM-S and -L, whose published
    counts also hold two convolutions per cell that are never used; with other cells it
    is PredRNN, PredRNN++, PredRNN-V2 (with a decoupling weight) and MIM. Predicted
    frames are not bounded; the metrics `ssim_openstl` and `psnr_db` clip them, as
    OpenSTL does.

    Attributes: See `RecurrentPredictorConfig`.
    """

    init_arguments: ClassVar[tuple[np.ndarray]] = (np.ones((1, 1), bool),)

    features: tuple[int, ...]
    input_kernel_size: int = 5
    recurrent_kernel_size: int = 5
    patch_size: int = 4
    cell: str = "convlstm"
    reset_after: bool = False
    activation: str = "tanh"
    num_links: int = 13
    layer_norm: bool = False
    forget_offset: float = 1.0
    decoupling_weight: float = 0.0
    memory: str = "default"
    dtype: Any = jnp.float32

    def __call__(self, frames: Video, teacher_forcing: TeacherForcing) -> ForecastVideo:
        """Predicts frames 1 … S of clips from true frames or its own predictions.

        Args:
            frames: `[B, T, H, W, C]`, pixels in [0, 1]; T may be less than S, and H and
                W must be multiples of `patch_size`.
            teacher_forcing: `[B, S]`, true where step t reads frame t of the clip,
                false where it reads its own prediction. The first must be true.

        Returns:
            `[B, S, H, W, C]` in float32, not bounded; output t predicts frame t+1.
        """
        return self.unroll(frames, teacher_forcing)[1]

    def read(self, frames: Video, state: Tree = None) -> RolloutState:
        """See `ForecastingNetwork`."""
        return self.unroll(frames, jnp.ones(frames.shape[:2], bool), state)[0]

    def forecast_from(self, state: RolloutState, num_frames: int) -> Forecast:
        """See `ForecastingNetwork`: reads its own predictions."""
        first = from_patches(state.prediction[:, None], self.patch_size)
        first = first.astype(jnp.float32)
        if num_frames == 1:
            return Forecast(first, None)
        own = jnp.zeros((first.shape[0], num_frames - 1), bool)
        _, later, _ = self.unroll(first[:, :0], own, state)
        return Forecast(jnp.concatenate([first, later], axis=1), None)

    @nn.compact
    def unroll(
        self,
        frames: Video,
        teacher_forcing: TeacherForcing,
        state: RolloutState | None = None,
        with_decoupling: bool = False,
    ) -> tuple[RolloutState, ForecastVideo, PerExample | None]:
        """Runs from a state, that of the start of a clip if `None`.

        Returns the state after the last step, the predictions, and `with_decoupling`
        the decoupling term of each clip: the mean over steps and layers of what
        `cells.predrnn.SpatiotemporalLSTMCell` computes.
        """
        require_video(frames, "frames")
        patches = to_patches(frames, self.patch_size)
        cells = build_layers(
            self.cell,
            self.features,
            input_kernel_size=self.input_kernel_size,
            recurrent_kernel_size=self.recurrent_kernel_size,
            peephole="none",
            use_bias=False,
            reset_after=self.reset_after,
            activation=self.activation,
            num_links=self.num_links,
            layer_norm=self.layer_norm,
            forget_offset=self.forget_offset,
            decoupling=with_decoupling,
            dtype=self.dtype,
        )
        shape = (1, 1, self.features[-1], patches.shape[-1])
        init = nn.initializers.lecun_normal()
        output_kernel = self.param("output_kernel", init, shape)
        shared_kernels = {}
        if self.decoupling_weight:
            shape = (1, 1, self.features[0], self.features[0])
            adapter_kernel = self.param("adapter_kernel", init, shape)
            if with_decoupling:
                shared_kernels = {"adapter_kernel": adapter_kernel}
        state, predictions = rollout(
            cells,
            output_kernel,
            patches,
            teacher_forcing,
            state,
            shared_kernels=shared_kernels,
            memory=self.memory,
        )
        predictions = from_patches(predictions, self.patch_size).astype(jnp.float32)
        if not with_decoupling:
            return state, predictions, None
        terms = sum(carry.decoupling for carry in state.carries)
        return state, predictions, terms / (len(cells) * teacher_forcing.shape[1])

    @nn.nowrap
    def predict_for_training(
        self, variables: Variables, clip: Video, num_inputs: int, step: TrainingStep
    ) -> TrainingPrediction:
        """See `ForecastingNetwork`: all next frames; `training` draws the true ones."""
        clips, draw = (*clip.shape[:2],), step.training.teacher_forcing
        mask = draw(step.key, step.number, clips, num_inputs)
        weight = self.decoupling_weight
        unrolled: Any = self.apply(
            variables, clip[:, :-1], mask, None, bool(weight), method="unroll"
        )
        _, next_frames, decoupling = unrolled
        penalty = weight * decoupling if weight else 0.0
        return TrainingPrediction(Forecast(next_frames, None), 1, {}, penalty)


class SamplingConfig(NetworkTrainingConfig):
    """Which true frames a recurrent predictor reads in training.

    Scheduled sampling (Bengio et al. 2015, arXiv:1506.03099) lowers the probability of
    reading a true frame among those to forecast linearly from 1 to 0, as PredRNN and
    OpenSTL do (1 / end step is their changing rate of 0.00002). Reverse scheduled
    sampling (Wang et al. 2021, arXiv:2103.09504) lowers it from ½ linearly to 0 from
    the start step on, and raises that among the given frames as 1 − ½ exp(−(step −
    start) / decay), to 1 at the end step.
    """

    sampling: Literal["none", "scheduled", "reverse_scheduled"] = field(
        "none",
        "True frames that are read in training: only the given ones (none); also those "
        "to forecast, fewer and fewer of them (scheduled); or half of all frames at "
        "first and only the given ones in the end (reverse_scheduled).",
    )
    sampling_end_step: int = field(
        50_000,
        "Step from which both schedules read the given frames alone.",
        ge=1,
        when={"sampling": ("scheduled", "reverse_scheduled")},
    )
    reverse_sampling_start_step: int = field(
        25_000,
        "Step up to which half of the frames are read.",
        ge=0,
        when={"sampling": ("reverse_scheduled",)},
    )
    reverse_sampling_decay_steps: int = field(
        5_000,
        "Steps in which the share of given frames that are not read falls by a factor "
        "of e.",
        ge=1,
        when={"sampling": ("reverse_scheduled",)},
    )

    def check(self) -> Iterator[str]:
        """The reverse schedule must end after it starts."""
        yield from super().check()
        start, end = self.reverse_sampling_start_step, self.sampling_end_step
        if self.sampling == "reverse_scheduled" and start >= end:
            yield (
                f"reverse_sampling_start_step is {start}: it must be less than "
                f"sampling_end_step, which is {end}"
            )

    def doubts(self, num_steps: int) -> Iterator[str]:
        """A schedule that training does not reach the end of."""
        if self.sampling != "none" and self.sampling_end_step > num_steps:
            yield (
                f"sampling_end_step is {self.sampling_end_step}, after the last of "
                f"{num_steps} steps: up to the end the network reads true frames that "
                "a forecast does not have; about half of the steps is a good choice"
            )

    def probabilities(self, step: Array | int) -> tuple[Probability, Probability]:
        """The probabilities that a given frame, and one to forecast, is read."""
        end = self.sampling_end_step
        if self.sampling == "none":
            return jnp.float32(1), jnp.float32(0)
        if self.sampling == "scheduled":
            return jnp.float32(1), jnp.clip(1 - step / end, 0.0, 1.0)
        start = self.reverse_sampling_start_step
        decay = self.reverse_sampling_decay_steps
        rising = 1 - 0.5 * jnp.exp(-jnp.maximum(step - start, 0) / decay)
        falling = jnp.clip(0.5 * (end - step) / (end - start), 0.0, 0.5)
        return jnp.where(step < end, rising, 1.0), falling

    def teacher_forcing(
        self, key: Array, step: Array | int, clips: tuple[int, int], num_inputs: int
    ) -> TeacherForcing:
        """Draws, for each of `clips = (B, T)` and step, whether the frame is read.

        The first frame always is, the last never; the same key gives the same draw.
        Returns `[B, T − 1]`.
        """
        given, forecast = self.probabilities(step)
        batch_size, num_frames = clips
        steps = jnp.arange(num_frames - 1)
        probability = jnp.where(steps < num_inputs, given, forecast)
        probability = jnp.where(steps == 0, 1.0, probability)
        draw = jax.random.uniform(key, (batch_size, len(steps)))
        return draw < probability[None, :]


class RecurrentPredictorConfig(CellConfig, PatchConfig, ModelConfig):
    """Recurrent layers that predict one frame and read it again (OpenSTL)."""

    network: ClassVar = RecurrentPredictor
    training_config: ClassVar = SamplingConfig
    reads_own_predictions: ClassVar[bool] = True

    name: Literal["recurrent_predictor"] = "recurrent_predictor"
    activation: Literal[tuple(ACTIVATIONS)] = field(
        "tanh",
        "Nonlinearity of the candidate; leaky_relu has the slope 0.2, as in HKO-7.",
        when={"cell": ("convgru",)},
    )
    layer_norm: bool = field(
        False,
        "Whether the results of each layer's convolutions are normalised over height, "
        "width and channels, with one weight and offset per pixel and channel as in "
        "OpenSTL's cells, which ties the weights to one frame size.",
        when={"cell": ("convlstm", "predrnn", "predrnnpp", "mim")},
    )
    forget_offset: float = field(
        1.0,
        "Constant added to the forget gates before their sigmoid; 0 for imported "
        "weights of OpenSTL's ConvLSTM, whose cell adds none.",
        when={"cell": ("convlstm", "predrnn", "predrnnpp", "mim")},
    )
    decoupling_weight: float = field(
        0.0,
        "Weight of the decoupling loss of PredRNN-V2, the mean |cosine| of what a step "
        "adds to a layer's two memories (arXiv:2103.09504); 0: PredRNN without it.",
        ge=0,
        when={"cell": ("predrnn",)},
    )

    @property
    def takes_any_size(self) -> bool:
        """Layer normalisation and some cells have a weight for each location."""
        return not (self.layer_norm or CELLS[self.cell].has_locations)

    def check(self) -> Iterator[str]:
        """What passes through all layers has the features of each."""
        yield from super().check()
        if CELLS[self.cell].passed and len(set(self.features)) > 1:
            yield (
                f"features is {self.features}: all layers must have the same number "
                f"with cell={self.cell!r}, as a memory passes through them"
            )
