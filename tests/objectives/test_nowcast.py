import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.metrics.accumulate import add_sums, batch_sums
from convlstm_jax.models.encoder_forecaster import (
    EncoderForecaster,
    EncoderForecasterConfig,
)
from convlstm_jax.objectives import nowcast
from convlstm_jax.objectives.base import DataFacts
from convlstm_jax.objectives.moving_frame import (
    MovingFrame,
    matched_mean,
    probability_matched,
)
from convlstm_jax.objectives.nowcast import Nowcast, NowcastConfig, NowcastObjective
from convlstm_jax.ops.advection import carry, find_motion, trajectories
from convlstm_jax.ops.cascade import continued
from convlstm_jax.rain import RainScale

SCALE = RainScale(0.0, 60.0, 223.0, 1.53)
MODEL = EncoderForecaster(
    features=(2,), input_kernel_size=1, recurrent_kernel_size=1, patch_size=2
)


FACTS = DataFacts(rain_scale=SCALE, rain_thresholds=(0.5, 5.0), fss_window_sizes=(3,))


def make(loss="b_mse", **fields):
    config = NowcastConfig(num_input_frames=3, num_output_frames=2, loss=loss, **fields)
    return NowcastObjective(MODEL, 3, 2, loss, config=config, facts=FACTS)


@functools.cache
def compiled(task, name, **options):
    """A method, compiled at once rather than operation by operation."""
    method = functools.partial(getattr(task, name), **options)
    return jax.jit(method)


def loss_of(task, variables, batch):
    return compiled(task, "loss_fn")(variables, batch, None, None)[0]


def measure(task, variables, batch, with_baselines=True):
    run = compiled(task, "measure", with_baselines=with_baselines)
    return run(variables, batch)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 200, (2, 5, 8, 6, 1), np.uint8)
    mask = (rng.random(frames.shape) < 0.7).astype(np.uint8)
    return {"frames": jnp.asarray(frames * mask), "mask": jnp.asarray(mask)}


@pytest.fixture(scope="module")
def variables():
    init = functools.partial(make().init, frame_shape=(8, 6, 1))
    return jax.jit(init)(jax.random.key(0))


def test_figures_of_persistence_against_numpy(batch, variables):
    task = make()
    contenders = measure(task, variables, batch)
    assert set(contenders) == {"model", "persistence"}
    total = add_sums(None, batch_sums(contenders["persistence"], jnp.ones(2)))
    summary = task.summarize(total, (8, 6, 1))
    frames, mask = np.asarray(batch["frames"]) / 255, np.asarray(batch["mask"]) > 0
    error = np.where(mask[:, 3:], frames[:, 2:3] - frames[:, 3:], 0) ** 2
    mse = error.sum((2, 3, 4)).mean(0)
    np.testing.assert_allclose(summary.per_lead_time["mse"], mse, rtol=1e-5)
    assert summary.total["mse"] == pytest.approx(mse.mean(), rel=1e-5)
    per_pixel = error.sum() / mask[:, 3:].sum()
    assert summary.total["mse_per_pixel"] == pytest.approx(per_pixel, rel=1e-5)
    true, predicted = (
        SCALE.rain_mm_per_h(pixels)[mask[:, 3:]] >= 0.5
        for pixels in (frames[:, 3:], frames[:, [2, 2]])
    )
    csi = (true & predicted).sum() / (true | predicted).sum()
    assert summary.total["csi_0.5_mm_per_h"] == pytest.approx(csi)
    assert {"fss_5_mm_per_h_3_px", "rainfall_mse", "correlation"} <= set(
        summary.per_lead_time
    )
    with pytest.raises(ValueError, match="number of samples evaluated is 0"):
        task.summarize({**total, "count": 0}, (8, 6, 1))


def test_an_extrapolation_of_the_batch_is_a_contender(batch, variables):
    truth = batch["frames"][:, 3:].astype(jnp.float32) / 255
    contenders = measure(make(), variables, {**batch, "optical_flow": truth})
    assert not contenders["optical_flow"]["mse"].any()
    validation = measure(make(), variables, batch, with_baselines=False)
    assert set(validation) == {"model"} and "loss" in validation["model"]


