"""What every objective offers: a loss, metrics, pictures, and what it exports."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh

from convlstm_jax.config import Config, field
from convlstm_jax.metrics.accumulate import MetricSummary, MetricSums
from convlstm_jax.models import ModelConfig
from convlstm_jax.rain import RainScale
from convlstm_jax.types import PerExample, Video
from convlstm_jax.viz.player import ClipName, PlayerClip

Variables = dict[str, Any]
"""{"params": …} and, where a network has them, collections such as "batch_stats"."""

Batch = dict[str, Array]
"""{"frames": [B, T, H, W, C]}, and what `Objective.loss_fn` says."""

Pictures = list[tuple[str, Path]]
"""(caption, file), in the order of the report."""


class ClipSource(Protocol):
    """Clips with random access, like `data.sources.ClipSource`."""

    def __len__(self) -> int:
        """Returns the number of clips."""
        ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one clip: "frames" [T, H, W, C] and what belongs to it."""
        ...


class GifWriter(Protocol):
    """Takes the pictures of a validation, in addition to files."""

    def write_gif(self, step: int, name: str, gif: bytes) -> None:
        """Writes an encoded GIF under a name."""
        ...


class Results(Protocol):
    """The part of an evaluation's result that pictures are drawn from."""

    @property
    def per_lead_time(self) -> dict[str, dict[str, list[float | None]]]:
        """Contender → metric → one value a lead time."""
        ...

    @property
    def confusion(self) -> list[list[int]]:
        """Clips by true class (rows) and predicted class (columns)."""
        ...


_RAIN_SCALE = RainScale()


@dataclass(frozen=True)
class DataFacts:
    """What an objective needs to know about the data.

    Attributes:
        classes: Names of the classes, in the order of the labels.
        class_counts: Training clips of each class; None where they are not known.
        rain_scale: What the pixels of radar frames mean.
        minutes_per_frame: Time from one radar frame to the next.
        rain_thresholds: Rain rates of the contingency tables, mm/h.
        fss_window_sizes: Sides of the windows of the fractions skill score, pixels.
    """

    classes: tuple[str, ...] = ()
    class_counts: tuple[int, ...] | None = None
    rain_scale: RainScale = _RAIN_SCALE
    minutes_per_frame: float = 5.0
    rain_thresholds: tuple[float, ...] = (0.5, 2.0, 5.0, 10.0, 30.0)
    fss_window_sizes: tuple[int, ...] = (5,)


