"""Clips of surveillance video: does a theft happen in it?

A stack of ConvLSTM layers (X. Shi et al., 2015, arXiv:1506.04214) reads a clip of nine
frames; the features of its last frame are averaged over height and width, and a dense
layer tells the class. Softmax cross-entropy.

    python main.py --config=configs/clip_classification.py[:PRESET]
    python main.py --config=configs/clip_classification.py --config.data.path=FOLDER

| preset | frames       | layers     | parameters | accuracy here    |
|--------|--------------|------------|------------|------------------|
| quick  | 9 of 64x64   | 16, 32     | 92,562     | 0.970            |
| full   | 9 of 224x224 | 32, 64, 64 | 609,506    | not measured yet |

FOLDER holds videos, each with its annotations in the format "CVAT for video 1.1" beside
it (`shop.mp4` and `shop.xml`). Videos are cut into clips, a clip is a theft where a
track with one of `data.event_labels` is visible, and videos, never clips, are divided
into training, validation and test. Without a folder the program makes small films of a
shop and their annotations itself, and reads them the same way.

Hardware and time: `quick` was run on two shared cores of an Intel Xeon (README.md); of
the others not measured yet. Without a preset the machine decides: `quick`,
which suits a laptop, on a CPU, and `full` on an accelerator.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base

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


def get_config(preset: str = "") -> ConfigDict:
    """Returns the locked config of a preset; "" means the one that suits the machine.

    Raises:
      UserError: if there is no such preset.
    """
    config = base.get_config()
    config.model.name = "clip_classifier"
    config.model.features = (32, 64, 64)
    config.model.input_kernel_size = 3
    config.model.recurrent_kernel_size = 3
    # What happens in a corner of the picture is one point of many in the average: relu
    # lets it stand out, where tanh cuts it off at 1.
    config.model.activation = "relu"
    config.task.name = "classify"
    config.task.num_input_frames = 9
    config.task.class_weights = "balanced"
    config.data.name = "theft_videos"
    config.data.height = 224
    config.data.width = 224
    config.data.channels = 3
    config.data.frame_stride = 1
    config.data.clip_stride = 3
    config.data.flip = True
    config.data.crop = 0.15
    config.data.brightness = 0.2
    config.data.validation_fraction = 0.2
    config.data.test_fraction = 0.2
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 1.0
    config.train.batch_size = 16
    config.train.num_steps = 5000
    config.train.eval_every_steps = 100
    config.train.checkpoint_every_steps = 100
    config.train.early_stopping_patience = 10
    config.train.num_validation_sequences = 1000
    base.apply_preset(config, PRESETS, preset, accelerator="full", cpu="quick")
    return config