def test_the_weights_of_rain_reach_the_loss(batch, variables):
    plain = make(loss="b_mse", rain_weight_rates=(1e9,), rain_weights=(2.0,))
    doubled = make(loss="b_mse", rain_weight_rates=(1e-9,), rain_weights=(2.0,))
    mse = loss_of(make(loss="mse"), variables, batch)
    np.testing.assert_allclose(loss_of(plain, variables, batch), mse, rtol=1e-6)
    rainy = {**batch, "frames": jnp.maximum(batch["frames"], 1)}
    one, two = (loss_of(task, variables, rainy) for task in (plain, doubled))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-6)


def test_from_the_last_frame_an_idle_model_is_persistence(batch, variables):
    inputs = jnp.linspace(0, 1, 2 * 3 * 8 * 6).reshape(2, 3, 8, 6, 1)
    idle = jax.tree.map(jnp.zeros_like, variables)
    forecast = make(from_last_frame=True).forecast(idle, inputs, 4)
    expected = jnp.repeat(jnp.clip(inputs[:, -1:], 0.02, 0.98), 4, axis=1)
    np.testing.assert_allclose(forecast.frames, expected, atol=1e-6)
    np.testing.assert_allclose(jax.nn.sigmoid(forecast.logits), forecast.frames)
    plain = make().forecast(idle, inputs, 4)
    np.testing.assert_array_equal(plain.frames, jnp.full_like(expected, 0.5))


# --- in the moving frame

MARGIN, SIZE = 8, 16


def moving(**fields):
    """An objective in the moving frame, with a margin, and its variables."""
    fields = {
        "num_input_frames": 3, "num_output_frames": 2, "motion": "optical_flow",
        **({} if "num_members" in fields else {"loss": "mse"}), **fields,
    }  # fmt: skip
    config = NowcastConfig(**fields)
    facts = dataclasses.replace(FACTS, margin=MARGIN)
    task = config.build(EncoderForecasterConfig(
        features=(2,), input_kernel_size=1, recurrent_kernel_size=1, patch_size=2
    ), None, facts)  # fmt: skip
    init = functools.partial(task.init, frame_shape=(SIZE, SIZE, 1))
    return task, jax.jit(init)(jax.random.key(0))


@pytest.fixture(scope="module")
def moving_task():
    return moving()


@pytest.fixture(scope="module")
def ensemble():
    return moving(num_members=5)


@pytest.fixture(scope="module")
def moving_batch():
    """Cells that move by 1.2 pixels to the right and 0.7 up, a part without data."""
    side = SIZE + 2 * MARGIN
    y, x = np.mgrid[:side, :side]
    centres = np.random.default_rng(0).uniform(-8, side + 8, (14, 2))
    frames = np.stack([
        sum(
            np.exp(-((y - cy + 0.7 * t) ** 2 + (x - cx - 1.2 * t) ** 2) / 18)
            for cy, cx in centres
        )
        for t in range(5)
    ])  # fmt: skip
    mask = np.ones((1, 5, side, side, 1), np.uint8)
    mask[:, :, :10, :10] = 0
    pixels = np.rint(255 * np.clip(0.6 * frames, 0, 1)).astype(np.uint8)
    return {
        "frames": jnp.asarray(pixels[None, ..., None] * mask),
        "mask": jnp.asarray(mask),
    }


@pytest.fixture(scope="module")
def of_two_frames():
    """Too few for an autoregression, so that an untrained network changes nothing."""
    return moving(num_input_frames=2)


def test_an_untrained_network_of_two_frames_is_advection_and_what_is_nearby(
    of_two_frames, moving_batch
):
    task, variables = of_two_frames
    contenders = measure(task, variables, moving_batch)
    assert set(contenders) == {"model", "persistence", "advection"}
    mse = {name: metrics["mse"].sum() for name, metrics in contenders.items()}
    assert mse["model"] < mse["advection"] < 0.1 * mse["persistence"]
    inputs, _ = task.split_batch(moving_batch)
    state, frame = task.read({}, inputs), task._moving_frame
    found = compiled(task, "forecast", num_frames=2)(variables, inputs).frames
    positions = trajectories(find_motion(state.frames, state.mask), 2)
    _, there = carry(*(jnp.repeat(x[:, -1:], 2, axis=1) for x in state), positions)
    there = np.asarray(there) > 0
    expected = np.asarray(frame.advected(state, 2))
    np.testing.assert_allclose(np.asarray(found)[there], expected[there], atol=1e-6)
    # From beyond the edge it rains as at the edge; where nothing is known, as beside.
    assert not expected[~there].any() and np.asarray(found)[~there].mean() > 0.05


