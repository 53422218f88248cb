"""What networks share: base classes of their configs, and how they forecast."""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from convlstm_jax.cells import CELLS, RecurrentCell, build_cell
from convlstm_jax.cells.cell import ACTIVATIONS
from convlstm_jax.config import Config, field
from convlstm_jax.layers.recurrent import FCLSTM, RecurrentLayer, memory_problem
from convlstm_jax.ops.engine import Tree
from convlstm_jax.types import Array, Frame, PerExample, Video

# The cells whose layers run one after the other, each over a whole sequence.
SEQUENCE_CELLS = tuple(name for name, cell in CELLS.items() if not cell.passed)
# Those of them that read their state alone, and so can run without input.
STATE_CELLS = tuple(name for name, cell in CELLS.items() if not cell.needs_input)

# {"params": …} and, where a network has them, other collections such as "batch_stats".
Variables = dict[str, Any]


class Forecast(NamedTuple):
    """Predicted frames, and the logits of which they are the sigmoid, if any."""

    frames: Video
    logits: Video | None


def forecast_from_logits(logits: Video) -> Forecast:
    """The forecast whose pixels are the sigmoid of the logits."""
    return Forecast(jax.nn.sigmoid(logits), logits)


class EncoderState(NamedTuple):
    """The carry of each layer of an encoder, and the last frame that was read."""

    carries: tuple[Tree, ...]
    last_frame: Frame


def carries_after(
    layers: Iterable[Any], hidden: Array, carries: tuple[Tree, ...] | None
) -> tuple[Tree, ...]:
    """The carries of a stack that has read `[B, T, …]`, given those before."""
    after = []
    for index, layer in enumerate(layers):
        before = None if carries is None else carries[index]
        carry, hidden = layer(hidden, initial_carry=before)
        after.append(carry)
    return tuple(after)


class TrainingStep(NamedTuple):
    """A step's random key, the steps before it, and the config's `training_config`."""

    key: Array
    number: Any
    training: Any


class TrainingPrediction(NamedTuple):
    """What a network predicts in training, from frame `first_frame` of the clip on.

    `model_state` holds the updated collections beside "params"; `penalty`, a number or
    one per clip, is added to the loss.
    """

    forecast: Forecast
    first_frame: int
    model_state: Variables
    penalty: PerExample | float = 0.0


class ForecastingNetwork(nn.Module):
    """A network that predicts frames, for objectives to train and evaluate.

    It declares `read` and `forecast_from`, methods of the bound module. The others are
    pure functions of the variables, called on the unbound one.
    """

    init_arguments: ClassVar[tuple[Any, ...]] = ()
    """The arguments after the frames in the call that initialises the network."""

    @nn.nowrap
    def init_forecaster(
        self, key: Array, frame_shape: tuple[int, int, int]
    ) -> Variables:
        """Fresh variables for frames of shape `(H, W, C)`."""
        frames = jnp.zeros((1, 1, *frame_shape))
        return dict(self.init(key, frames, *self.init_arguments))

    def read(self, frames: Video, state: Tree = None) -> Tree:
        """The state after some frames `[B, T, H, W, C]`, given the state before them.

        At the start of a clip that is `None`, or zeros. The size of the state does not
        depend on the number of frames.
        """
        raise NotImplementedError

    def forecast_from(self, state: Tree, num_frames: int) -> Forecast:
        """The frames that follow those read, any number of at least 1."""
        raise NotImplementedError

    @nn.nowrap
    def reach(self, num_frames: int) -> int | None:
        """How far from a pixel, at most, those are on which its forecast depends.

        In pixels, for a number of frames read and forecast; `None` if that is unknown
        or the whole frame.
        """
        del num_frames
        return None

    @nn.nowrap
    def forecast(
        self, variables: Variables, inputs: Video, num_frames: int
    ) -> Forecast:
        """The `num_frames` frames that follow the inputs."""
        state = self.apply(variables, inputs, method="read")
        forecast: Forecast = self.apply(  # type: ignore[assignment]
            variables, state, num_frames, method="forecast_from"
        )
        return forecast

    @nn.nowrap
    def predict_for_training(
        self, variables: Variables, clip: Video, num_inputs: int, step: TrainingStep
    ) -> TrainingPrediction:
        """The predictions that a training step scores; by default the forecast.

        The first `num_inputs` frames of the clip are given.
        """
        del step
        forecast = self.forecast(
            variables, clip[:, :num_inputs], clip.shape[1] - num_inputs
        )
        return TrainingPrediction(forecast, num_inputs, {})


class LayersNetwork(nn.Module, kw_only=True):
    """The fields of networks whose layers run over whole sequences."""

    peephole: str = "channel"
    activation: str = "tanh"
    dtype: Any = jnp.float32
    implementation: str = "fused"
    memory: str = "default"

    def _over_time(self, cell: RecurrentCell) -> RecurrentLayer:
        return RecurrentLayer(
            cell, implementation=self.implementation, memory=self.memory
        )

    def _fc_lstm(self, features: int, name: str | None = None) -> FCLSTM:
        return FCLSTM(
            features=features,
            peephole=self.peephole,
            activation=self.activation,
            dtype=self.dtype,
            implementation=self.implementation,
            memory=self.memory,
            name=name,
        )


