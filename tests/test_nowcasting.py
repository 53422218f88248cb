"""Nowcasts with the arguments and the result of the methods of pysteps."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import clip_classification, radar_nowcasting
from convlstm_jax import Predictor, nowcasting
from convlstm_jax.cli.build import build_objective
from convlstm_jax.cli.experiment import experiment
from convlstm_jax.config import Config, field
from convlstm_jax.ensembles import probability_matched_mean
from convlstm_jax.models.network import Forecast
from convlstm_jax.objectives.base import DataFacts

TINY = {
    "model.features": "2", "model.patch_size": "4", "task.num_input_frames": "2",
    "task.num_output_frames": "3",
}  # fmt: skip
RAIN = np.random.default_rng(0).gamma(0.4, 3.0, (3, 16, 24))
RAIN[2, :3, :5] = np.nan


def predictor_of(config, overrides):
    chosen = experiment(config, overrides, reads_data=False)
    shape = chosen.data.frame_shape
    variables = build_objective(chosen).init(jax.random.key(0), shape)
    return Predictor(chosen, variables, 0)


@pytest.fixture(scope="module")
def model():
    return predictor_of(radar_nowcasting.get_config("quick"), TINY)


def test_it_is_the_forecast_of_the_network(model):
    rain = np.maximum(np.nan_to_num(RAIN), 1e-9)
    found = nowcasting.forecast(rain, None, 3, model=model)
    scale = build_objective(model.experiment).facts.rain_scale
    dbz = 10 * np.log10(scale.zr_a * rain[1:] ** scale.zr_b)
    pixels = scale.pixels(dbz).astype(np.float32)
    expected = scale.rain_mm_per_h(np.asarray(model.predict(pixels, 3)))
    expected = np.where(expected < 0.1, 0, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_axes_are_those_of_pysteps(model):
    found = nowcasting.forecast(RAIN, None, 3, model=model)
    expected = np.broadcast_to(np.isnan(RAIN[2]), (3, 16, 24))
    np.testing.assert_array_equal(np.isnan(found), expected)
    velocity = np.ones((2, 16, 24))
    members = nowcasting.forecast(RAIN, velocity, 3, 1, model=model, timestep=5)
    np.testing.assert_array_equal(members, found[np.newaxis])
    chosen = nowcasting.forecast(RAIN, velocity, [1, 3], model=model)
    np.testing.assert_allclose(chosen, found[[0, 2]], rtol=1e-5)


def test_a_dry_area_stays_a_field_of_numbers(model):
    found = nowcasting.forecast(np.zeros((2, 8, 8)), None, 2, model=model)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precip": RAIN[0]}, r"precip has the shape \[16, 24\]: it must be \[T, m, n"),
        ({"precip": RAIN[:1]}, "at least 2 composites"),
        ({"precip": RAIN - 15}, "precip has values below 0 or infinite ones"),
        ({"precip": RAIN + np.inf}, "precip has values below 0 or infinite ones"),
        ({"velocity": np.ones((2, 3, 4))}, r"velocity has the shape \[2, 3, 4\]"),
        ({"n_ens_members": 24}, "n_ens_members is 24: .*num_members above 1 gives any"),
        ({"n_ens_members": 0}, "n_ens_members is 0: it must be a whole number from 1"),
        ({"n_ens_members": 2.5}, r"n_ens_members is 2\.5: it must be a whole number"),
        ({"timestep": 10}, "timestep is 10 minutes: .* 5 minutes apart"),
        ({"timesteps": 0}, "timesteps is 0: it must be a number from 1 on"),
        ({"timesteps": [2, 1]}, r"timesteps is \[2, 1\]: it must be"),
        ({"timesteps": [0.5, 1]}, "or whole numbers in ascending order"),
        ({"timesteps": []}, r"timesteps is \[\]"),
    ],
)
def test_what_is_refused(model, arguments, message):
    given = {"precip": RAIN, "velocity": None, "timesteps": 2, **arguments}
    with pytest.raises(ValueError, match=message):
        nowcasting.forecast(**given, model=model)


class MembersConfig(Config):
    num_members: int = field(4, "Members.", ge=1)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Members of noise, each from a key of its own, that leave dry places dry."""

    config: MembersConfig = dataclasses.field(default_factory=MembersConfig)
    facts: DataFacts = dataclasses.field(default_factory=DataFacts)
    num_input_frames: int = 2
    takes_whole_area: bool = True

    @property
    def num_members(self):
        return self.config.num_members

    def with_config(self, **fields):
        return dataclasses.replace(self, config=self.config.model_copy(update=fields))

    def forecast(self, variables, inputs, num_frames):
        last = jnp.nan_to_num(inputs[:, -1:]).repeat(num_frames, axis=1)
        keys = (jax.random.key(member) for member in range(self.num_members))
        drawn = [last * jax.random.uniform(key, last.shape) for key in keys]
        return Forecast(jnp.concatenate(drawn, axis=-1), None)


def test_members_are_drawn_in_any_number(model, monkeypatch):
    monkeypatch.setattr(nowcasting, "build_objective", lambda experiment: Drawn())
    ensemble = Predictor(model.experiment, model.variables, 0)
    members = nowcasting.forecast(RAIN, None, 3, 4, model=ensemble)
    assert members.shape == (4, 3, 16, 24)
    np.testing.assert_array_equal(
        np.isnan(members), np.broadcast_to(np.isnan(RAIN[2]), members.shape)
    )
    assert not (members[members > 0] < 0.1).any()
    assert np.nanmax(np.ptp(members, axis=0)) > 1
    for count in (1, 2, 6):  # More than in training as well.
        found = nowcasting.forecast(RAIN, None, 3, count, model=ensemble)
        assert found.shape == (count, 3, 16, 24)
        np.testing.assert_array_equal(found[:4], members[:count])
    last = nowcasting.forecast(RAIN, None, [3], 2, model=ensemble)
    np.testing.assert_array_equal(last[:, 0], members[:2, 2])
    matched = nowcasting.forecast(RAIN, None, 3, model=ensemble)
    expected = probability_matched_mean(np.moveaxis(members, 0, -1))
    np.testing.assert_array_equal(matched, expected)


def test_rates_above_the_scale_are_counted(model):
    heavy = RAIN.copy()
    heavy[-1, 3, 2:5] = 900.0
    with pytest.warns(UserWarning, match="set to 244 mm/h: 3 pixels above it"):
        nowcasting.forecast(heavy, None, 1, model=model)


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        (clip_classification.get_config("quick"), {}),
        (
            radar_nowcasting.get_config("quick"),
            {**TINY, "model.peephole": "location"},
        ),
    ],
)
def test_only_nowcasting_networks_of_any_size(config, overrides):
    other = predictor_of(config, overrides)
    with pytest.raises(ValueError, match=r"it must be a convolutional network for 'n"):
        nowcasting.forecast(RAIN, None, 2, model=other)