def test_an_untrained_network_continues_what_stands_still(moving_task, moving_batch):
    task, variables = moving_task
    moved = moving_batch["frames"][:, :3].astype(jnp.float32) / 255
    known = moving_batch["mask"][:, :3].astype(jnp.float32)
    change = jax.jit(functools.partial(task._moving_frame.change, num_frames=3))
    found = change(variables, moved, known).fields
    np.testing.assert_allclose(found, continued(moved, 3), atol=1e-5)


def test_advection_is_that_of_pysteps(of_two_frames, moving_batch):
    semilagrangian = pytest.importorskip(
        "pysteps.extrapolation.semilagrangian", reason="requirements-radar.txt"
    )
    task, _ = of_two_frames
    inputs, _ = task.split_batch(moving_batch)
    found = task._moving_frame.advected(task.read({}, inputs), 4)
    known = jnp.nan_to_num(inputs)
    motion = find_motion(known, 1.0 - jnp.isnan(inputs))
    rain = np.where(np.isnan(inputs[0, -1, ..., 0]), np.nan,
                    SCALE.rain_mm_per_h(known[0, -1, ..., 0]))  # fmt: skip
    expected = semilagrangian.extrapolate(
        rain, np.moveaxis(np.asarray(motion[0], np.float64), -1, 0), 4,
        allow_nonfinite_values=True,
    )  # fmt: skip
    found, expected = SCALE.rain_mm_per_h(found[0, ..., 0]), np.nan_to_num(expected)
    # The weakest rain that a pixel can show: below 0 dBZ it is dry.
    shown = expected > 1.01 * SCALE.rain_mm_per_h(np.float32(1e-9))
    np.testing.assert_allclose(found[shown], expected[shown], rtol=1e-3, atol=1e-4)
    assert shown.any() and found[~shown].max() < 0.03


def test_the_loss_is_the_error_in_the_moving_frame(moving_task, moving_batch):
    task, variables = moving_task
    loss = loss_of(task, variables, moving_batch)
    # What stands still differs by interpolation alone.
    frames = moving_batch["frames"].astype(jnp.float32) / 255
    unmoved = jnp.square(frames[:, 3:] - frames[:, 2:3])[:, :, MARGIN:-MARGIN]
    assert 0 < loss[0] < 0.05 * unmoved.mean()
    # Neither what has no data nor the margin's own targets count.
    changed = np.array(moving_batch["frames"])
    changed[:, 3:, :3] = 200
    other = loss_of(task, variables, {**moving_batch, "frames": jnp.asarray(changed)})
    np.testing.assert_array_equal(loss, other)


@pytest.mark.parametrize("kind", ["moving_task", "ensemble"])
def test_all_weights_are_trained(kind, moving_batch, request):
    task, variables = request.getfixturevalue(kind)
    started = jax.tree.map(lambda leaf: leaf + 0.05, variables)

    def loss(variables):
        key = jax.random.key(0)
        return task.loss_fn(variables, moving_batch, key, None)[0].sum()

    gradient = jax.jit(jax.grad(loss))
    gradients = gradient(started)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all() and leaf.any(), path
    channels = MovingFrame.num_outputs(task.num_members)
    of_channels = gradients["params"]["output"]["bias"].reshape(-1, channels)
    assert (np.asarray(of_channels) != 0).any(0).all()
    # An untrained network's output is zero, and learns even so.
    output = gradient(variables)["params"]["output"]
    assert output["kernel"].any() and output["bias"].any()


