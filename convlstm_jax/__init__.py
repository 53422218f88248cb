"""Convolutional recurrent networks for video prediction and nowcasting, in JAX.

    from convlstm_jax import ConvLSTM, ConvLSTMCell, RecurrentLayer, load

What is listed in `__all__` is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convlstm_jax.cells import CELLS as CELLS
    from convlstm_jax.cells.cell import RecurrentCell as RecurrentCell
    from convlstm_jax.cells.convgru import ConvGRUCell as ConvGRUCell
    from convlstm_jax.cells.convlstm import ConvLSTMCell as ConvLSTMCell
    from convlstm_jax.cells.mim import MIMCell as MIMCell
    from convlstm_jax.cells.minimal import MinGRUCell as MinGRUCell
    from convlstm_jax.cells.minimal import MinLSTMCell as MinLSTMCell
    from convlstm_jax.cells.predrnn import (
        SpatiotemporalLSTMCell as SpatiotemporalLSTMCell,
    )
    from convlstm_jax.cells.predrnnpp import CausalLSTMCell as CausalLSTMCell
    from convlstm_jax.cells.trajgru import TrajGRUCell as TrajGRUCell
    from convlstm_jax.layers.recurrent import ConvLSTM as ConvLSTM
    from convlstm_jax.layers.recurrent import RecurrentLayer as RecurrentLayer
    from convlstm_jax.models.autoencoder import FCLSTMAutoencoder as FCLSTMAutoencoder
    from convlstm_jax.models.clip_classifier import ClipClassifier as ClipClassifier
    from convlstm_jax.models.encoder_forecaster import (
        EncoderForecaster as EncoderForecaster,
    )
    from convlstm_jax.models.next_frame import NextFramePredictor as NextFramePredictor
    from convlstm_jax.models.recurrent_predictor import (
        RecurrentPredictor as RecurrentPredictor,
    )
    from convlstm_jax.predictor import Predictor as Predictor
    from convlstm_jax.predictor import load as load

__version__ = "0.1.0"

_MODULES = {
    "cells": ("CELLS",),
    "cells.cell": ("RecurrentCell",),
    "cells.convgru": ("ConvGRUCell",),
    "cells.convlstm": ("ConvLSTMCell",),
    "cells.mim": ("MIMCell",),
    "cells.minimal": ("MinGRUCell", "MinLSTMCell"),
    "cells.predrnn": ("SpatiotemporalLSTMCell",),
    "cells.predrnnpp": ("CausalLSTMCell",),
    "cells.trajgru": ("TrajGRUCell",),
    "layers.recurrent": ("ConvLSTM", "RecurrentLayer"),
    "models.autoencoder": ("FCLSTMAutoencoder",),
    "models.clip_classifier": ("ClipClassifier",),
    "models.encoder_forecaster": ("EncoderForecaster",),
    "models.next_frame": ("NextFramePredictor",),
    "models.recurrent_predictor": ("RecurrentPredictor",),
    "predictor": ("Predictor", "load"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        from convlstm_jax.cli import missing_package

        raise ModuleNotFoundError(missing_package(error), name=error.name) from None
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
