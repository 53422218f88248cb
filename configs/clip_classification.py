"""Clips of surveillance video: does a theft happen in it?

A stack of ConvLSTM layers (X. Shi et al., 2015, arXiv:1506.04214) reads a clip of nine
frames; the features of its last frame are averaged over height and width, and a dense
layer gives the class logits. Softmax cross-entropy.

    python main.py --config=configs/clip_classification.py[:PRESET]
    python main.py --config=configs/clip_classification.py --config.data.path=FOLDER

| preset | frames       | layers     | parameters | accuracy here    |
|--------|--------------|------------|------------|------------------|
| quick  | 9 of 64x64   | 16, 32     | 92,562     | 0.998            |
| full   | 9 of 224x224 | 32, 64, 64 | 609,506    | not measured yet |

FOLDER holds videos, each with its annotations in the format "CVAT for video 1.1" beside
it (`shop.mp4` and `shop.xml`). Videos are cut into clips; a clip is a theft if a track
with one of `data.event_labels` is visible in it. Whole videos are assigned to training,
validation and test. Without a folder the program draws clips of a shop in memory, half
of them with a theft.

Hardware and time: `quick` was run on two shared cores of an Intel Xeon
(docs/systems.md); `full` has not been measured yet. Without a preset, `quick` is used
on a CPU and `full` on an accelerator.
"""

from typing import Any

from ml_collections import ConfigDict

from convlstm_jax.cli.experiment import make_config
from convlstm_jax.data.synthetic.theft import TheftConfig
from convlstm_jax.models.clip_classifier import ClipClassifierConfig
from convlstm_jax.objectives import ClassifyConfig
from convlstm_jax.training.loop import TrainConfig
from convlstm_jax.training.optimizer import AdamConfig

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "model.features": (16, 32),
        "data.height": 64,
        "data.width": 64,
        "data.crop": 0.1,
        "data.brightness": 0.1,
        "optimizer.learning_rate": 2e-3,
        "optimizer.schedule": "one_cycle",
        "train.num_steps": 1000,
        "train.eval_every_steps": 200,
        "train.early_stopping_patience": 0,
    },
    "full": {},
}

# Used without a preset.
DEFAULT_PRESETS = {"cpu": "quick", "accelerator": "full"}


def get_config(preset: str = "full") -> ConfigDict:
    """Returns the locked config of a preset.

    Raises:
        UserError: there is no such preset.
    """
    return make_config(
        model=ClipClassifierConfig(
            features=(32, 64, 64),
            input_kernel_size=3,
            recurrent_kernel_size=3,
            # An event in a corner of the picture is one point of many in the average:
            # relu lets it stand out, where tanh cuts it off at 1.
            activation="relu",
        ),
        task=ClassifyConfig(num_input_frames=9, class_weights="balanced"),
        data=TheftConfig(
            height=224,
            width=224,
            channels=3,
            flip=True,
            crop=0.15,
            brightness=0.2,
        ),
        optimizer=AdamConfig(learning_rate=1e-3, clip_norm=1.0),
        train=TrainConfig(
            batch_size=16,
            num_steps=5000,
            eval_every_steps=100,
            checkpoint_every_steps=100,
            early_stopping_patience=10,
            num_validation_sequences=1000,
        ),
        presets=PRESETS,
        preset=preset,
    )
