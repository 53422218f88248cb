import functools

import jax
import numpy as np
import pytest
from jax import export

from convlstm_jax.cli.export import PLATFORMS, export_program
from convlstm_jax.models.encoder_forecaster import (
    EncoderForecaster,
    EncoderForecasterConfig,
)
from convlstm_jax.models.next_frame import NextFramePredictor
from convlstm_jax.models.recurrent_predictor import RecurrentPredictor
from convlstm_jax.objectives.base import DataFacts
from convlstm_jax.objectives.forecast import ForecastObjective
from convlstm_jax.objectives.nowcast import NowcastConfig

T_IN, T_OUT, FRAME = 3, 2, (32, 36, 1)


def clips(batch, frame_shape=FRAME, num_frames=T_IN):
    rng = np.random.default_rng(batch)
    return rng.random((batch, num_frames, *frame_shape), np.float32)


def forecast_of(task):
    """Its forecast with random weights."""
    variables = jax.jit(lambda: task.init(jax.random.key(3), FRAME))()
    return lambda frames: task.forecast(variables, frames, T_OUT).frames


# Features and frames for which a CPU takes Winograd's algorithm, by one clip.
ENCODER_FORECASTER = EncoderForecaster(
    features=(16,), input_kernel_size=3, recurrent_kernel_size=3, patch_size=2
)


@pytest.mark.parametrize(
    "model",
    [
        ENCODER_FORECASTER,
        RecurrentPredictor(
            features=(16,),
            input_kernel_size=5,
            recurrent_kernel_size=5,
            patch_size=2,
            layer_norm=True,
        ),
        NextFramePredictor((2, 3), (3, 1), peephole="location"),
    ],
    ids=["forecast", "recurrent", "next_frame"],
)
def test_the_program_is_the_function_for_any_batch(model):
    predict = forecast_of(ForecastObjective(model, T_IN, T_OUT))
    program = export.deserialize(bytearray(export_program(predict, T_IN, FRAME)))
    for shape in ((1, T_IN + 1, *FRAME), (1, T_IN, 36, 32, 1)):
        with pytest.raises(ValueError):
            program.call(np.zeros(shape, np.float32))
    assert program.platforms == PLATFORMS == ("cpu", "cuda", "rocm", "tpu")
    for batch in (1, 3):
        found = program.call(clips(batch))
        assert found.shape == (batch, T_OUT, *FRAME)
        expected = jax.jit(predict)(clips(batch))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert np.ptp(np.asarray(found)) > 1e-3


def test_an_ensemble_in_the_moving_frame_of_any_size():
    config = NowcastConfig(
        num_input_frames=T_IN, num_output_frames=T_OUT, motion="optical_flow",
        probability_matching=0.5, num_members=3,
    )  # fmt: skip
    model = EncoderForecasterConfig(features=(2,), patch_size=2)
    task = config.build(model, None, DataFacts())
    variables = jax.jit(task.init, static_argnums=1)(jax.random.key(0), (8, 8, 1))
    variables = jax.tree.map(lambda leaf: leaf + 0.01, variables)
    predict = functools.partial(task.exported, variables, T_OUT)
    data = export_program(predict, T_IN, (8, 8, 1), sizes_in_steps_of=2)
    program = export.deserialize(bytearray(data))
    for size in ((12, 16, 1), (22, 6, 1)):
        video = np.array(clips(1, size))
        video[:, :, :2] = np.nan  # No data.
        found = program.call(video)
        assert found.shape == (1, T_OUT, *size[:2], 3)
        assert np.asarray(found).any((0, 1, 2, 3)).all()
        np.testing.assert_allclose(found, jax.jit(predict)(video), atol=1e-5)


def test_frames_of_any_size():
    task = ForecastObjective(ENCODER_FORECASTER, T_IN, T_OUT)
    predict = forecast_of(task)
    data = export_program(predict, T_IN, FRAME, sizes_in_steps_of=2)
    program = export.deserialize(bytearray(data))
    for size in ((32, 36, 1), (22, 6, 1)):
        found = program.call(clips(1, size))
        expected = jax.jit(predict)(clips(1, size))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    for size in ((31, 36, 1), (32, 36, 2)):
        with pytest.raises(ValueError):
            program.call(clips(1, size))
