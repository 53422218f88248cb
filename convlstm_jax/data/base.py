"""Base classes of the configs of data sets."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from dataclasses import field as field_of
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from convlstm_jax.config import Config, field
from convlstm_jax.data.augmentation import augment_frames, augment_rain
from convlstm_jax.data.sources import Sources
from convlstm_jax.data.video.film import read_last
from convlstm_jax.data.video.fit import FrameSettings
from convlstm_jax.rain import RainScale

Augmentation = Callable[
    [dict[str, np.ndarray], np.random.Generator], dict[str, np.ndarray]
]
"""Changes a training clip at random; deterministic given the generator's state."""


@dataclass(frozen=True, eq=False)
class InputClip:
    """Frames to predict from, uint8 or float32 `[T, H, W, C]`; `label` names them.

    `rate` is their number in a second, where it is known.
    `mask`, uint8 `[T, H, W, 1]`, is 1 where there is data; None: everywhere.
    `grid` is where radar frames lie, as pysteps names it, or empty.
    """

    frames: np.ndarray
    mask: np.ndarray | None = None
    times: tuple[datetime, ...] | None = None
    label: str = ""
    rate: float | None = None
    grid: dict[str, Any] = field_of(default_factory=dict)


def clip_limit(default: int, split: str, **rule: Any) -> Any:
    """Declares how many clips of a split are used."""
    return field(default, f"Maximum number of {split} clips.", ge=1, **rule)


class DataConfig(Config):
    """Fields that all data sets have."""

    kind: ClassVar[str] = "frames"
    """"classes": clips have labels; "rain": clips have masks."""
    own_data: ClassVar[str] = ""
    """The data set that setting `data.path` selects."""

    name: str
    height: int = field(64, "Height of a frame.", unit="pixels", ge=1)
    width: int = field(64, "Width of a frame.", unit="pixels", ge=1)
    num_train_sequences: int = clip_limit(10_000_000, "training")
    num_validation_sequences: int = clip_limit(1000, "validation")
    num_test_sequences: int = clip_limit(10_000, "test", may_change=True)
    num_workers: int = field(
        0,
        "Processes that prepare batches; 0: a thread of the training process.",
        ge=0,
        may_change=True,
    )
    prefetch_batches: int = field(
        2, "Batches prepared ahead of time.", ge=0, may_change=True
    )

    def found(self) -> Self:
        """This config, with what it leaves to be found out from the data."""
        return self

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of a frame; C is the field `channels` where there is one."""
        return self.height, self.width, getattr(self, "channels", 1)

    @property
    def clip_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the frames that clips hold, with what lies around them."""
        return self.frame_shape

    @property
    def max_frames(self) -> int | None:
        """Maximum frames of a clip, input plus output; None: no limit."""
        return None

    @property
    def augment(self) -> Augmentation | None:
        """Random changes to training clips; None: none."""
        return None

    def sources(self, *, num_frames: int, seed: int) -> Sources:
        """Opens the splits, with `num_frames` (input plus output) in each clip.

        `seed`, 0 <= seed < 2**32, is of the training split alone.
        """
        raise NotImplementedError

    def make_sources(
        self, clips: dict[str, Any], description: str, **names: Any
    ) -> Sources:
        """The splits, with the names of conditions or classes."""
        height, width, channels = self.frame_shape
        return Sources(
            **clips,
            description=description,
            height=height,
            width=width,
            channels=channels,
            test_films=getattr(clips["test"], "film_names", ()),
            **names,
        )

    def check_machine(self) -> Iterator[str]:
        """Yields problems with this machine: files that fields name, its processors."""
        most = 4 * (os.cpu_count() or 1)
        if self.num_workers > most:
            yield (
                f"num_workers is {self.num_workers}: it must be at most {most}, four "
                "for each processor of this machine"
            )

    def read_input(self, path: str, num_frames: int) -> InputClip:
        """Reads the last frames of a file or folder as training reads them.

        For synthetic data, they must have the size of the training frames.
        """
        file = Path(path)
        settings = FrameSettings(*self.frame_shape)
        frames, _, rate = read_last(file, settings, num_frames, resize=False)
        if file.suffix.lower() == ".npy":
            array = np.load(file, mmap_mode="r", allow_pickle=False)
            if array.dtype.kind == "f":  # Exact, not in 256 levels.
                frames = array[-num_frames:].astype(np.float32).reshape(frames.shape)
        return InputClip(frames, label=path, rate=rate)


