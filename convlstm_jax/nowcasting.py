"""Nowcasts of a trained network in a script of pysteps."""

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convlstm_jax.cli.build import build_objective
from convlstm_jax.ensembles import probability_matched_mean
from convlstm_jax.objectives.whole_area import WholeArea
from convlstm_jax.predictor import Predictor, load
from convlstm_jax.rain import DRY_BELOW_MM_PER_H


def forecast(
    precip: np.ndarray,
    velocity: np.ndarray | None,
    timesteps: int | Sequence[int],
    n_ens_members: int | None = None,
    *,
    model: Predictor | str | Path,
    timestep: float | None = None,
) -> np.ndarray:
    """A nowcast with the arguments and the result of the methods of pysteps.

    Args:
        precip: Rain rates `[T, m, n]` in mm/h, not in dB, NaN where there is no data,
            of the time step and size of pixels of the training. The last ones are
            used, as many as the network reads. Rates above the scale of the
            training become its top, with a warning.
        velocity: The advection field `[2, m, n]`. Accepted, as all methods have it;
            the network finds the motion itself.
        timesteps: How many time steps, or which, in ascending order.
        n_ens_members: How many members to draw of a network that was trained with
            `config.task.num_members`, also more than that; 1 of another. None for one
            forecast without an axis of members: the probability-matched mean of as many
            as in training.
        model: What `load` returned, or the folder to be loaded each time.
        timestep: The minutes between composites, if they shall be compared with those
            of the training.

    Returns:
        Rain rates in mm/h, `[timesteps, m, n]`, or `[n_ens_members, timesteps, m, n]`;
        below 0.1 they are 0, and without data in the last composite NaN. The same
        composites have the same members, and fewer are the first of them, to rounding.

    Raises:
        ValueError: An argument does not fit, or the model is no nowcasting network.
    """
    predictor = model if isinstance(model, Predictor) else load(model)
    objective = _objective(predictor)
    _check(objective, precip, velocity, n_ens_members, timestep)
    whole_area = _whole_area(predictor, int(n_ens_members or objective.num_members))
    steps = _steps(timesteps)
    scale, rain = objective.facts.rain_scale, precip[-objective.num_input_frames :]
    top = scale.rain_mm_per_h(np.float64(1))
    if beyond := int((rain > top).sum()):
        warnings.warn(f"set to {top:.3g} mm/h: {beyond} pixels above it", stacklevel=2)
    pixels = scale.pixels_of_rain(np.nan_to_num(rain)).astype(np.float32)
    known = ~np.isnan(rain[..., np.newaxis])
    frames = whole_area(pixels[..., np.newaxis], steps[-1], known)
    found = scale.rain_mm_per_h(frames[[step - 1 for step in steps]])
    found[found < DRY_BELOW_MM_PER_H] = 0.0
    found[:, np.isnan(precip[-1])] = np.nan
    if n_ens_members is None:
        return probability_matched_mean(found)
    return np.moveaxis(found, -1, 0)


@functools.lru_cache(maxsize=4)
def _objective(predictor: Predictor) -> Any:
    experiment = predictor.experiment
    objective, network = build_objective(experiment), experiment.model
    if not objective.takes_whole_area or not network.takes_any_size:
        raise ValueError(
            f"model is a {network.name!r} for {experiment.task.name!r}: it must be a "
            "convolutional network for 'nowcast', without weights for each location"
        )
    return objective


@functools.lru_cache(maxsize=4)  # It is compiled once.
def _whole_area(predictor: Predictor, num_members: int) -> WholeArea:
    objective = _objective(predictor).with_config(num_members=num_members)
    patch = getattr(predictor.experiment.model, "patch_size", 1)
    return WholeArea(objective, predictor.variables, patch)


def _check(
    objective: Any,
    precip: np.ndarray,
    velocity: np.ndarray | None,
    n_ens_members: int | None,
    timestep: float | None,
) -> None:
    least, minutes = objective.num_input_frames, objective.facts.minutes_per_frame
    if precip.ndim != 3 or len(precip) < least:
        raise ValueError(
            f"precip has the shape {list(precip.shape)}: it must be [T, m, n], with at "
            f"least {least} composites"
        )
    if (np.nan_to_num(precip, posinf=-1.0) < 0).any():
        raise ValueError(
            "precip has values below 0 or infinite ones: it must be rain rates in "
            "mm/h, not in dB"
        )
    if velocity is not None and velocity.shape != (2, *precip.shape[1:]):
        raise ValueError(
            f"velocity has the shape {list(velocity.shape)}: it must be "
            f"{[2, *precip.shape[1:]]}, or None"
        )
    if n_ens_members is not None and (n_ens_members < 1 or n_ens_members % 1):
        raise ValueError(
            f"n_ens_members is {n_ens_members}: it must be a whole number from 1 on, "
            "or None"
        )
    if objective.num_members == 1 and n_ens_members not in (None, 1):
        raise ValueError(
            f"n_ens_members is {n_ens_members}: the network gives one forecast, so it "
            "must be 1 or None; one that is trained with config.task.num_members above "
            "1 gives any number"
        )
    if timestep is not None and abs(timestep - minutes) > 0.2 * minutes:
        raise ValueError(
            f"timestep is {timestep:g} minutes: the network was trained on composites "
            f"{minutes:g} minutes apart"
        )


def _steps(timesteps: Any) -> list[int]:
    """The numbers of the time steps, from 1 on."""
    given = list(timesteps if np.ndim(timesteps) else range(1, timesteps + 1))
    steps = [int(one) for one in given]
    if not steps or steps != given or sorted({0, *steps}) != [0, *steps]:
        raise ValueError(
            f"timesteps is {timesteps}: it must be a number from 1 on, or whole "
            "numbers in ascending order"
        )
    return steps
