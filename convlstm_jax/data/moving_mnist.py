"""Moving MNIST: handwritten digits that bounce inside a frame.

Srivastava, Mansimov and Salakhutdinov, "Unsupervised learning of video
representations using LSTMs", 2015, arXiv:1502.04681, section 3.2. Training sequences
are made on the fly (`MovingMNIST`); the published test set of 10,000 sequences is read
from its file (`MovingMNISTFile`).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.data.made_clips import MadeClips
from convlstm_jax.errors import UserError

DIGIT_SIZE = 28
"""Height and width of one digit, in pixels."""

_FILE_NUM_FRAMES = 20
_FILE_SIZE = 64

# SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
# generators"). It is written out here because NumPy does not promise its random
# streams from one version to the next, and the sequences must never change.
_MASK = (1 << 64) - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def _mix(bits: int) -> int:
    """Scrambles 64 bits, one to one (the output function of SplitMix64)."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)


def uniform_draws(seed: int, index: int, count: int) -> list[float]:
    """Draws `count` numbers, uniform in [0, 1), that depend on (seed, index) alone.

    Args:
      seed: names the stream, 0 <= seed < 2**64.
      index: names the sequence within the stream, 0 <= index < 2**64.
      count: how many numbers; the first ones do not depend on it.

    Returns:
      `count` floats, each a multiple of 2**-53.
    """
    state = _mix((_mix((seed + _GOLDEN_GAMMA) & _MASK) + index) & _MASK)
    draws = []
    for _ in range(count):
        state = (state + _GOLDEN_GAMMA) & _MASK
        draws.append((_mix(state) >> 11) * 2.0**-53)
    return draws


def _bounce(position: float, step: float, free: int, num_frames: int) -> np.ndarray:
    """Follows one coordinate of a digit between two walls.

    Args:
      position: start in the unit interval.
      step: signed distance moved per frame, in unit intervals.
      free: pixels the digit can move, the frame less the digit.
      num_frames: frames to follow it for; the first is one step after the start.

    Returns:
      The digit's first row (or column) in each frame, integers [T].
    """
    # Plain floats: at this length they are faster than arrays.
    pixels = []
    for _ in range(num_frames):
        position += step
        if position <= 0.0:
            position = 0.0
            step = -step
        elif position >= 1.0:
            position = 1.0
            step = -step
        pixels.append(int(position * free))
    return np.array(pixels, np.intp)


class MovingMNIST(MadeClips):
    """A random-access source of moving-digit sequences, made when they are read.

    Section 3.2 of arXiv:1502.04681: each digit starts at a place uniform in the unit
    square, in a direction uniform on the circle, and moves `velocity` of the free
    canvas (the frame less the digit) per frame. On reaching a wall it is set onto the
    wall and that component of its velocity changes sign. Positions are scaled to the
    free canvas and truncated to whole pixels; where digits overlap the brighter pixel
    shows. Digits are drawn independently, with replacement.

    A sequence depends on the digits, the geometry and (seed, index) alone, so any
    one can be made again, in any order and in any process.

    Args:
      digits: images to draw, uint8 [N, 28, 28].
      num_sequences: length of the source.
      num_frames: frames per sequence, T.
      height: frame height H in pixels, at least 28.
      width: frame width W in pixels, at least 28; may differ from the height.
      num_digits: digits per sequence.
      velocity: distance per frame, in free canvases, in (0, 1].
      seed: names the stream of sequences, 0 <= seed < 2**64.

    Raises:
      ValueError: an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        digits: np.ndarray,
        num_sequences: int,
        num_frames: int,
        height: int = 64,
        width: int = 64,
        num_digits: int = 2,
        velocity: float = 0.1,
        seed: int = 0,
    ) -> None:
        digits = np.asarray(digits)
        if (
            digits.dtype != np.uint8
            or digits.shape[1:] != (DIGIT_SIZE, DIGIT_SIZE)
            or digits.shape[0] < 1
        ):
            raise ValueError(
                f"digits is {digits.dtype} {list(digits.shape)}, but must be uint8 "
                f"[N, {DIGIT_SIZE}, {DIGIT_SIZE}] with N of at least 1."
            )
        super().__init__(
            num_sequences, num_frames, height, width, seed, least_size=DIGIT_SIZE
        )
        if num_digits < 1:
            raise UserError(f"num_digits is {num_digits}, but must be at least 1.")
        if not 0.0 < velocity <= 1.0:
            raise ValueError(
                f"velocity is {velocity}, but must be above 0 and at most 1 (canvas "
                "fractions per frame)."
            )
        self._digits = np.ascontiguousarray(digits)
        self._num_digits = int(num_digits)
        self._velocity = float(velocity)
        self._frame_index = np.arange(self._num_frames)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Makes one sequence.

        Args:
          index: 0 <= index < len(self).

        Returns:
          {"frames": uint8 [T, H, W, 1]}, 0 is background.

        Raises:
          IndexError: the index is out of range.
        """
        index = self._in_range(index)
        num_frames, height, width = self._num_frames, self._height, self._width
        frames = np.zeros((num_frames, height, width, 1), np.uint8)
        # windows[t, y, x] is the 28x28 part of frame t that starts at (y, x): with
        # this view all frames of one digit are drawn by one indexed assignment, three
        # times faster than a loop over the frames.
        windows: np.ndarray = np.ndarray(
            (
                num_frames,
                height - DIGIT_SIZE + 1,
                width - DIGIT_SIZE + 1,
                DIGIT_SIZE,
                DIGIT_SIZE,
            ),
            np.uint8,
            buffer=frames,
            strides=(height * width, width, 1, width, 1),
        )
        draws = uniform_draws(self._seed, index, 4 * self._num_digits)
        for number in range(self._num_digits):
            choice, start_y, start_x, turn = draws[4 * number : 4 * number + 4]
            digit = self._digits[int(choice * len(self._digits))]
            angle = 2.0 * math.pi * turn
            step_y = self._velocity * math.sin(angle)
            step_x = self._velocity * math.cos(angle)
            where = (
                self._frame_index,
                _bounce(start_y, step_y, height - DIGIT_SIZE, num_frames),
                _bounce(start_x, step_x, width - DIGIT_SIZE, num_frames),
            )
            if number == 0:
                windows[where] = digit
            else:
                windows[where] = np.maximum(windows[where], digit)
        return {"frames": frames}


