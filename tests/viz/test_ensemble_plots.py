"""Plots of ensembles, and the power spectrum: plane waves, pysteps where installed."""

import numpy as np
import pytest
from PIL import Image

from convlstm_jax.errors import UserError
from convlstm_jax.metrics.baselines import missing_packages
from convlstm_jax.viz.ensemble_plots import (
    draw_power_spectra,
    ensemble_diagrams,
    power_spectrum,
)

MODEL, FIRST, SECOND = (47, 111, 237), (224, 134, 44), (138, 147, 163)


def coloured_pixels(path, colour):
    with Image.open(path) as picture:
        rgb = np.asarray(picture.convert("RGB"))
    return int((rgb == colour).all(axis=-1).sum())


def diagrams(members, rates):
    bins = np.linspace(0, 1, 10).tolist()
    curve = np.linspace(1, 0, 11)
    roc = {"pofd": (curve**3).tolist(), "pod": curve.tolist()}
    reliability = {"forecast_probability": [*bins[:-1], None]}
    reliability |= {"observed_frequency": [*bins[:-1], None], "cases": [99.0] * 9 + [0]}
    return {
        "rank_histogram": [1 / (members + 1)] * (members + 1),
        "reliability": [{"threshold_mm_per_h": rate} | reliability for rate in rates],
        "roc": [{"threshold_mm_per_h": rate} | roc for rate in rates],
    }


@pytest.mark.parametrize("rates", [(0.5,), (0.5, 2.0, 5.0, 10.0)])
def test_ensembles_are_drawn_in_their_colours_and_single_members_are_not(
    tmp_path, rates
):
    path = tmp_path / "diagrams.png"
    contenders = {"model": diagrams(8, rates), "s_prog": diagrams(1, rates)}
    contenders |= {"steps": diagrams(24, rates), "zeros": {}}
    ensemble_diagrams(path, contenders)
    assert coloured_pixels(path, MODEL) > 500
    assert coloured_pixels(path, FIRST) == 0
    assert coloured_pixels(path, SECOND) > 50


def test_where_no_event_was_observed(tmp_path):
    nothing = diagrams(3, (9.0,))
    nothing["rank_histogram"] = [None] * 4
    nothing["roc"][0]["pod"] = [None] * 11
    ensemble_diagrams(tmp_path / "diagrams.png", {"model": nothing})
    with pytest.raises(UserError, match="no forecast of several members"):
        ensemble_diagrams(tmp_path / "none.png", {"model": diagrams(1, (9.0,))})


@pytest.mark.parametrize("shape", [(48, 48), (48, 24), (24, 48)])
def test_a_plane_wave_has_its_power_at_its_wavelength_along_both_sides(shape):
    y, x = np.indices(shape)
    for place in (y, x):
        field = np.cos(2 * np.pi * place / 8)
        spectrum = power_spectrum(np.stack([field, 3 * field]))
        assert spectrum.shape == (24,)
        # A sixth of the longer side.
        assert np.delete(spectrum, 6) == pytest.approx(np.zeros(23), abs=1e-9)
        one = power_spectrum(field)
        assert spectrum[6] == pytest.approx(5 * one[6]) and one[6] > 1


@pytest.mark.skipif(bool(missing_packages()), reason="pysteps: requirements-radar.txt")
@pytest.mark.parametrize("size", [32, 33])
def test_the_power_spectrum_of_square_fields_is_that_of_pysteps(size):
    from pysteps.utils.spectral import rapsd

    field = np.random.default_rng(0).gamma(0.5, 3, (size, size))
    expected = rapsd(field, fft_method=np.fft)
    np.testing.assert_allclose(power_spectrum(field), expected, rtol=1e-6)


def test_power_spectra_are_drawn_what_was_observed_in_black(tmp_path):
    path = tmp_path / "spectra.png"
    spectrum = 1.0 / np.arange(1, 33) ** 3
    names = {"observed": 2 * spectrum, "model": spectrum, "s_prog": spectrum / 2}
    draw_power_spectra(path, names, km_per_pixel=2.0)
    for colour in (MODEL, FIRST, (0, 0, 0)):
        assert coloured_pixels(path, colour) > 100
