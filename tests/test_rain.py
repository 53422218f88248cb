"""Pixels, reflectivity and rain rate, in NumPy and in JAX alike."""

import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.rain import RainScale

FINLAND = RainScale(0.0, 60.0, 223.0, 1.53)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_rain_rates_of_pixels_worked_out_by_hand(array):
    # Z = 223 R^1.53: 1 mm/h is 223 mm⁶/m³, 23.483 dBZ; 10 mm/h is 15.3 dB more.
    pixels = array([0.0, 23.48305 / 60, 38.78305 / 60])
    rain = FINLAND.rain_mm_per_h(pixels)
    assert isinstance(rain, type(pixels))
    np.testing.assert_allclose(rain, [0, 1, 10], rtol=1e-4)
    np.testing.assert_allclose(FINLAND.dbz(pixels)[1:], [23.483, 38.783], rtol=1e-5)


def test_there_and_back():
    scale = RainScale(-10.0, 55.0, 200.0, 1.6)
    dbz = np.array([-40.0, -10, 3, 54, 70])
    np.testing.assert_allclose(scale.dbz(scale.pixels(dbz)), [-10, -10, 3, 54, 55])
    for rate in (0.5, 2.0, 30.0):
        pixel = scale.pixel_of_rain(rate)
        assert scale.rain_mm_per_h(np.float64(pixel)) == pytest.approx(rate)
