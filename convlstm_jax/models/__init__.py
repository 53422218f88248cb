"""The systems, by the name a config calls them."""

from convlstm_jax.models.autoencoder import FCLSTMAutoencoder
from convlstm_jax.models.clip_classifier import ClipClassifier
from convlstm_jax.models.encoder_forecaster import (
    EncoderForecaster,
    FCLSTMEncoderForecaster,
)
from convlstm_jax.models.next_frame import NextFramePredictor
from convlstm_jax.models.recurrent_predictor import RecurrentPredictor

MODELS = {
    "encoder_forecaster": EncoderForecaster,
    "fc_lstm": FCLSTMEncoderForecaster,
    "fc_lstm_autoencoder": FCLSTMAutoencoder,
    "recurrent_predictor": RecurrentPredictor,
    "next_frame": NextFramePredictor,
    "clip_classifier": ClipClassifier,
}