class ObjectiveConfig(Config):
    """Fields that all objectives have."""

    network_kind: ClassVar[str] = "frames"
    """The `kind` of the networks that this objective can train."""
    data_kind: ClassVar[str] = "frames"
    """The `kind` of the data sets that it learns from."""

    name: str
    num_input_frames: int = field(10, "Frames the network is given.", ge=1)

    @property
    def clip_length(self) -> int:
        """Frames that a clip must have."""
        return self.num_input_frames

    def check_network(self, model: ModelConfig) -> Iterator[str]:
        """Yields the problems with a network of the right kind; none by default."""
        yield from ()

    def build(
        self, model: ModelConfig, training: Config | None, facts: DataFacts
    ) -> "Objective":
        """Makes the objective with its network.

        Args:
            model: The network's config.
            training: How the network is trained, where it has such fields.
            facts: Properties of the data.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Objective:
    """What a network is trained for, and how it is measured and shown.

    Attributes:
        model: The network.
        num_input_frames: Frames the network is given.
    """

    model: nn.Module
    num_input_frames: int

    suffixes: ClassVar[tuple[str, ...]] = (".npy", ".gif", ".mp4", ".png")
    """What the name of a file with a prediction may end in."""

    def init(self, key: Array, frame_shape: tuple[int, int, int]) -> Variables:
        """Initial variables for frames of shape `(H, W, C)`."""
        raise NotImplementedError

    def loss_fn(
        self, variables: Variables, batch: Batch, key: Array, step: Array
    ) -> tuple[PerExample, Variables]:
        """The training loss of each clip, and the variables that are not learned.

        Args:
            variables: The network's variables.
            batch: `{"frames": [B, T, H, W, C]}`, uint8 or in [0, 1]; where frames are
                noisy, also "targets", the same frames without noise; where clips
                belong to classes, "label" `[B]`; where pixels may lack data, "mask".
            key: Randomness of the step.
            step: Steps taken before, for schedules.

        Returns:
            The loss `[B]`, and the collections other than "params" after the step.
        """
        raise NotImplementedError

    def measure(
        self, variables: Variables, batch: Batch, *, with_baselines: bool
    ) -> dict[str, dict[str, Array]]:
        """Every metric of every clip, `[B, …]`, to be summed over clips.

        Args:
            variables: The network's variables.
            batch: As in `loss_fn`.
            with_baselines: Whether the baselines are measured too, as in the final
                evaluation. Without them, as in a validation, the model's metrics
                include "loss", by which the best checkpoint is chosen.

        Returns:
            Contender → metric → values, with "model" among the contenders.
        """
        raise NotImplementedError

    def summarize(
        self, total: MetricSums, frame_shape: tuple[int, int, int]
    ) -> MetricSummary:
        """The metrics of a test set from one contender's sums over all its clips."""
        raise NotImplementedError

    def with_baselines(self, source: ClipSource) -> ClipSource:
        """The test clips, with what baselines computed on the host need as well."""
        return source

    def examples(
        self,
        variables: Variables,
        source: ClipSource,
        indices: Sequence[int],
        mesh: Mesh,
    ) -> list[Any]:
        """The network's outputs for some clips, to be drawn.

        All processes take part in the computation.
        """
        raise NotImplementedError

    def drawn_clips(self, source: ClipSource, count: int) -> list[int]:
        """The indices of the clips that an evaluation draws: the first ones."""
        return list(range(min(count, len(source))))

    def draw_validation(
        self, examples: Sequence[Any], step: int, writer: GifWriter, folder: Path
    ) -> None:
        """Draws what a validation shows; nothing by default."""

    def draw(
        self,
        examples: Sequence[Any],
        names: Sequence[ClipName],
        results: Results,
        folder: Path,
    ) -> Pictures:
        """Draws the pictures of an evaluation; `names` are those of the examples."""
        raise NotImplementedError

    def played(
        self,
        examples: Sequence[Any],
        names: Sequence[ClipName],
        *,
        group: str,
        notes: Sequence[str],
    ) -> list[PlayerClip]:
        """The examples as clips of the report's player; none by default."""
        return []

    def describe(self, variables: Variables, inputs: Video) -> dict[str, Array]:
        """The outputs of the network, by a name with their dimensions."""
        raise NotImplementedError

    def check_num_frames(self, num_frames: int | None) -> None:
        """Checks that the network can predict a number of frames.

        Raises:
            UserError: it cannot.
        """

    def exported(
        self, variables: Variables, num_frames: int | None, clips: Video
    ) -> Any:
        """What an exported program computes of clips `[B, T, H, W, C]`."""
        raise NotImplementedError

    def exported_words(self, num_frames: int | None) -> str:
        """What an exported program returns, in words."""
        raise NotImplementedError


def to_unit_interval(frames: Array) -> Video:
    """Stored frames (uint8, 0 to 255) as pixels in [0, 1], float32.

    Floating-point frames are in [0, 1] already. Converting on the device means that
    only a quarter of the bytes is copied there.
    """
    if frames.dtype == jnp.uint8:
        return frames.astype(jnp.float32) / 255
    return frames.astype(jnp.float32)


def clip_and_target(batch: Batch) -> tuple[Video, Video]:
    """A batch's clips as they are read, and as they should be predicted, in [0, 1].

    The two differ if the batch has "targets" in addition to noisy "frames".
    """
    clip = to_unit_interval(batch["frames"])
    return clip, to_unit_interval(batch["targets"]) if "targets" in batch else clip


def split_clip(frames: Array, num_inputs: int, num_outputs: int) -> tuple[Video, Video]:
    """The first frames of a clip and the ones after, pixels in [0, 1]."""
    video = to_unit_interval(frames)
    return video[:, :num_inputs], video[:, num_inputs : num_inputs + num_outputs]
