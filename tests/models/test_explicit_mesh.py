"""Networks on the mesh that `jax.make_mesh` makes by default."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convlstm_jax.models.autoencoder import FCLSTMAutoencoder
from convlstm_jax.models.clip_classifier import ClipClassifier
from convlstm_jax.models.encoder_forecaster import EncoderForecaster
from convlstm_jax.models.network import TrainingStep
from convlstm_jax.models.next_frame import NextFramePredictor, NextFrameTrainingConfig
from convlstm_jax.models.recurrent_predictor import RecurrentPredictor, SamplingConfig
from tests.explicit_mesh import assert_equal_to_one_device

FRAME_SHAPE = (4, 6, 1)
KEY = jax.random.key(0)
STEP = {"key": KEY, "number": 3}
SIZES = {"input_kernel_size": 3, "recurrent_kernel_size": 3, "patch_size": 2}


def forecasts(model, training):
    def run(variables, clips):
        step = TrainingStep(**STEP, training=training)
        learnt = model.predict_for_training(variables, clips, 2, step)
        return learnt.forecast.frames, model.forecast(variables, clips, 2).frames

    return jax.eval_shape(lambda: model.init_forecaster(KEY, FRAME_SHAPE)), run


def encoder_forecaster():
    return forecasts(EncoderForecaster(features=(2,), **SIZES), None)


def recurrent_predictor():
    training = SamplingConfig(
        sampling="reverse_scheduled",
        sampling_end_step=9,
        reverse_sampling_start_step=2,
    )
    model = RecurrentPredictor(features=(2,), layer_norm=True, **SIZES)
    return forecasts(model, training)


def next_frame():
    model = NextFramePredictor((2,), (3,), num_normalized_layers=1)
    return forecasts(model, NextFrameTrainingConfig())


def clip_classifier():
    model = ClipClassifier(features=(2, 3), **SIZES)
    clips = jnp.zeros((1, 1, *FRAME_SHAPE))
    return jax.eval_shape(model.init, KEY, clips), model.apply


def autoencoder():
    model = FCLSTMAutoencoder(features=(2,), decoders=("forecast",), conditional=True)
    clips = jnp.zeros((1, 3, *FRAME_SHAPE))
    targets = {"forecast": clips}

    def run(variables, clips):
        return model.apply(variables, clips, {"forecast": 2}, method="generate")

    return jax.eval_shape(model.init, KEY, clips, targets), run


@pytest.mark.parametrize(
    "network",
    [encoder_forecaster, recurrent_predictor, next_frame, clip_classifier, autoencoder],
)
def test_a_network_gives_what_it_gives_on_one_device(network):
    generator = np.random.default_rng(1)
    shapes, run = network()
    variables = jax.tree.map(
        lambda leaf: np.float32(generator.uniform(0.1, 0.6, leaf.shape)), shapes
    )
    clips = np.float32(generator.random((8, 3, *FRAME_SHAPE)))
    assert_equal_to_one_device(run, variables, clips, rtol=1e-4, atol=1e-5)
