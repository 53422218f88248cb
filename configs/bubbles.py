"""Bubbles: the next frames of a two-phase flow film.

The network of the well-known PyTorch tutorial that bubble studies use: ConvLSTM after
X. Shi et al., 2015, arXiv:1506.04214, with relu and a peephole weight for each
location. Three layers of 64 features, 3x3, each followed by batch normalisation, and a
3x3 convolution of the last frame's features to the next frame. The loss is the squared
error summed over the frame. Frames are given, the next one is predicted, read again,
and so on, as many as asked.

    python main.py --config=configs/bubbles.py[:PRESET]
    python main.py --config=configs/bubbles.py:20to20 --config.data.path=FOLDER

| preset     | frames   | size    | parameters | with statistics | MSE, SSIM here   |
|------------|----------|---------|------------|-----------------|------------------|
| quick      | 5 to 5   | 48x48   |    249,745 |         249,809 | 12.2, 0.867      |
| 20to1      | 20 to 1  | 128x128 | 10,178,497 | 10,178,881      | not measured yet |
| 20to20     | 20 to 20 | 128x128 | 10,178,497 | 10,178,881      | not measured yet |
| 5to5       | 5 to 5   | 128x128 | 10,178,497 | 10,178,881      | not measured yet |
| 20to1-256  | 20 to 1  | 256x256 | 38,490,049 | 38,490,433      | not measured yet |
| 20to20-256 | 20 to 20 | 256x256 | 38,490,049 | 38,490,433      | not measured yet |
| 5to5-256   | 5 to 5   | 256x256 | 38,490,049 | 38,490,433      | not measured yet |

Without a folder of films the program draws a bubble column of its own (rise speed by
size, wobble, merging, a surface at which bubbles vanish) at four gas flow rates, and
reports figures for each apart. With films of your own, `--config.data.condition=folder`
(or a regular expression) tells their conditions, and `--config.data.test_conditions`
keeps some for the test alone.

What differs from that tutorial: training scores every frame that follows the given
ones, each predicted from the true frames before it, and not the last one alone
(the same with 20to1); peepholes begin at zero, where there they begin as whatever the
memory held.

Hardware and time: `quick` was run on two shared cores of an Intel Xeon (README.md); of
the others not measured yet. Without a preset the machine decides: `quick`,
which suits a laptop, on a CPU, and `20to20` on an accelerator.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base

_LARGE = {"data.height": 256, "data.width": 256, "train.batch_size": 4}


def _frames(num_inputs: int, num_outputs: int) -> dict[str, Any]:
    return {
        "task.num_input_frames": num_inputs,
        "task.num_output_frames": num_outputs,
    }


PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        **_frames(5, 5),
        "model.features": (16, 16),
        "model.kernel_sizes": (3, 3),
        "model.num_normalized_layers": 2,
        "task.score_inputs": True,
        "data.height": 48,
        "data.width": 48,
        "optimizer.name": "muon",
        "optimizer.learning_rate": 1e-2,
        "optimizer.schedule": "cosine",
        "train.num_steps": 600,
        "train.batch_size": 4,
        "train.eval_every_steps": 300,
        "train.num_validation_sequences": 64,
        "eval.num_sequences": 400,
    },
    "20to1": _frames(20, 1),
    "20to20": _frames(20, 20),
    "5to5": _frames(5, 5),
    "20to1-256": {**_frames(20, 1), **_LARGE},
    "20to20-256": {**_frames(20, 20), **_LARGE},
    "5to5-256": {**_frames(5, 5), **_LARGE},
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the locked config of a preset; "" means the one that suits the machine.

    Raises:
      UserError: if there is no such preset.
    """
    config = base.get_config()
    config.model.name = "next_frame"
    config.model.features = (64, 64, 64)
    config.model.kernel_sizes = (3, 3, 3)
    config.model.num_normalized_layers = 3
    config.model.batch_norm_momentum = 0.9  # PyTorch's.
    config.model.head_frames = 1
    config.model.peephole = "location"
    config.model.activation = "relu"
    config.task.loss = "mse_sum"
    config.task.score_inputs = False
    config.data.name = "bubbles"
    config.data.height = 128
    config.data.width = 128
    config.data.num_validation_sequences = 400
    config.data.num_test_sequences = 1000
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.clip_norm = 1000.0
    config.train.batch_size = 16
    config.train.num_steps = 20_000
    config.eval.num_sequences = 1000
    base.apply_preset(config, PRESETS, preset, accelerator="20to20", cpu="quick")
    return config
