"""What every objective offers: a loss, metrics, pictures, and what it exports."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from convlstm_jax.config import Config, field
from convlstm_jax.metrics.accumulate import MetricSummary, MetricSums
from convlstm_jax.models import ModelConfig
from convlstm_jax.rain import RainScale
from convlstm_jax.types import PerExample, Video
from convlstm_jax.viz.player import ClipName, PlayerClip

Variables = dict[str, Any]  # "params", and collections such as "batch_stats"
Batch = dict[str, Array]  # see `Objective.loss_fn`
FrameShape = tuple[int, int, int]  # (H, W, C)
Pixels = np.ndarray  # `[T, H, W, C]` in [0, 1]
Contenders = Mapping[str, MetricSummary]  # "model", and what it is compared with
Pictures = list[tuple[str, Path]]  # (caption, file), in the order of the report
WriteGif = Callable[[int, str, bytes], None]  # (step, name, encoded GIF)

# Clips in one forecast for pictures: constant, so there is one compilation.
_EXAMPLES_TOGETHER = 4


class ClipSource(Protocol):
    """Clips with random access, like `data.sources.ClipSource`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class Drawn(NamedTuple):
    """A clip to be drawn."""

    example: Any  # from `Objective.examples`
    name: ClipName
    group: str = ""  # in the list of the player
    note: str = ""  # a line about the clip


@dataclass(frozen=True)
class DataFacts:
    """What an objective needs to know about the data."""

    classes: tuple[str, ...] = ()  # names, in the order of the labels
    class_counts: tuple[int, ...] | None = None  # training clips, where known
    rain_scale: RainScale = dataclasses.field(default_factory=RainScale)
    minutes_per_frame: float = 5.0  # from one radar frame to the next
    pixel_size_km: float = 0.0  # of a radar frame; 0 where it is not known
    rain_thresholds: tuple[float, ...] = (0.5, 2.0, 5.0, 10.0, 30.0)  # mm/h
    fss_window_sizes: tuple[int, ...] = (5,)  # pixels
    margin: int = 0  # pixels around a clip that are read but not forecast


class ObjectiveConfig(Config):
    """Fields that all objectives have."""

    network_kind: ClassVar[str] = "frames"  # `kind` of the networks it can train
    data_kind: ClassVar[str] = "frames"  # `kind` of the data sets it learns from

    name: str
    num_input_frames: int = field(10, "Frames the network is given.", ge=1)

    @property
    def clip_length(self) -> int:
        """Frames that a clip must have."""
        return self.num_input_frames

    def check_code(self) -> Iterator[str]:
        """Yields the problems with the user's own code that fields name.

        Not called for a network that is only loaded, so that none is imported.
        """
        yield from ()

    def check_network(self, model: ModelConfig) -> Iterator[str]:
        """Yields the problems with a network of the right kind; none by default."""
        yield from ()

    def build(
        self, model: ModelConfig, training: Config | None, facts: DataFacts
    ) -> "Objective":
        """Makes the objective; `training` is how its network is trained, if it says."""
        raise NotImplementedError


