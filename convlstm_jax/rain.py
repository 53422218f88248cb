"""Pixels, radar reflectivity and rain rate, in NumPy and JAX alike."""

import math
from dataclasses import dataclass
from typing import Any

DRY_BELOW_MM_PER_H = 0.1
"""The rate from which rain counts as such; in files and pictures less is none."""


@dataclass(frozen=True)
class RainScale:
    """What the pixels of a radar clip mean.

    A pixel p in [0, 1] is the reflectivity dbz_min + p (dbz_max − dbz_min) in dBZ,
    clipped at both ends; 0 also stands for all that is weaker and counts as no rain.
    Rain follows from Z = a R^b, with Z in mm⁶/m³ (dBZ = 10 log10 Z) and R in mm/h.
    """

    dbz_min: float = 0.0
    dbz_max: float = 60.0
    zr_a: float = 200.0  # a and b by Marshall, Langille and Palmer 1947
    zr_b: float = 1.6

    def dbz(self, pixels: Any) -> Any:
        """Reflectivity of pixels, dBZ."""
        return self.dbz_min + pixels * (self.dbz_max - self.dbz_min)

    def pixels(self, dbz: Any) -> Any:
        """Pixels of a reflectivity in dBZ, in [0, 1]."""
        return ((dbz - self.dbz_min) / (self.dbz_max - self.dbz_min)).clip(0.0, 1.0)

    def rain_mm_per_h(self, pixels: Any) -> Any:
        """Rain rate of pixels, mm/h; none where the pixel is 0."""
        exponent = (self.dbz(pixels) - 10 * math.log10(self.zr_a)) / (10 * self.zr_b)
        return 10.0**exponent * (pixels > 0)

    def pixels_of_rain(self, rain_mm_per_h: Any) -> Any:
        """Pixels of rain rates, an array in mm/h, in [0, 1]."""
        xp = rain_mm_per_h.__array_namespace__()
        logarithm = xp.log10(xp.maximum(rain_mm_per_h, 1e-6))  # Far below any pixel.
        return self.pixels(10 * (math.log10(self.zr_a) + self.zr_b * logarithm))

    def pixel_of_rain(self, rain_mm_per_h: float) -> float:
        """The pixel of one rain rate above 0, not clipped to [0, 1]."""
        dbz = 10 * math.log10(self.zr_a * rain_mm_per_h**self.zr_b)
        return (dbz - self.dbz_min) / (self.dbz_max - self.dbz_min)
