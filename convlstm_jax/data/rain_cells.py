"""Radar films of rain cells, made by the program: a stand-in for measured ones."""

import numpy as np

from convlstm_jax.data.made_clips import TEST_SEED, VALIDATION_SEED, MadeClips
from convlstm_jax.data.sources import Sources, check_seed_and_counts
from convlstm_jax.rain import RainScale

LEAST_SIZE = 16
"""Fewest pixels along an axis on which a cell can be told from its neighbours."""

_BLOCK = 32  # Cells are drawn for so many frames at a time.
_PIXELS_PER_CELL = 450  # In a block, for one cell.
_MODES = 24  # Waves that the texture is made of.


class RainCells(MadeClips):
    """A random-access source of radar sequences of rain cells, made when they are read.

    A wind of its own for each clip, 0.2 to 1.6 pixels a frame in any direction, carries
    the cells. Cells are elliptic; each grows to its peak of 20 to 50 dBZ and decays
    again within 12 to 32 frames. A texture of random waves, which drifts with the wind
    and changes on the way, breaks the cells up, and each pixel of each frame has noise
    of 1 dB. A radar stands somewhere in or near the frame; beyond its range there is
    no data.

    A clip depends on its size and (seed, index) alone, so any one can be made again, in
    any order and in any process; a longer one begins as the shorter one.

    Args:
      num_sequences: length of the source.
      num_frames: frames per sequence, T.
      height: frame height H in pixels, at least 16.
      width: frame width W in pixels, at least 16.
      scale: what the pixels mean.
      seed: names the stream of sequences, 0 <= seed < 2**64.

    Raises:
      UserError: an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        num_sequences: int,
        num_frames: int,
        height: int,
        width: int,
        scale: RainScale,
        seed: int = 0,
    ) -> None:
        super().__init__(
            num_sequences, num_frames, height, width, seed, least_size=LEAST_SIZE
        )
        self._shape = (int(height), int(width))
        self._scale = scale

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Makes one sequence.

        Args:
          index: 0 <= index < len(self).

        Returns:
          {"frames": uint8 [T, H, W, 1], "mask": uint8 [T, H, W, 1], 1 where there is
          data}.

        Raises:
          IndexError: the index is out of range.
        """
        index = self._in_range(index)
        # One stream for what is drawn once, one for the noise, one for each block.
        clip = np.random.default_rng((self._seed, index, 0))
        noise = np.random.default_rng((self._seed, index, 1))
        speed, direction = clip.uniform(0.2, 1.6), clip.uniform(0, 2 * np.pi)
        wind = speed * np.array([np.sin(direction), np.cos(direction)])
        mask = _range_of_radar(clip, self._shape)
        texture_db = _texture(clip, wind, self._num_frames, self._shape)
        power = np.zeros((self._num_frames, *self._shape))  # Z, mm⁶/m³
        # Cells born in the block before the first may still rain.
        for block in range(-1, -(-self._num_frames // _BLOCK)):
            rng = np.random.default_rng((self._seed, index, 3 + block))
            _add_cells(power, rng, block * _BLOCK, wind)
        with np.errstate(divide="ignore"):
            dbz = 10 * np.log10(power) + texture_db
        dbz += noise.standard_normal(power.shape)
        pixels = np.rint(255 * self._scale.pixels(dbz)) * mask
        masks = np.broadcast_to(mask, power.shape)
        return {
            "frames": pixels.astype(np.uint8)[..., np.newaxis],
            "mask": masks.astype(np.uint8)[..., np.newaxis],
        }


def _range_of_radar(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Whether a pixel lies within the range of a radar that is somewhere near."""
    height, width = shape
    middle_y, middle_x = rng.uniform(0.1, 0.9, 2) * shape
    radius = rng.uniform(0.75, 1.25) * max(shape)
    y, x = np.ogrid[:height, :width]
    return (y - middle_y) ** 2 + (x - middle_x) ** 2 <= radius**2


def _texture(
    rng: np.random.Generator,
    wind: np.ndarray,
    num_frames: int,
    shape: tuple[int, int],
) -> np.ndarray:
    """Random waves that drift with the wind and change on the way; dB, `[T, H, W]`."""
    length = rng.uniform(4, 20, _MODES)  # pixels
    angle, phase = rng.uniform(0, 2 * np.pi, (2, _MODES))
    change = rng.uniform(-0.15, 0.15, _MODES)  # radians a frame
    height_db = 6 * np.sqrt(2 / _MODES) * (length / length.mean()) ** 0.8
    number_y = 2 * np.pi * np.sin(angle) / length
    number_x = 2 * np.pi * np.cos(angle) / length
    turn = change - number_y * wind[0] - number_x * wind[1]
    # exp of a sum is a product: three short axes in place of T × H × W cosines.
    in_time = np.exp(1j * (np.outer(np.arange(num_frames), turn) + phase)) * height_db
    along_y = np.exp(1j * np.outer(np.arange(shape[0]), number_y))
    along_x = np.exp(1j * np.outer(np.arange(shape[1]), number_x))
    rows = in_time[:, np.newaxis] * along_y  # [T, H, modes]
    return (rows @ along_x.T).real


def _add_cells(
    power: np.ndarray, rng: np.random.Generator, first: int, wind: np.ndarray
) -> None:
    """Adds the cells born in the block that begins at frame `first` to Z `[T, H, W]`.

    All are drawn, whether they are seen or not: the draws do not depend on T.
    """
    num_frames, height, width = power.shape
    count = max(6, round(1.5**2 * height * width / _PIXELS_PER_CELL))
    born = first + rng.uniform(0, _BLOCK, count)
    life = rng.uniform(12, 32, count)
    # Where a cell is at its peak; some come from outside, or go there.
    peak_y = rng.uniform(-0.25, 1.25, count) * height
    peak_x = rng.uniform(-0.25, 1.25, count) * width
    peak_dbz = 20 + 30 * rng.uniform(0, 1, count) ** 1.5
    long = rng.uniform(3, 12, count)  # pixels, half the width at e^(-1/2)
    short = long * rng.uniform(0.4, 1, count)
    angle = rng.uniform(0, np.pi, count)
    own_wind = wind + 0.1 * rng.standard_normal((count, 2))
    for cell in range(count):
        frames = np.arange(
            max(0, int(np.ceil(born[cell]))),
            min(num_frames, int(np.floor(born[cell] + life[cell])) + 1),
        )
        away = frames - born[cell] - life[cell] / 2
        middle_y = peak_y[cell] + own_wind[cell, 0] * away
        middle_x = peak_x[cell] + own_wind[cell, 1] * away
        # Beyond this less than a millionth of the peak is left.
        reach = int(2.6 * long[cell]) + 1
        in_view = (np.abs(middle_y - height / 2) < height / 2 + reach) & (
            np.abs(middle_x - width / 2) < width / 2 + reach
        )
        frames, away = frames[in_view], away[in_view]
        middle_y, middle_x = middle_y[in_view], middle_x[in_view]
        top, left = middle_y.astype(int) - reach, middle_x.astype(int) - reach
        window = np.arange(2 * reach + 1)
        off_y = (top - middle_y)[:, np.newaxis, np.newaxis] + window[:, np.newaxis]
        off_x = (left - middle_x)[:, np.newaxis, np.newaxis] + window
        sine, cosine = np.sin(angle[cell]), np.cos(angle[cell])
        along = (off_x * cosine + off_y * sine) / long[cell]
        across = (off_y * cosine - off_x * sine) / short[cell]
        # In dB the growth is steep at first and last, and flat at the peak.
        peak = peak_dbz[cell] - 30 * (2 * away / life[cell]) ** 2
        strength = 10 ** (peak / 10)[:, np.newaxis, np.newaxis]
        shape = strength * np.exp(-2 * (along * along + across * across))
        for index, frame in enumerate(frames):
            y, x = int(top[index]), int(left[index])
            bottom, right = max(0, y + len(window)), max(0, x + len(window))
            seen = power[frame, max(0, y) : bottom, max(0, x) : right]
            rows, columns = seen.shape
            seen += shape[index, max(0, -y) :, max(0, -x) :][:rows, :columns]


def rain_cells_sources(
    *,
    num_frames: int,
    seed: int,
    height: int = 64,
    width: int = 64,
    scale: RainScale,
    num_train_sequences: int = 10_000_000,
    num_validation_sequences: int = 100,
    num_test_sequences: int = 1000,
) -> Sources:
    """Rain cells on a radar, see `RainCells`.

    Validation and test sequences are fixed: they depend on neither the seed nor their
    own number.

    Args:
      num_frames: frames per sequence, input and output together.
      seed: names the stream of training sequences, 0 <= seed < 2**32.
      height: frame height in pixels.
      width: frame width in pixels.
      scale: what the pixels mean.
      num_train_sequences: length of an epoch.
      num_validation_sequences: length of the validation split.
      num_test_sequences: length of the test split.

    Returns:
      The splits.

    Raises:
      UserError: an argument is out of its range; the message names it.
    """
    check_seed_and_counts(
        seed, num_train_sequences, num_validation_sequences, num_test_sequences
    )

    def made(count: int, seed: int) -> RainCells:
        return RainCells(count, num_frames, height, width, scale, seed)

    return Sources(
        train=made(num_train_sequences, seed),
        validation=made(num_validation_sequences, VALIDATION_SEED),
        test=made(num_test_sequences, TEST_SEED),
        description=(
            f"Rain cells on {height}x{width}, all sequences generated by the program: "
            "advected, growing and decaying cells with noise, no measured rain."
        ),
        height=height,
        width=width,
        channels=1,
    )
