"""Moving MNIST: handwritten digits that bounce inside a frame.

Srivastava, Mansimov and Salakhutdinov 2015, arXiv:1502.04681, section 3.2.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from convlstm_jax.config import field
from convlstm_jax.data.base import DataConfig
from convlstm_jax.data.files import plural
from convlstm_jax.data.sources import Sources, checked_index
from convlstm_jax.data.synthetic.clips import SyntheticClips, uniform_draws
from convlstm_jax.data.synthetic.digits import check_digits_folder, load_digits
from convlstm_jax.errors import UserError
from convlstm_jax.paths import local_path

DIGIT_SIZE = 28
"""Height and width of one digit, in pixels."""

_FILE_NUM_FRAMES = 20
_FILE_SIZE = 64
_EXPECTED = "it must be the published test set, uint8 [20, 10000, 64, 64] (time first)"


def _bounce(position: float, step: float, free: int, num_frames: int) -> np.ndarray:
    """The first row (or column) of a digit in each frame, integers [T].

    `position` and `step` are in units of `free`, the pixels the digit can move.
    """
    # Python floats: at this length they are faster than arrays.
    pixels = []
    for _ in range(num_frames):
        position += step
        if not 0.0 < position < 1.0:
            position = min(max(position, 0.0), 1.0)
            step = -step
        pixels.append(int(position * free))
    return np.array(pixels, np.intp)


class MovingMNIST(SyntheticClips["MovingMNISTConfig"]):
    """A random-access source of moving-digit sequences, see `SyntheticClips`.

    The digits, drawn with replacement from those `given`, uint8 `[N, 28, 28]`, start at
    a place uniform in the unit square, in a direction uniform on the circle, and move
    `velocity` of the free canvas (the frame less the digit) per frame. On reaching a
    wall a digit is set onto it and that component of its velocity changes sign.
    Positions are truncated to whole pixels; where digits overlap the brighter pixel
    shows.
    """

    def _generate(self, index: int) -> dict[str, np.ndarray]:
        num_frames, config = self.num_frames, self.config
        height, width, _ = config.frame_shape
        frames = np.zeros((num_frames, height, width, 1), np.uint8)
        # All frames of a digit are drawn by one indexed assignment.
        windows = sliding_window_view(
            frames[..., 0], (DIGIT_SIZE, DIGIT_SIZE), axis=(1, 2), writeable=True
        )
        draws = uniform_draws(self.seed, index, 4 * config.num_digits)
        for number in range(config.num_digits):
            choice, start_y, start_x, turn = draws[4 * number : 4 * number + 4]
            digit = self.given[int(choice * len(self.given))]
            angle = 2.0 * math.pi * turn
            step_y = config.velocity * math.sin(angle)
            step_x = config.velocity * math.cos(angle)
            where = (
                np.arange(num_frames),
                _bounce(start_y, step_y, height - DIGIT_SIZE, num_frames),
                _bounce(start_x, step_x, width - DIGIT_SIZE, num_frames),
            )
            windows[where] = np.maximum(windows[where], digit) if number else digit
        return {"frames": frames}


@dataclass(frozen=True)
class MovingMNISTFile:
    """The published test set of arXiv:1502.04681, `mnist_test_seq.npy`, memory-mapped.

    Raises:
        UserError: the file is not that array, or holds less than is asked for.
    """

    path: Path
    num_frames: int
    num_sequences: int

    def __post_init__(self) -> None:
        """Checks the file."""
        array = self._array()
        sizes = (_FILE_NUM_FRAMES, *array.shape[1:2], _FILE_SIZE, _FILE_SIZE)
        if array.dtype != np.uint8 or array.shape != sizes:
            held = f"{array.dtype} {list(array.shape)}"
            raise UserError(f"{self.path} holds {held}: {_EXPECTED}")
        if self.num_sequences > array.shape[1]:
            raise UserError(
                f"{self.num_sequences} sequences are asked of {self.path}, which holds "
                f"{array.shape[1]}"
            )

    def _array(self) -> np.ndarray:
        # Not kept: with a source, its 800 MB would be pickled.
        try:
            return np.lib.format.open_memmap(self.path, mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"{self.path} cannot be read as a .npy file ({error}): {_EXPECTED}"
            ) from error

    def __len__(self) -> int:
        """Returns the number of sequences served."""
        return self.num_sequences

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Reads one sequence: {"frames": uint8 `[T, 64, 64, 1]`}."""
        index = checked_index(index, len(self))
        frames = np.array(self._array()[: self.num_frames, index])
        return {"frames": frames[..., np.newaxis]}