class FolderDataConfig(DataConfig):
    """Fields of data sets that are read from the user's own files."""

    frame_stride: int = field(1, "Use every n-th frame of a film or event.", ge=1)
    validation_fraction: float = field(
        0.1, "Share of the films or events for validation.", gt=0, lt=1
    )
    test_fraction: float = field(
        0.1, "Share of the films or events for test.", gt=0, lt=1
    )
    bad_files: Literal["refuse", "skip"] = field(
        "refuse",
        "What to do about a file that cannot be read completely: refuse it, or skip "
        "what cannot be read and count it.",
    )

    def check(self) -> Iterator[str]:
        """Yields what is wrong between the fields."""
        yield from super().check()
        if self.validation_fraction + self.test_fraction >= 1:
            yield (
                f"validation_fraction is {self.validation_fraction:g} and "
                f"test_fraction {self.test_fraction:g}: their sum must be below 1"
            )

    def span(self, num_frames: int) -> int:
        """Frames of a film or event from the first to the last frame of a clip."""
        return (num_frames - 1) * self.frame_stride + 1


class LabelledDataConfig(DataConfig):
    """Fields of data sets whose clips have a class."""

    kind: ClassVar[str] = "classes"

    flip: bool = field(False, "Flip every other training clip left to right.")
    crop: float = field(
        0.0, "Largest share of height and width cut off training clips.", ge=0, lt=1
    )
    brightness: float = field(
        0.0, "Largest change of a training clip's brightness, as a share.", ge=0, lt=1
    )

    @property
    def augment(self) -> Augmentation | None:
        """See `augment_frames`."""
        if not (self.flip or self.crop or self.brightness):
            return None
        return partial(
            augment_frames, flip=self.flip, crop=self.crop, brightness=self.brightness
        )


class RainDataConfig(DataConfig):
    """Fields of data sets whose pixels are radar reflectivities."""

    kind: ClassVar[str] = "rain"

    dbz_min: float = field(
        0.0, "Reflectivity of pixel 0; anything weaker counts as no rain.", unit="dBZ"
    )
    dbz_max: float = field(60.0, "Reflectivity of pixel 1.", unit="dBZ")
    zr_a: float = field(
        223.0,
        "a of Z = a R^b, which turns reflectivity into mm/h: 200 after Marshall and "
        "Palmer, 223 in Finland.",
        gt=0,
    )
    zr_b: float = field(
        1.53, "b of Z = a R^b: 1.6 after Marshall and Palmer, 1.53 in Finland.", gt=0
    )
    symmetries: bool = field(
        False,
        "Turn and mirror training clips at random, in all 8 ways (4 where height and "
        "width differ).",
    )
    zoom: float = field(
        1.0,
        "Greatest factor by which training clips are enlarged or shrunk at random, so "
        "that what moves in them becomes faster or slower; 1: they are not.",
        ge=1,
        le=4,
    )
    margin: int = field(
        0,
        "Pixels around a clip that are read too, from where rain may move in; they are "
        "not forecast.",
        unit="pixels",
        ge=0,
        le=256,
    )

    @property
    def clip_shape(self) -> tuple[int, int, int]:
        """See `DataConfig.clip_shape`: with the margin."""
        around = 2 * self.margin
        return self.height + around, self.width + around, 1

    @property
    def rain_scale(self) -> RainScale:
        """The rain rate of a pixel."""
        return RainScale(self.dbz_min, self.dbz_max, self.zr_a, self.zr_b)

    @property
    def minutes_per_frame(self) -> float:
        """Minutes from one frame of a clip to the next."""
        return 5.0

    @property
    def augment(self) -> Augmentation | None:
        """See `augment_rain`."""
        if not self.symmetries and self.zoom == 1:
            return None
        return partial(augment_rain, symmetries=self.symmetries, zoom=self.zoom)

    def check(self) -> Iterator[str]:
        """Yields what is wrong between the fields."""
        yield from super().check()
        if self.dbz_min >= self.dbz_max:
            yield (
                f"dbz_min is {self.dbz_min:g}: it must be below dbz_max, which is "
                f"{self.dbz_max:g}"
            )