@dataclass(frozen=True)
class Objective:
    """What a network is trained for, and how it is measured and shown."""

    model: nn.Module
    num_input_frames: int

    predicts: ClassVar[str] = "a clip"  # what a file with a prediction holds
    # What the name of such a file may end in.
    suffixes: ClassVar[tuple[str, ...]] = (".npy", ".gif", ".mp4", ".png")
    takes_whole_area: ClassVar[bool] = False  # whether it was trained on crops of it
    with_vmaf: ClassVar[bool] = False  # whether an evaluation measures it

    def init(self, key: Array, frame_shape: FrameShape) -> Variables:
        """Initial variables for frames of shape `(H, W, C)`."""
        raise NotImplementedError

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """The training loss `[B]`, and the collections other than "params" afterwards.

        A batch has "frames" `[B, T, H, W, C]`, uint8 or in [0, 1]; where these are
        noisy, "targets", the same without noise; where clips belong to classes,
        "label" `[B]`; where pixels may lack data, "mask". Schedules follow the step.
        """
        raise NotImplementedError

    def measure(
        self, variables: Variables, batch: Batch, *, with_baselines: bool
    ) -> dict[str, dict[str, Array]]:
        """Every metric of every clip: contender → metric → `[B, …]`.

        A validation has no baselines, but the "loss" of the "model".
        """
        raise NotImplementedError

    def summarize(self, total: MetricSums, frame_shape: FrameShape) -> MetricSummary:
        """The metrics of a test set from one contender's sums over all its clips."""
        raise NotImplementedError

    def with_baselines(self, source: ClipSource) -> ClipSource:
        """The test clips, with what baselines computed on the host need as well."""
        return source

    def shown(self, variables: Variables, batch: Batch) -> Any:
        """What pictures show of a batch: arrays `[B, …]`; compiled by `examples`."""
        raise NotImplementedError

    def example(self, clip: dict[str, Any], shown: Any) -> Any:
        """One clip to draw, from its data and its row of `shown`."""
        raise NotImplementedError

    def examples(
        self,
        variables: Variables,
        source: ClipSource,
        indices: Sequence[int],
        mesh: Mesh,
    ) -> list[Any]:
        """The network's outputs for some clips, to draw; all processes take part."""
        run = _compiled_shown(self, mesh)
        examples = []
        for start in range(0, len(indices), _EXAMPLES_TOGETHER):
            clips = [source[i] for i in indices[start : start + _EXAMPLES_TOGETHER]]
            filled = clips + clips[-1:] * (_EXAMPLES_TOGETHER - len(clips))
            batch = {k: np.stack([clip[k] for clip in filled]) for k in clips[0]}
            shown = jax.device_get(run(variables, batch))
            for row, clip in enumerate(clips):
                of_clip = jax.tree.map(lambda values, row=row: values[row], shown)
                examples.append(self.example(clip, of_clip))
        return examples

    def drawn_clips(self, source: ClipSource, count: int) -> list[int]:
        """The indices of the clips that an evaluation draws: the first ones."""
        return list(range(min(count, len(source))))

    def draw_validation(
        self, examples: Sequence[Any], step: int, write_gif: WriteGif, folder: Path
    ) -> None:
        """Draws what a validation shows; nothing by default."""

    def draw(
        self, drawn: Sequence[Drawn], contenders: Contenders, folder: Path
    ) -> Pictures:
        """Draws the pictures of an evaluation."""
        raise NotImplementedError

    def played(self, drawn: Sequence[Drawn]) -> list[PlayerClip]:
        """Clips for the report's player; none by default."""
        return []

    def describe(self, variables: Variables, inputs: Video) -> dict[str, Array]:
        """The outputs of the network, by a name with their dimensions."""
        raise NotImplementedError

    def check_num_frames(self, num_frames: int | None) -> None:
        """Raises UserError where the network cannot predict so many frames."""

    def read(self, variables: Variables, frames: Array, state: Any = None) -> Any:
        """The network's state after some frames, see `ForecastingNetwork.read`.

        Frames `[B, T, H, W, C]` are uint8 or in [0, 1].
        """
        video = to_unit_interval(frames)
        return self.model.apply(variables, video, state, method="read")

    def predict_from(
        self, variables: Variables, state: Any, num_frames: int | None
    ) -> Any:
        """What the network predicts after the frames it has read.

        Frames `[B, num_frames, H, W, C]`, by default as many as in training; or
        {class: probabilities `[B]`}.
        """
        raise NotImplementedError

    def exported(
        self, variables: Variables, num_frames: int | None, clips: Video
    ) -> Any:
        """What an exported program computes of clips `[B, T, H, W, C]`."""
        state = self.read(variables, clips)
        return self.predict_from(variables, state, num_frames)

    def exported_words(self, num_frames: int | None) -> str:
        """What an exported program returns, in words."""
        raise NotImplementedError

    def exported_unit(self) -> str:
        """What the pixels of an exported program mean, if they are no grey values."""
        return ""


@functools.cache
def _compiled_shown(objective: Objective, mesh: Mesh) -> Any:
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(objective.shown, out_shardings=everywhere)


def to_unit_interval(frames: Array) -> Video:
    """Stored frames, uint8 or floats in [0, 1], as pixels in [0, 1], float32."""
    if frames.dtype == jnp.uint8:
        return frames.astype(jnp.float32) / 255
    return frames.astype(jnp.float32)