def test_frames_are_read_one_by_one(moving_task, moving_batch):
    task, variables = moving_task
    variables = jax.tree.map(lambda leaf: leaf + 0.02, variables)
    inputs, _ = task.split_batch(moving_batch)
    read, forecast = compiled(task, "read"), compiled(task, "forecast", num_frames=2)
    expected = forecast(variables, inputs).frames
    state = None
    for frame in (*np.asarray(moving_batch["frames"][0, :1]), *np.asarray(inputs[0])):
        state = read(variables, jnp.asarray(frame[None, None], jnp.float32), state)
    found = compiled(task, "forecast_from", num_frames=2)(variables, state).frames
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_probability_matching_against_numpy():
    rng = np.random.default_rng(0)
    last, frames = rng.random((2, 6, 7, 1)), rng.random((2, 3, 6, 7, 1)) / 2
    last[:, :2] = 0
    frames[:, :, :2] = 0  # Dry in both.
    frames[:, :, 4] = 0  # Dry in the forecast, as in no more of the last frame.
    found = np.asarray(probability_matched(jnp.asarray(frames), jnp.asarray(last)))
    assert not found[:, :, :2].any()
    for clip, t in np.ndindex(2, 3):
        values = np.sort(last[clip], axis=None)
        # Some are so nearly equal in the forecast that they get one value.
        same = np.isclose(np.sort(found[clip, t], axis=None), values)
        assert (
            same.mean() > 0.9 and np.abs(found[clip, t].mean() - values.mean()) < 0.01
        )
        wet = frames[clip, t] > 0
        apart = np.diff(found[clip, t][wet][frames[clip, t][wet].argsort()])
        assert (apart >= -1e-6).mean() > 0.9  # Nearly equal ones may be exchanged.
        rows = found[clip, t, 4, :, 0], last[clip, 4, :, 0]
        ranks = [row.argsort().argsort() for row in rows]
        assert np.abs(ranks[0] - ranks[1]).max() <= 1  # As some are nearly equal.
        assert rows[0].max() <= found[clip, t][wet].max()


def test_matching_keeps_what_has_not_changed(of_two_frames, moving_batch):
    task, variables = of_two_frames
    matched, _ = moving(num_input_frames=2, probability_matching=0.7)
    inputs, _ = task.split_batch(moving_batch)
    plain, other = (
        compiled(one, "forecast", num_frames=2)(variables, inputs).frames
        for one in (task, matched)
    )
    np.testing.assert_allclose(plain, other, atol=1e-6)
    # A network that weakens rain gives back what was there, to the share asked for.
    weaker = jax.tree.map(jnp.zeros_like, variables)
    weaker["params"]["output"]["bias"] -= 0.3
    whole, _ = moving(num_input_frames=2, probability_matching=1.0)
    sums = [
        compiled(one, "forecast", num_frames=1)(weaker, inputs).frames.sum()
        for one in (task, matched, whole)
    ]
    assert sums[0] < sums[1] < sums[2]
    assert float(sums[2]) == pytest.approx(float(plain[:, :1].sum()), rel=1e-2)


def test_a_validation_measures_what_is_trained(moving_task, moving_batch):
    task, variables = moving_task
    matched, _ = moving(probability_matching=1.0)
    variables = jax.tree.map(lambda leaf: leaf + 0.05, variables)
    losses = [
        measure(one, variables, moving_batch, with_baselines=False)["model"]["loss"]
        for one in (task, matched)
    ]
    np.testing.assert_array_equal(*losses)
    results = [measure(one, variables, moving_batch) for one in (task, matched)]
    assert (results[0]["model"]["mse"] != results[1]["model"]["mse"]).all()


@pytest.mark.parametrize("kind", ["moving_task", "ensemble"])
def test_dry_stays_exactly_dry(kind, request):
    task, variables = request.getfixturevalue(kind)
    dry = jnp.zeros((1, 3, SIZE, SIZE, 1)).at[:, :, 4].set(jnp.nan)
    assert not compiled(task, "forecast", num_frames=3)(variables, dry).frames.any()


def test_pictures_show_the_clip_without_its_margin(moving_task, moving_batch):
    task, variables = moving_task
    shown = jax.device_get(compiled(task, "shown")(variables, moving_batch))
    clip = {name: np.asarray(of[0]) for name, of in moving_batch.items()}
    nowcast = task.example(clip, {name: of[0] for name, of in shown.items()})
    assert nowcast.observed.shape == nowcast.mask.shape == (5, SIZE, SIZE)
    assert {of.shape for of in nowcast.forecasts.values()} == {(2, SIZE, SIZE)}
    inner = np.s_[:, MARGIN:-MARGIN, MARGIN:-MARGIN, 0]
    np.testing.assert_array_equal(nowcast.mask, clip["mask"][inner])
    rain = SCALE.rain_mm_per_h(clip["frames"][inner] / np.float32(255))
    np.testing.assert_allclose(nowcast.observed, rain, rtol=1e-5)