class MovingMNISTConfig(DataConfig):
    """Handwritten digits that bounce inside a frame, arXiv:1502.04681."""

    own_data: ClassVar[str] = "video"

    name: Literal["moving_mnist"] = "moving_mnist"
    height: int = field(64, "Height of a frame.", unit="pixels", ge=DIGIT_SIZE)
    width: int = field(64, "Width of a frame.", unit="pixels", ge=DIGIT_SIZE)
    digits: Literal["auto", "idx", "tfds", "sklearn"] = field(
        "auto",
        'Source of the digits: "idx" (the MNIST files in digits_dir), "tfds" '
        '(downloaded), "sklearn" (small digits that come with scikit-learn), or "auto" '
        "(the first of these that is available).",
    )
    digits_dir: str = field(
        "",
        "Folder of MNIST's IDX files; empty: environment variable CONVLSTM_MNIST_DIR.",
        may_change=True,
    )
    tfds_dir: str = field(
        "",
        "Folder in which tensorflow-datasets keeps downloads; empty: "
        "~/tensorflow_datasets.",
        may_change=True,
    )
    num_digits: int = field(2, "Digits in a clip.", ge=1)
    velocity: float = field(
        0.1,
        "Distance a digit moves per frame, as a fraction of the free canvas.",
        gt=0,
        le=1,
    )
    test_file: str = field(
        "",
        "Official test set, mnist_test_seq.npy; empty: test clips are generated.",
        may_change=True,
    )

    @property
    def max_frames(self) -> int | None:
        """The test file's sequences have 20 frames."""
        return _FILE_NUM_FRAMES if self.test_file else None

    def check(self) -> Iterator[str]:
        """Yields where a field does not suit the test file."""
        size = (self.height, self.width)
        if self.test_file and (*size, self.num_digits) != (_FILE_SIZE, _FILE_SIZE, 2):
            yield (
                f"test_file holds 2 digits on 64x64: it must be '' with num_digits of "
                f"{self.num_digits}, height of {self.height} and width of {self.width}"
            )

    def check_machine(self) -> Iterator[str]:
        """See `DataConfig.check_machine`."""
        yield from super().check_machine()
        yield from check_digits_folder(self.digits, self.digits_dir)
        if self.test_file and not local_path(self.test_file).is_file():
            yield f"test_file is {self.test_file!r}: it must be an existing file, or ''"

    def sources(self, *, num_frames: int, seed: int) -> Sources:
        """The splits, each from digits of its own, see `DataConfig.sources`."""
        digits = load_digits(self.digits, self.digits_dir, self.tfds_dir)
        origin = f"from {self.test_file}" if self.test_file else "generated"
        sources = MovingMNIST.splits(
            self,
            num_frames,
            seed,
            f"Moving MNIST, {plural(self.num_digits, 'digit')} on "
            f"{self.height}x{self.width}, test sequences {origin}. Digits: "
            f"{digits.description}",
            given=(digits.train, digits.validation, digits.test),
            digits_source=digits.source,
        )
        if not self.test_file:
            return sources
        path = local_path(self.test_file)
        test = MovingMNISTFile(path, num_frames, self.num_test_sequences)
        return replace(sources, test=test)