class CellNetwork(LayersNetwork, kw_only=True):
    """The fields of networks whose layers are any of `CELLS`."""

    cell: str = "convlstm"
    reset_after: bool = False
    num_links: int = 13

    @nn.nowrap
    def _cell(self, features: int, name: str | None, **fields: Any) -> RecurrentCell:
        return build_cell(
            self.cell,
            features=features,
            peephole=self.peephole,
            activation=self.activation,
            reset_after=self.reset_after,
            num_links=self.num_links,
            dtype=self.dtype,
            name=name,
            **fields,
        )


class NetworkTrainingConfig(Config):
    """Fields that say how a network is trained; they join those of the objective."""

    def length_problems(self, num_inputs: int, num_outputs: int) -> Iterator[str]:
        """Yields what is wrong with the numbers of frames; nothing by default."""
        yield from ()

    def doubts(self, num_steps: int) -> Iterator[str]:
        """Yields what is allowed but seldom meant in so many steps of training."""
        yield from ()


class ModelConfig(Config):
    """The fields of every network."""

    network: ClassVar[type[nn.Module]]
    training_config: ClassVar[type[NetworkTrainingConfig] | None] = None
    """The class of what `predict_for_training` needs, if anything."""
    kind: ClassVar[str] = "frames"
    """What the network predicts: "frames", "decoders" (several outputs), "classes"."""
    reads_own_predictions: ClassVar[bool] = False
    takes_any_channels: ClassVar[bool] = False
    """Whether it can predict other channels than those of the frames it reads."""

    name: str
    features: tuple[int, ...] = field(
        (128, 64, 64),
        "Features of each layer, bottom layer first.",
        ge=1,
        le=65_536,
        min_length=1,
        example="(64, 64)",
    )
    memory: Literal["default", "checkpoint"] = field(
        "default",
        "What a layer keeps for the backward pass: all gates and states (default, "
        "fast), or every ⌈√T⌉th state (checkpoint: a fraction of the memory, but the "
        "layer runs a second time).",
    )
    dtype: Literal["float32", "bfloat16"] = field(
        "float32", "Type of the computation; weights and cell states are float32."
    )

    @property
    def takes_any_size(self) -> bool:
        """Whether no weight belongs to one location of the frames."""
        return getattr(self, "peephole", "none") != "location"

    def build(self, **extra: Any) -> Any:
        """The network; `extra` are fields of the module that no config holds."""
        fields = self.model_dump(exclude={"name", "dtype"})
        return self.network(**fields, dtype=jnp.dtype(self.dtype), **extra)


class LayersConfig(ModelConfig):
    """The fields of networks whose layers run over whole sequences."""

    peephole: Literal["channel", "none"] = field(
        "channel",
        "Weights from the cell state to the gates: one per unit (channel), or none.",
    )
    activation: Literal["tanh", "relu"] = field(
        "tanh", "Nonlinearity of the candidate and of the output."
    )
    implementation: Literal["fused", "scan"] = field(
        "fused", "How a layer runs over time: fused (fast), or scan (the reference)."
    )

    def check(self) -> Iterator[str]:
        """Only the fused implementation can save memory."""
        yield from super().check()
        yield from memory_problem(self.memory, self.implementation)


class CellConfig(Config):
    """The recurrent cell, and those fields of cells that every network has."""

    cell: Literal[tuple(CELLS)] = field("convlstm", "Recurrent cell.")
    reset_after: bool = field(
        False,
        "Whether the reset gate comes after the state-to-state convolution, as in "
        "HKO-7's ConvGRU, and not before it.",
        when={"cell": ("convgru",)},
    )
    num_links: int = field(
        13,
        "Learned flows along which the state is warped.",
        ge=1,
        when={"cell": ("trajgru",)},
    )


class ConvLayersConfig(CellConfig, LayersConfig):
    """`LayersConfig` of convolutional layers, which have locations."""

    cell: Literal[SEQUENCE_CELLS] = field("convlstm", "Recurrent cell.")
    peephole: Literal["channel", "location", "none"] = field(  # type: ignore[assignment]
        "channel",
        "Weights from the cell state to the gates: one per channel, one per location "
        "and channel, or none.",
        when={"cell": ("convlstm",)},
    )
    activation: Literal[tuple(ACTIVATIONS)] = field(
        "tanh",
        "Nonlinearity of the candidate, and of a ConvLSTM's output; leaky_relu has the "
        "slope 0.2, as in HKO-7's ConvGRU.",
        when={"cell": ("convlstm", "convgru")},
    )

    @property
    def takes_any_size(self) -> bool:
        """Whether no weight belongs to one location of the frames."""
        return self.cell != "convlstm" or super().takes_any_size


class PatchConfig(Config):
    """The fields of networks that read patches with kernels of one size.

    Such a network has a field `cell`.
    """

    input_kernel_size: int = field(
        5, "Input-to-state kernel.", unit="patches", ge=1, le=63, odd=True
    )
    recurrent_kernel_size: int = field(
        5,
        "State-to-state kernel.",
        unit="patches",
        ge=1,
        le=63,
        odd=True,
        when={"cell": STATE_CELLS},
    )
    patch_size: int = field(
        4,
        "Side of the square patches that become the channels of one point.",
        unit="pixels",
        ge=1,
    )


def require_video(inputs: Video, name: str = "inputs") -> None:
    """Raises a ValueError over inputs that are not five-dimensional."""
    if inputs.ndim != 5:
        raise ValueError(f"{name} has shape {inputs.shape}: it must be [B, T, H, W, C]")
