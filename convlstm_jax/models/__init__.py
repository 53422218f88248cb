"""The networks, by the name that a config gives them."""

from convlstm_jax.models.autoencoder import FCLSTMAutoencoderConfig
from convlstm_jax.models.clip_classifier import ClipClassifierConfig
from convlstm_jax.models.encoder_forecaster import EncoderForecasterConfig, FCLSTMConfig
from convlstm_jax.models.network import ModelConfig
from convlstm_jax.models.next_frame import NextFrameConfig
from convlstm_jax.models.recurrent_predictor import RecurrentPredictorConfig

__all__ = ["MODELS", "ModelConfig"]

MODELS: dict[str, type[ModelConfig]] = {
    "encoder_forecaster": EncoderForecasterConfig,
    "fc_lstm": FCLSTMConfig,
    "fc_lstm_autoencoder": FCLSTMAutoencoderConfig,
    "recurrent_predictor": RecurrentPredictorConfig,
    "next_frame": NextFrameConfig,
    "clip_classifier": ClipClassifierConfig,
}