def test_without_motion_the_margin_is_cut_off(moving_batch):
    task = dataclasses.replace(make(loss="mse"), facts=dataclasses.replace(
        FACTS, margin=MARGIN))  # fmt: skip
    variables = jax.jit(functools.partial(task.init, frame_shape=(SIZE, SIZE, 1)))(
        jax.random.key(0)
    )
    cut = np.s_[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
    small = {name: of[cut] for name, of in moving_batch.items()}
    plain = make(loss="mse")
    np.testing.assert_array_equal(
        loss_of(task, variables, moving_batch), loss_of(plain, variables, small)
    )
    found, expected = (
        measure(one, variables, batch)["model"]["mse"]
        for one, batch in ((task, moving_batch), (plain, small))
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "fields", [{"motion": "none", "loss": "mse"}, {"num_members": 2}]
)
def test_large_areas_are_forecast_by_tiles_as_at_once(fields, monkeypatch):
    config = NowcastConfig(**{
        "num_input_frames": 3, "num_output_frames": 2, "motion": "optical_flow"
    } | fields)  # fmt: skip
    network = EncoderForecasterConfig(
        features=(2,), input_kernel_size=3, recurrent_kernel_size=3, patch_size=2
    )
    task, rng = config.build(network, None, FACTS), np.random.default_rng(0)
    height, width = 12, 1100
    init = functools.partial(task.init, frame_shape=(height, width, 1))
    variables = jax.tree.map(
        lambda like: 0.5 * rng.normal(size=like.shape).astype(np.float32),
        jax.eval_shape(init, jax.random.key(0)),
    )
    rain = rng.random((1, 3, height, width, 1), np.float32)
    inputs = jnp.where(rng.random(rain.shape) < 0.1, np.nan, rain)

    def forecast():
        run = jax.jit(functools.partial(task.forecast, num_frames=2))
        lowered = run.lower(variables, inputs)
        return run(variables, inputs).frames, lowered.as_text().count("while")

    tiled, loops = forecast()
    monkeypatch.setattr(EncoderForecaster, "reach", lambda *_: None)
    whole, fewer = forecast()
    assert loops > fewer
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)
    assert np.std(whole) > 0.03


# --- ensembles


def test_members_follow_from_the_frames_alone(ensemble, moving_batch):
    task, variables = ensemble
    inputs, _ = task.split_batch(moving_batch)
    forecast = compiled(task, "forecast", num_frames=2)
    found = np.asarray(forecast(variables, inputs).frames)
    assert found.shape == (1, 2, SIZE + 2 * MARGIN, SIZE + 2 * MARGIN, 5)
    assert len({member.tobytes() for member in np.moveaxis(found, -1, 0)}) == 5
    assert (found >= 0).all() and (found <= 1).all()
    other = jnp.roll(inputs, 3, axis=2)
    both = forecast(variables, jnp.concatenate([other, inputs])).frames
    np.testing.assert_allclose(both[1:], found, atol=1e-5)
    # An untrained network begins at advection, and not far from it.
    advected = task._moving_frame.advected(task.read({}, inputs), 2)
    wet = np.asarray(advected)[..., 0] > 0.1
    spread = found.std(-1)[wet].mean()
    assert 0.005 < spread < 0.1
    assert np.abs(found.mean(-1) - advected[..., 0])[wet].mean() < spread


def test_more_members_are_further_members(ensemble, moving_batch):
    task, variables = ensemble
    inputs, _ = task.split_batch(moving_batch)
    single, few, many = (
        compiled(one, "forecast", num_frames=1)(variables, inputs).frames
        for one in (task.with_config(num_members=1), task, moving(num_members=7)[0])
    )
    np.testing.assert_allclose(many[..., :5], few, atol=1e-6)
    np.testing.assert_allclose(few[..., :1], single, atol=1e-6)