class MovingMNISTFile:
    """The published test set, `mnist_test_seq.npy`, read without loading it whole.

    The file of arXiv:1502.04681 is a uint8 array [20, 10000, 64, 64], time first. It
    is memory-mapped; only the sequences asked for are read.

    Args:
      path: the .npy file.
      num_frames: frames per sequence, at most 20; the first ones are returned.
      num_sequences: how many of the file's sequences to serve; None for all.

    Raises:
      UserError: the file cannot be read or is not such an array, or more frames or
        sequences are asked for than it holds.
    """

    def __init__(
        self, path: str | Path, num_frames: int, num_sequences: int | None = None
    ) -> None:
        self._path = str(path)
        self._array = self._open()
        if not 1 <= num_frames <= _FILE_NUM_FRAMES:
            raise UserError(
                f"{num_frames} frames (input and output together) are asked of "
                f"{self._path}, but its sequences have {_FILE_NUM_FRAMES}: ask for 1 "
                f"to {_FILE_NUM_FRAMES}."
            )
        held = self._array.shape[1]
        if num_sequences is None:
            num_sequences = held
        if not 1 <= num_sequences <= held:
            raise UserError(
                f"{num_sequences} sequences are asked of {self._path}, but it holds "
                f"{held}: ask for 1 to {held}."
            )
        self._num_frames = num_frames
        self._num_sequences = num_sequences

    def _open(self) -> np.ndarray:
        """Maps the file into memory, or tells why it is not the published one."""
        expected = (
            f"the published test set, uint8 [{_FILE_NUM_FRAMES}, 10000, {_FILE_SIZE}, "
            f"{_FILE_SIZE}] (time first), is expected"
        )
        try:
            array = np.load(self._path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"{self._path} cannot be read as a .npy file ({error}); {expected}."
            ) from error
        if not isinstance(array, np.ndarray):
            array.close()
            raise UserError(f"{self._path} is an archive of arrays; {expected}.")
        if (
            array.dtype != np.uint8
            or array.ndim != 4
            or array.shape[0] != _FILE_NUM_FRAMES
            or array.shape[1] < 1
            or array.shape[2:] != (_FILE_SIZE, _FILE_SIZE)
        ):
            raise UserError(
                f"{self._path} holds {array.dtype} {list(array.shape)}; {expected}."
            )
        return array

    def __getstate__(self) -> dict[str, Any]:
        """Pickles the path, not the 800 MB behind it."""
        state = self.__dict__.copy()
        del state["_array"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Maps the file again in the process that unpickles."""
        self.__dict__.update(state)
        self._array = self._open()

    def __len__(self) -> int:
        """Returns the number of sequences served."""
        return self._num_sequences

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Reads one sequence.

        Args:
          index: 0 <= index < len(self).

        Returns:
          {"frames": uint8 [T, 64, 64, 1]}.

        Raises:
          IndexError: the index is out of range.
        """
        if not 0 <= index < self._num_sequences:
            raise IndexError(
                f"Sequence {index} is out of range: the source holds "
                f"{self._num_sequences} sequences."
            )
        frames = np.array(self._array[: self._num_frames, index])
        return {"frames": frames[..., np.newaxis]}
