"""Bubbles: the next frames of a two-phase flow film.

The network of a widely used PyTorch tutorial, which bubble studies have adopted:
ConvLSTM after X. Shi et al., 2015, arXiv:1506.04214, with relu and a peephole weight
for each location. Three layers of 64 features, 3x3, each followed by batch
normalisation, and a 3x3 convolution of the last frame's features to the next frame. The
loss is the squared error summed over the frame. Forecasts of any length are made frame
by frame: each predicted frame is the next input.

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

Without a folder of films the program simulates a bubble column (rise speed by size,
wobble, merging, a surface at which bubbles vanish) at four gas flow rates, and reports
metrics for each. With films of your own, `--config.data.condition=folder` (or a regular
expression) names their conditions, and `--config.data.test_conditions` holds some out
for the test.

Differences from the tutorial: training scores every frame after the given ones, each
predicted from the true frames before it, instead of only the last one (no difference
with 20to1); peepholes are initialised with zeros instead of uninitialised memory.

Hardware and time: `quick` was run on two shared cores of an Intel Xeon
(docs/systems.md); the others have not been measured yet. Without a preset, `quick` is
used on a CPU and `20to20` on an accelerator.
"""

from typing import Any

from ml_collections import ConfigDict

from convlstm_jax.cli.experiment import make_config
from convlstm_jax.data.synthetic.bubbles import BubblesConfig
from convlstm_jax.evaluation.evaluate import EvalConfig
from convlstm_jax.models.next_frame import NextFrameConfig, NextFrameTrainingConfig
from convlstm_jax.objectives import ForecastConfig
from convlstm_jax.training.loop import TrainConfig
from convlstm_jax.training.optimizer import AdamConfig

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

# Used without a preset.
DEFAULT_PRESETS = {"cpu": "quick", "accelerator": "20to20"}


def get_config(preset: str = "20to20") -> ConfigDict:
    """Returns the locked config of a preset.

    Raises:
        UserError: there is no such preset.
    """
    return make_config(
        model=NextFrameConfig(
            features=(64, 64, 64),
            kernel_sizes=(3, 3, 3),
            num_normalized_layers=3,
            batch_norm_momentum=0.9,  # PyTorch's.
            head_frames=1,
            peephole="location",
            activation="relu",
        ),
        task=ForecastConfig(loss="mse_sum"),
        training=NextFrameTrainingConfig(score_inputs=False),
        data=BubblesConfig(
            height=128,
            width=128,
            num_validation_sequences=400,
            num_test_sequences=1000,
        ),
        optimizer=AdamConfig(learning_rate=1e-4, clip_norm=1000.0),
        train=TrainConfig(batch_size=16, num_steps=20_000),
        eval=EvalConfig(num_sequences=1000),
        presets=PRESETS,
        preset=preset,
    )
