"""The pixels of radar composites: read, averaged over blocks, and scaled."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from convlstm_jax.data.frame_cache import FrameCache
from convlstm_jax.data.pictures import PICTURE_ERRORS, open_picture, unreadable_picture
from convlstm_jax.data.radar_formats import radar_format_of
from convlstm_jax.data.radar_importers import import_reflectivity
from convlstm_jax.errors import UserError
from convlstm_jax.rain import RainScale

_CACHE = FrameCache()  # One for all splits of the process.


@dataclass(frozen=True)
class CompositeReader:
    """Reads composites: 8-bit pictures of reflectivities, or what pysteps imports.

    A block of `downsample` × `downsample` pixels becomes one pixel, by the mean of Z
    (mm⁶/m³, not of dBZ, of which a mean has no meaning) over those of its pixels that
    hold data; what is left of a side at its end is cut off. A block in which fewer
    than half of the pixels hold data holds none itself.

    Attributes:
      scale: what the pixels read out are to mean.
      downsample: side of a block, pixels.
      dbz_gain: of pictures dBZ = gain · value + offset; 0.5 for the FMI's files.
      dbz_offset: see above; −32 for the FMI's files.
      no_data_value: the value that stands for no data in pictures; 255 for the FMI's.
      radar_format: a name of `RADAR_FORMATS`.
      time_step_minutes: from one composite to the next, see `import_reflectivity`.

    Raises:
      UserError: there is no such format, or what it needs is not installed.
    """

    scale: RainScale
    downsample: int = 1
    dbz_gain: float = 0.5
    dbz_offset: float = -32.0
    no_data_value: int = 255
    radar_format: str = "picture"
    time_step_minutes: float = 5.0

    def __post_init__(self):
        """Refuses a format that cannot be read here, before any file is looked at."""
        radar_format_of(self.radar_format)

    def read(self, path: Path) -> np.ndarray:
        """Reads one composite; those read last are kept in memory.

        Args:
          path: an 8-bit grey picture, or a file of the reader's format.

        Returns:
          uint8 `[2, H, W]`, not to be written to: pixels of the scale times 255,
          rounded, 0 where there is no data; and 1 where there is data, else 0.

        Raises:
          UserError: it cannot be read, is a picture that is not 8 bits deep, or is
            smaller than a block.
        """
        key = f"{self}:{path}"
        frame = _CACHE.get(key, 0)
        if frame is None:
            frame = self.decode(path)
            _CACHE.put(key, 0, frame)
        return frame

    def decode(self, path: Path) -> np.ndarray:
        """As `read`, but keeps nothing in memory."""
        if self.radar_format == "picture":
            factor = self._read_picture(path)
        else:
            factor = import_reflectivity(
                path, self.radar_format, self.scale, self.time_step_minutes
            )
        size = self.downsample
        height, width = (side // size for side in factor.shape)
        if not height or not width:
            raise UserError(
                f"'{path}' has {factor.shape[0]}×{factor.shape[1]} pixels (height × "
                f"width), but must have at least downsample={size} along either."
            )
        blocks = factor[: height * size, : width * size].reshape(
            height, size, width, size
        )
        there = ~np.isnan(blocks)
        count = there.sum(axis=(1, 3))
        total = np.where(there, blocks, 0.0).sum(axis=(1, 3))
        valid = 2 * count >= size * size
        with np.errstate(divide="ignore", invalid="ignore"):
            dbz = 10 * np.log10(total / count)
        pixels = np.where(valid, self.scale.pixels(dbz), 0.0)
        frame = np.stack([np.rint(255 * pixels), valid]).astype(np.uint8)
        frame.setflags(write=False)
        return frame

    def _read_picture(self, path: Path) -> np.ndarray:
        """Z of a picture's pixels, mm⁶/m³, NaN where there is no data."""
        try:
            with open_picture(path) as picture:
                picture.load()
                if picture.mode != "L":
                    raise UserError(
                        f"'{path}' is a picture of mode {picture.mode!r}, but radar "
                        "composites must be grey with 8 bits."
                    )
                values = np.asarray(picture)
        except PICTURE_ERRORS as error:
            if isinstance(error, UserError):
                raise
            raise unreadable_picture(path, error) from error
        # Looked up by value: 256 powers in place of a million.
        levels = np.arange(256)
        factor = 10.0 ** ((self.dbz_gain * levels + self.dbz_offset) / 10)
        return np.where(levels == self.no_data_value, np.nan, factor)[values]


READER_FIELDS = tuple(
    field.name for field in fields(CompositeReader) if field.name != "scale"
)
"""What a `CompositeReader` is told beside the scale; the config names them so too."""
