"""Synthetic radar films of rain cells: a stand-in for measured ones."""

import math
from typing import ClassVar, Literal

import numpy as np

from convlstm_jax.config import field
from convlstm_jax.data.base import RainDataConfig
from convlstm_jax.data.sources import Sources
from convlstm_jax.data.synthetic.clips import SyntheticClips

MIN_SIZE = 16  # Fewest pixels on which a cell can be told from its neighbours.
_BLOCK = 32  # Cells are drawn for so many frames at a time.
_PIXELS_PER_CELL = 450  # In a block, for one cell.
_MODES = 24  # Waves that the texture is made of.


class RainCells(SyntheticClips["RainCellsConfig"]):
    """A random-access source of radar sequences of rain cells, see `SyntheticClips`.

    The wind of a clip, 0.2 to 1.6 pixels a frame, carries elliptic cells that grow to
    20 to 50 dBZ and decay within 12 to 32 frames, with a texture of random waves and
    noise of 1 dB in each pixel. Beyond the range of a radar there is no data.

    Clips have "frames" and "mask", see `ClipSource`.
    """

    def _generate(self, index: int) -> dict[str, np.ndarray]:
        shape = self.config.clip_shape[:2]
        # One stream for what is drawn once, one for the noise, one for each block.
        clip = np.random.default_rng((self.seed, index, 0))
        noise = np.random.default_rng((self.seed, index, 1))
        speed, direction = clip.uniform(0.2, 1.6), clip.uniform(0, 2 * np.pi)
        wind = speed * np.array([np.sin(direction), np.cos(direction)])
        mask = _range_of_radar(clip, shape)
        texture_db = _texture(clip, wind, self.num_frames, shape)
        power = np.zeros((self.num_frames, *shape))  # Z, mm⁶/m³
        # Cells born in the block before the first may still rain.
        for block in range(-1, -(-self.num_frames // _BLOCK)):
            rng = np.random.default_rng((self.seed, index, 3 + block))
            _add_cells(power, rng, block * _BLOCK, wind)
        with np.errstate(divide="ignore"):
            dbz = 10 * np.log10(power) + texture_db
        dbz += noise.standard_normal(power.shape)
        pixels = np.rint(255 * self.config.rain_scale.pixels(dbz)) * mask
        masks = np.broadcast_to(mask, power.shape)
        return {
            "frames": pixels.astype(np.uint8)[..., np.newaxis],
            "mask": masks.astype(np.uint8)[..., np.newaxis],
        }


def _range_of_radar(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Whether a pixel lies within the range of a radar that is somewhere near."""
    height, width = shape
    centre_y, centre_x = rng.uniform(0.1, 0.9, 2) * shape
    radius = rng.uniform(0.75, 1.25) * max(shape)
    y, x = np.ogrid[:height, :width]
    return (y - centre_y) ** 2 + (x - centre_x) ** 2 <= radius**2


def _texture(
    rng: np.random.Generator, wind: np.ndarray, num_frames: int, shape: tuple[int, int]
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
    """Adds the cells born in the block from frame `first` on to Z `[T, H, W]`."""
    num_frames, *size = power.shape
    half_size = np.reshape(size, (2, 1)) / 2
    count = max(6, round(1.5**2 * math.prod(size) / _PIXELS_PER_CELL))
    born = first + rng.uniform(0, _BLOCK, count)
    life = rng.uniform(12, 32, count)
    # Where a cell is at its peak; some come from outside, or go there.
    places = rng.uniform(-0.25, 1.25, (2, count)) * (2 * half_size)
    peak_dbz = 20 + 30 * rng.uniform(0, 1, count) ** 1.5
    long = rng.uniform(3, 12, count)  # pixels, half the width at e^(-1/2)
    short = long * rng.uniform(0.4, 1, count)
    angle = rng.uniform(0, np.pi, count)
    own_wind = wind + 0.1 * rng.standard_normal((count, 2))
    for cell in range(count):
        dead = int(born[cell] + life[cell] + 1)
        frames = np.arange(max(0, math.ceil(born[cell])), min(num_frames, dead))
        away = frames - born[cell] - life[cell] / 2
        centres = places[:, [cell]] + own_wind[cell, :, np.newaxis] * away
        # Beyond this less than a millionth of the peak is left.
        reach = int(2.6 * long[cell]) + 1
        in_view = (np.abs(centres - half_size) < half_size + reach).all(axis=0)
        frames, away, centres = frames[in_view], away[in_view], centres[:, in_view]
        corners = centres.astype(int) - reach
        window = np.arange(2 * reach + 1)
        off_y, off_x = (corners - centres)[..., np.newaxis, np.newaxis] + window
        off_y = off_y.swapaxes(1, 2)
        sine, cosine = np.sin(angle[cell]), np.cos(angle[cell])
        along = (off_x * cosine + off_y * sine) / long[cell]
        across = (off_y * cosine - off_x * sine) / short[cell]
        # In dB the growth is steep at first and last, and flat at the peak.
        peak = peak_dbz[cell] - 30 * (2 * away / life[cell]) ** 2
        strength = 10 ** (peak / 10)[:, np.newaxis, np.newaxis]
        shape = strength * np.exp(-2 * (along * along + across * across))
        for frame, y, x, cell_power in zip(frames, *corners, shape, strict=True):
            bottom, right = max(0, y + len(window)), max(0, x + len(window))
            seen = power[frame, max(0, y) : bottom, max(0, x) : right]
            rows, columns = seen.shape
            seen += cell_power[max(0, -y) :, max(0, -x) :][:rows, :columns]


class RainCellsConfig(RainDataConfig):
    """Synthetic rain cells on a radar."""

    own_data: ClassVar[str] = "radar"

    name: Literal["rain_cells"] = "rain_cells"
    height: int = field(64, "Height of a frame.", unit="pixels", ge=MIN_SIZE)
    width: int = field(64, "Width of a frame.", unit="pixels", ge=MIN_SIZE)

    def sources(self, *, num_frames: int, seed: int) -> Sources:
        """The splits, see `DataConfig.sources`."""
        return RainCells.splits(
            self,
            num_frames,
            seed,
            f"Rain cells on {self.height}x{self.width}, all sequences generated by the "
            "program: cells that move, grow and decay, no measured rain.",
        )
