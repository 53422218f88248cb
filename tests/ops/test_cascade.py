"""The cascade against NumPy and SciPy, its autoregression against pysteps."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.fft import dctn, idctn

from convlstm_jax.ops.cascade import WAVELENGTHS, autoregression, continued
from tests.trees import fast_jit

HEIGHT, WIDTH = 23, 36


def bands_of(field):
    """The bands of a field, from wavelengths of 3 pixels up, `[N, H, W]`."""
    spectrum = dctn(field, norm="ortho")
    y, x = (np.arange(n) / (2 * n) for n in field.shape)
    with np.errstate(divide="ignore"):
        octaves = np.log2(3 * np.hypot(y[:, None], x[None]))
    centres = -np.arange(len(WAVELENGTHS))[:, None, None]
    away = octaves - centres
    away[0], away[-1] = np.minimum(away[0], 0), np.maximum(away[-1], 0)
    weights = np.exp(-2 * away**2)
    weights[:-1, 0, 0], weights[-1, 0, 0] = 0, 1
    return np.stack([
        idctn(part * spectrum, norm="ortho") for part in weights / weights.sum(0)
    ])  # fmt: skip


def rain(seed):
    """Three fields `[3, H, W]` that resemble each other, most at large scales."""
    rng = np.random.default_rng(seed)
    fields = [rng.normal(size=(HEIGHT, WIDTH))]
    for _ in range(2):
        kept = zip(
            (0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99), bands_of(fields[-1]), strict=True
        )
        new = 0.2 * rng.normal(size=(HEIGHT, WIDTH))
        fields.append(sum(share * band for share, band in kept) + new)
    return 0.4 + 0.1 * np.stack(fields)


def test_each_band_goes_on_by_its_own_autoregression():
    fields = np.stack([rain(0), rain(1)])
    given = jnp.asarray(fields[..., None], jnp.float32)
    found = fast_jit(lambda frames: continued(frames, 4))(given)
    assert found.shape == (2, 4, HEIGHT, WIDTH, 1)
    for clip, three in enumerate(fields):
        earlier, before, now = (bands_of(field) for field in three)
        np.testing.assert_allclose(now.sum(0), three[-1])
        expected = np.full((4, HEIGHT, WIDTH), now.mean((1, 2)).sum())
        for band in range(len(WAVELENGTHS)):
            parts = [one[band] - one[band].mean() for one in (earlier, before, now)]
            one, two = (
                np.corrcoef(parts[-1].ravel(), part.ravel())[0, 1].clip(0, 0.9999)
                for part in (parts[1], parts[0])
            )
            two = max(two, 2 * one**2 - 1)
            two = max(two, (3 * one**2 - 2 + 2 * (1 - one**2) ** 1.5) / one**2)
            shares = np.linalg.solve([[1, one], [one, 1]], [one, two])
            values = parts[1:]
            for step in range(4):
                values.append(shares[0] * values[-1] + shares[1] * values[-2])
                expected[step] += values[-1]
        np.testing.assert_allclose(found[clip, ..., 0], expected, atol=2e-5)


def test_what_does_not_change_stays():
    still = jnp.asarray(np.repeat(rain(0)[:1, None], 3, axis=1)[..., None])
    found = continued(still.astype(jnp.float32), 3)
    np.testing.assert_allclose(found, still, atol=2e-3)
    for value in (0.0, 0.3):
        found = continued(jnp.full((1, 3, 8, 12, 1), value), 2)
        np.testing.assert_allclose(found, value, atol=1e-6)


def test_an_autoregression_goes_on_as_by_its_equations():
    first = np.array([[0.9, 0.5, 0.0, 0.99]])
    second = np.array([[0.85, 0.2, 0.3, 0.99]])
    parts = fast_jit(lambda *args: autoregression(*args, 6))(first, second)
    of_last, of_before = (np.asarray(part)[0] for part in parts)
    for place, (one, two) in enumerate(zip(first[0], second[0], strict=True)):
        shares = np.linalg.solve([[1, one], [one, 1]], [one, two])
        last, before = np.array([1.0, 0.0]), np.array([0.0, 1.0])
        for step in range(6):
            last, before = shares @ [last, before], last
            found = of_last[step, place], of_before[step, place]
            np.testing.assert_allclose(found, last, rtol=1e-4, atol=1e-5)


def test_an_autoregression_is_stationary_as_in_pysteps():
    of_pysteps = pytest.importorskip(
        "pysteps.timeseries.autoregression", reason="requirements-radar.txt"
    )
    first = np.linspace(0.01, 0.99, 25)
    for second in (0.0, 0.4, 0.9):
        given = first[None], np.full((1, 25), second)
        one, two = (
            np.asarray(part)[0, 0]
            for part in fast_jit(lambda *args: autoregression(*args, 1))(*given)
        )
        for place, gamma in enumerate(first):
            raised = of_pysteps.adjust_lag2_corrcoef2(gamma, second)
            shares = of_pysteps.estimate_ar_params_yw([gamma, raised])
            np.testing.assert_allclose([one[place], two[place]], shares[:2], atol=2e-4)
