"""Products of an ensemble of rain rates: probabilities, quantiles and one field.

Members are the last axis, `[T, H, W, M]`, NaN where there is no data; the ensemble mean
is their `.mean(-1)`. Each lead time is taken on its own.
"""

from collections.abc import Sequence

import numpy as np


def exceedance_probability(members: np.ndarray, rates: Sequence[float]) -> np.ndarray:
    """The share of members at or above each rate.

    Args:
        members: Rain rates `[T, H, W, M]`.
        rates: R rates, in the unit of the members.

    Returns:
        Probabilities `[R, T, H, W]` from 0 to 1, float32; NaN where there is no data.
    """
    shares = np.empty((len(rates), *members.shape[:-1]), np.float32)
    for share, rate in zip(shares, rates, strict=True):
        share[...] = (members >= rate).mean(-1, dtype=np.float32)
    shares[:, np.isnan(members).any(-1)] = np.nan
    return shares


def quantiles(members: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """The rates below which each share of the members lies.

    Args:
        members: Rain rates `[T, H, W, M]`.
        shares: Q shares from 0 to 1; 0.5 is the median.

    Returns:
        Rates `[Q, T, H, W]`, between two members interpolated linearly; NaN where there
        is no data.
    """
    return np.quantile(members, shares, axis=-1).astype(members.dtype)


def probability_matched_mean(members: np.ndarray) -> np.ndarray:
    """The pattern of the ensemble mean, with the rates of the members.

    Of all rates of a lead time, sorted, every M-th (in the middle of its group) is
    given to the pixels in the order of the mean, which alone is too smooth and has too
    little heavy rain. What is dry in all members stays dry. Ebert 2001,
    10.1175/1520-0493(2001)129<2461:AOAPMS>2.0.CO;2.

    Args:
        members: Rain rates `[T, H, W, M]`.

    Returns:
        Rates `[T, H, W]`; NaN where there is no data. Of one member, itself.
    """
    matched = np.full(members.shape[:-1], np.nan, members.dtype)
    for field, of_time in zip(matched, members, strict=True):
        known = ~np.isnan(of_time).any(-1)
        values = of_time[known]
        places = np.argsort(values.mean(-1), kind="stable")
        groups = np.sort(values, axis=None).reshape(values.shape)
        ranked = np.empty(len(values), members.dtype)
        ranked[places] = groups[:, values.shape[-1] // 2]
        field[known] = ranked
    return matched
