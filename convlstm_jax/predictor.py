"""A trained model in Python: whole clips, or streams frame by frame."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convlstm_jax.cli import pretrained
from convlstm_jax.cli.build import build_objective
from convlstm_jax.cli.experiment import Experiment
from convlstm_jax.errors import UserError
from convlstm_jax.objectives.base import Variables
from convlstm_jax.paths import read_json
from convlstm_jax.types import Array

Frames = Array | np.ndarray
State = Any
"""What a network remembers of the frames it has read: a tree of arrays `[B, …]`."""
Prediction = Any
"""Frames, or for a classifier {class: probabilities `[B]`}."""


class Predictor:
    """A trained network.

    Frames are uint8 or floats in [0, 1], of the height, width and channels of the
    training data; those of a radar model are what `data.sources` makes of composites.
    All methods are pure functions, so that they may stand in a `jax.jit` or `lax.scan`.

    Attributes:
        experiment: The validated config; `experiment.config` is its ConfigDict.
        variables: {"params": …} and other collections, such as "batch_stats".
        network: The Flax module, to be applied to `variables`.
        training_step: The training steps of the weights.
        evaluation: The content of the run's `evaluation.json`; empty without one.
    """

    def __init__(
        self,
        experiment: Experiment,
        variables: Variables,
        training_step: int,
        evaluation: dict[str, Any] | None = None,
    ):
        self.experiment = experiment
        self.variables = jax.device_put(variables)
        self.training_step = training_step
        self.evaluation = evaluation or {}
        objective = build_objective(experiment)
        self._objective = objective
        self.network = objective.model
        self._read: Callable[..., Any] = jax.jit(objective.read)
        self._predict_from: Callable[..., Any] = jax.jit(
            objective.predict_from, static_argnums=2
        )

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the training data."""
        return self.experiment.data.frame_shape

    def predict(self, frames: Frames, num_frames: int | None = None) -> Prediction:
        """Predicts the frames that follow a clip.

        Args:
            frames: `[T, H, W, C]`, or `[T, H, W]` of one channel, or a batch
                `[B, T, H, W, C]`. Any T; in training it was `num_input_frames`.
            num_frames: To predict; as many as in training if not given.

        Returns:
            Frames of the given axes; an ensemble's members are a last axis more, or
            in the place of the channels. A network that reconstructs gives the last
            ones back in reverse order; a classifier {class: probability}, `[B]` of a
            batch.

        Raises:
            ValueError: The frames do not fit the network.
        """
        self._objective.check_num_frames(num_frames)
        rank = np.ndim(frames)
        if rank == 3:
            frames = frames[..., None]
        state = self.read(frames if rank == 5 else frames[None])
        predicted = self.forecast(state, num_frames)
        if rank == 5:
            return predicted
        one = jax.tree.map(lambda x: x[0], predicted)
        if rank == 3 and not isinstance(one, dict) and one.shape[-1] == 1:
            return one[..., 0]
        return one

    def init(self, batch_size: int = 1) -> State:
        """The state before the first frame of a stream, or of several in step."""
        frame = jax.ShapeDtypeStruct((batch_size, 1, *self.frame_shape), jnp.float32)
        shapes = jax.eval_shape(self._read, self.variables, frame)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def step(self, state: State, frame: Frames) -> tuple[State, Prediction]:
        """Reads the next frame `[B, H, W, C]` of a stream and predicts the one after.

        Equal to `predict` of all frames so far, at the cost of one.

        Returns:
            The new state, and the predicted frame `[B, H, W, C]`; of a classifier, the
            probabilities of the frames read so far.
        """
        state = self.read(frame[:, None], state)
        predicted = self.forecast(state, 1)
        return state, predicted if isinstance(predicted, dict) else predicted[:, 0]

    def read(self, frames: Frames, state: State = None) -> State:
        """The state after further frames `[B, T, H, W, C]`; `None`: a clip begins."""
        self._check(frames)
        return self._read(self.variables, jnp.asarray(frames), state)

    def forecast(self, state: State, num_frames: int | None = None) -> Prediction:
        """The frames `[B, num_frames, H, W, C]` that follow those read."""
        return self._predict_from(self.variables, state, num_frames)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config, weights (safetensors) and a model card, for `load`.

        Raises:
            UserError: The folder cannot be written.
        """
        pretrained.save(Path(folder), **self._content)

    def push_to_hub(self, name: str) -> None:
        """As `save_pretrained`, to `OWNER/NAME` on the Hugging Face Hub.

        Raises:
            UserError: huggingface_hub is not installed.
        """
        pretrained.push(name, **self._content)

    @property
    def _content(self) -> dict[str, Any]:
        return {
            "experiment": self.experiment,
            "variables": self.variables,
            "training_step": self.training_step,
            "evaluation": self.evaluation,
        }

    def _check(self, frames: Frames) -> None:
        height, width, channels = self.frame_shape
        shape = np.shape(frames)
        if len(shape) != 5 or shape[1] < 1:
            raise ValueError(
                f"frames have the shape {shape}: it must be [T, H, W, C] or "
                "[B, T, H, W, C], with T of at least 1"
            )
        model = self.experiment.model
        if model.takes_any_size and shape[4] == channels:
            patch = getattr(model, "patch_size", 1)
            if shape[2] % patch or shape[3] % patch:
                raise ValueError(
                    f"frames have {shape[2]}×{shape[3]} pixels: height and width must "
                    f"be multiples of {patch}"
                )
        elif shape[2:] != self.frame_shape:
            raise ValueError(
                f"frames have {shape[2]}×{shape[3]} pixels of {shape[4]} channels: "
                f"this network takes {height}×{width} of {channels}"
            )


def load(folder: str | Path) -> Predictor:
    """Loads a run's best weights, or what `Predictor.save_pretrained` wrote.

    Args:
        folder: A workdir of `--mode=train` or `--mode=import`; or a folder with
            `model.safetensors`; or `hf://OWNER/NAME`, such a folder on the Hugging Face
            Hub, which needs huggingface_hub.

    Raises:
        UserError: The folder holds neither, or they cannot be read.
    """
    folder, experiment, step, variables = pretrained.load(str(folder), named="'{}'")
    return Predictor(experiment, variables, step, _evaluation(folder))


def _evaluation(folder: Path) -> dict[str, Any]:
    file = folder / "evaluation.json"
    if not file.is_file():
        return {}
    try:
        content = read_json(file)
    except ValueError as error:
        raise UserError(f"'{file}' cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}
