"""The systems, by the name a config calls them."""

from convlstm_jax.models.encoder_forecaster import (
    EncoderForecaster,
    FCLSTMEncoderForecaster,
)

MODELS = {
    "encoder_forecaster": EncoderForecaster,
    "fc_lstm": FCLSTMEncoderForecaster,
}
