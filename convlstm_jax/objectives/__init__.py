"""What networks are trained for: the objectives by `config.task.name`."""

from convlstm_jax.objectives.autoencoder import (
    CompositeConfig,
    PredictConfig,
    ReconstructConfig,
)
from convlstm_jax.objectives.base import DataFacts, Objective, ObjectiveConfig
from convlstm_jax.objectives.classify import ClassifyConfig
from convlstm_jax.objectives.forecast import ForecastConfig
from convlstm_jax.objectives.nowcast import NowcastConfig

OBJECTIVES: dict[str, type[ObjectiveConfig]] = {
    "forecast": ForecastConfig,
    "nowcast": NowcastConfig,
    "reconstruct": ReconstructConfig,
    "predict": PredictConfig,
    "composite": CompositeConfig,
    "classify": ClassifyConfig,
}

__all__ = [
    "OBJECTIVES", "ClassifyConfig", "CompositeConfig", "DataFacts", "ForecastConfig",
    "NowcastConfig", "Objective", "ObjectiveConfig", "PredictConfig",
    "ReconstructConfig",
]  # fmt: skip