def test_the_loss_of_an_ensemble_is_the_almost_fair_crps(ensemble, moving_batch):
    task, variables = ensemble
    key = jax.random.key(3)
    loss, _ = compiled(task, "loss_fn")(variables, moving_batch, key, None)
    frames = moving_batch["frames"].astype(jnp.float32) / 255
    few = dataclasses.replace(task._moving_frame, num_members=4)
    members, target, there = map(
        np.asarray,
        few.training_pair(
            variables, frames, moving_batch["mask"].astype(float), key, MARGIN
        ),
    )
    assert members.shape == (1, 2, SIZE, SIZE, 4)

    def crps(members, target):
        error = np.abs(members - target).mean(-1)
        pairs = np.abs(members[..., :, None] - members[..., None, :]).sum((-1, -2))
        return error - (1 - 0.05 / 4) * pairs / (2 * 4 * 3)

    rates = SCALE.rain_mm_per_h(members), SCALE.rain_mm_per_h(target)
    error = crps(members, target) + 0.2 * crps(*rates)
    known = there[..., 0] > 0
    np.testing.assert_allclose(loss, error[known].mean(), rtol=1e-4)


def test_an_ensemble_is_measured_beside_single_forecasts(ensemble, moving_batch):
    task, variables = ensemble
    contenders = measure(task, variables, moving_batch)
    totals = {
        name: add_sums(None, batch_sums(of, jnp.ones(1)))
        for name, of in contenders.items()
    }
    found = {name: task.summarize(of, (8, 8, 1)) for name, of in totals.items()}
    for summary in found.values():
        assert {"crps", "mse", "csi_0.5_mm_per_h"} <= set(summary.per_lead_time)
    # Of one forecast, the CRPS is its absolute error.
    inputs, target = task.split_batch(moving_batch)
    known = np.asarray(task.target_mask(moving_batch)) > 0
    last = jnp.nan_to_num(inputs)[:, -1:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    rain = SCALE.rain_mm_per_h(last), SCALE.rain_mm_per_h(target)
    error = np.abs(np.asarray(rain[0] - rain[1]))[known].mean()
    assert found["persistence"].total["crps"] == pytest.approx(error, rel=1e-5)
    assert found["model"].total["crps"] < found["persistence"].total["crps"]


def test_a_matched_mean_has_the_members_values_where_the_mean_has_its_own():
    members = np.random.default_rng(0).random((1, 2, 8, 9, 3)).astype(np.float32)
    found = np.asarray(matched_mean(jnp.asarray(members), SCALE))
    mean = SCALE.rain_mm_per_h(members).mean(-1, keepdims=True)
    for t in range(2):
        values = np.sort(members[0, t], axis=None)[1::3]
        ranks = mean[0, t].ravel().argsort().argsort()
        expected = values[ranks].reshape(8, 9, 1)
        assert np.isclose(found[0, t], expected).mean() > 0.9  # Ties by the histogram.
        np.testing.assert_allclose(found[0, t], expected, atol=0.05)
    one = jnp.asarray(members[..., :1])
    np.testing.assert_array_equal(matched_mean(one, SCALE), one)


def test_power_spectra_are_of_the_places_with_data(ensemble, monkeypatch, tmp_path):
    task, rng = ensemble[0], np.random.default_rng(3)
    rates = {name: rng.random((5, 8, 8)) for name in ("model", "member 1")}
    mask = (rng.random((5, 8, 8)) < 0.7).astype(np.uint8)
    shown = Nowcast(rng.random((5, 8, 8)), mask, rates)
    seen, drawn = [], {}
    monkeypatch.setattr(nowcast, "ensemble_diagrams", lambda *_: None)
    monkeypatch.setattr(nowcast, "power_spectrum", lambda of: seen.append(of) or of)
    monkeypatch.setattr(
        nowcast, "draw_power_spectra", lambda path, of, size: drawn.update(of)
    )
    task._draw_ensemble([SimpleNamespace(example=shown)], {}, tmp_path)
    assert [*drawn] == ["observed", "model", "member 1"]
    for found, whole in zip(seen, (shown.observed, *rates.values()), strict=True):
        np.testing.assert_array_equal(found[0], whole[-1] * mask[-1])


def test_an_ensemble_is_made_in_the_moving_frame():
    with pytest.raises(ValueError, match=r"num_members is 3: it must be 1 with motion"):
        NowcastConfig(num_members=3)
