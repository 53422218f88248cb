"""Products of ensembles, against plain loops."""

import numpy as np
import pytest

from convlstm_jax.ensembles import (
    exceedance_probability,
    probability_matched_mean,
    quantiles,
)

RATES, SHARES = (0.5, 2.0, 50.0), (0.1, 0.5, 0.9)


def ensemble(num_members, dtype=np.float32):
    """Rain `[2, 5, 7, M]`, dry in places, in which some pixels have no data."""
    members = np.random.default_rng(0).gamma(0.4, 3.0, (2, 5, 7, num_members))
    members[members < 0.1] = 0
    members[:, 3] = 0
    members[:, 0, :3] = np.nan
    members[1, 4, 6, 0] = np.nan
    return members.astype(dtype)


def matched_by_loops(members):
    result = np.full(members.shape[:-1], np.nan, members.dtype)
    count = members.shape[-1]
    for time, field in enumerate(members):
        pixels = [
            (field[row, column].mean(), row, column)
            for row in range(field.shape[0])
            for column in range(field.shape[1])
            if not np.isnan(field[row, column]).any()
        ]
        rates = sorted(float(x) for _, row, col in pixels for x in field[row, col])
        for rank, (_, row, column) in enumerate(sorted(pixels)):
            result[time, row, column] = rates[rank * count + count // 2]
    return result


@pytest.mark.parametrize("num_members", [1, 2, 5, 16])
def test_the_matched_mean_is_that_of_loops(num_members):
    members = ensemble(num_members)
    found = probability_matched_mean(members)
    np.testing.assert_array_equal(found, matched_by_loops(members))
    assert found.dtype == members.dtype
    assert (found[:, 3] == 0).all()  # Dry in all members.
    if num_members == 1:
        np.testing.assert_array_equal(found, members[..., 0])


def test_the_matched_mean_has_the_rates_of_the_members_in_the_order_of_the_mean():
    members = ensemble(9, np.float64)[:1, 1:3]
    found, mean = probability_matched_mean(members)[0], members[0].mean(-1)
    assert (np.diff(found.ravel()[np.argsort(mean, None)]) >= 0).all()
    assert set(found.ravel()) <= set(members.ravel())
    assert found.max() > mean.max() and found.mean() == pytest.approx(mean.mean(), 0.1)


@pytest.mark.parametrize("num_members", [1, 5, 16])
def test_probabilities_and_quantiles_are_those_of_loops(num_members):
    members = ensemble(num_members)
    members[0, 2, 2, 0] = RATES[0]  # At a rate counts as well.
    shares, rates = exceedance_probability(members, RATES), quantiles(members, SHARES)
    assert shares.shape == rates.shape == (3, *members.shape[:-1])
    assert shares.dtype == rates.dtype == np.float32
    for place in np.ndindex(members.shape[:-1]):
        values = members[place]
        if np.isnan(values).any():
            assert (
                np.isnan(shares[:, *place]).all() and np.isnan(rates[:, *place]).all()
            )
            continue
        for rate, share in zip(RATES, shares[:, *place], strict=True):
            assert share == np.float32(sum(values >= rate) / num_members)
        ranks = np.array(SHARES) * (num_members - 1)
        expected = np.interp(ranks, range(num_members), np.sort(values))
        np.testing.assert_allclose(rates[:, *place], expected, rtol=1e-5)
    assert exceedance_probability(members, []).shape == (0, *members.shape[:-1])
