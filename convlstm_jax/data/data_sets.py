"""The data sets by name."""

from convlstm_jax.data.base import DataConfig
from convlstm_jax.data.radar.config import RadarConfig
from convlstm_jax.data.synthetic.bubbles import BubblesConfig
from convlstm_jax.data.synthetic.moving_mnist import MovingMNISTConfig
from convlstm_jax.data.synthetic.moving_squares import MovingSquaresConfig
from convlstm_jax.data.synthetic.rain_cells import RainCellsConfig
from convlstm_jax.data.synthetic.theft import TheftConfig
from convlstm_jax.data.video.annotated import AnnotatedVideoConfig
from convlstm_jax.data.video.config import VideoConfig

DATA_SETS: dict[str, type[DataConfig]] = {
    "moving_mnist": MovingMNISTConfig,
    "moving_squares": MovingSquaresConfig,
    "bubbles": BubblesConfig,
    "theft_videos": TheftConfig,
    "rain_cells": RainCellsConfig,
    "video": VideoConfig,
    "annotated_video": AnnotatedVideoConfig,
    "radar": RadarConfig,
}
"""The config class of each data set, by its `name`."""
