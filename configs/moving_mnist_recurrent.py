"""Moving MNIST with a one-step predictor that reads its own predictions.

Paper: C. Tan, S. Li, Z. Gao, W. Guan, Z. Wang, Z. Liu, L. Wu, S. Z. Li, "OpenSTL: A
Comprehensive Benchmark of Spatio-Temporal Predictive Learning", 2023,
arXiv:2306.11249: ConvLSTM-S and -L, PredRNN (Wang et al. 2017), PredRNN++ (Wang et al.
2018, arXiv:1804.06300), PredRNN-V2 (Wang et al. 2021, arXiv:2103.09504) and MIM (Wang
et al. 2019, arXiv:1811.07490), 10 frames given, 10 predicted, trained with scheduled
sampling, PredRNN-V2 with reverse scheduled sampling and its decoupling loss.

    python main.py --config=configs/moving_mnist_recurrent.py[:PRESET]

| preset    | layers  | parameters | MSE, MAE, SSIM in OpenSTL | here             |
|-----------|---------|------------|---------------------------|------------------|
| quick     | 2 x 32  |    129,536 |               (5 frames)  | MSE 81.9         |
| small     | 4 x 128 | 11,675,648 | 29.80, 90.64, 0.9288      | not measured yet |
| large     | 4 x 192 | 26,115,072 | 27.78, 86.14, 0.9343      | not measured yet |
| predrnn   | 4 x 128 | 23,838,720 | 23.97, 72.82, 0.9462      | not measured yet |
| predrnnpp | 4 x 128 | 35,307,520 | 22.06, 69.58, 0.9509      | not measured yet |
| predrnnv2 | 4 x 128 | 23,855,104 | 24.13, 73.73, 0.9453      | not measured yet |
| mim       | 4 x 128 | 37,945,344 | 22.55, 69.97, 0.9498      | not measured yet |

OpenSTL counts 15.0 M parameters for the small network, 38.6 M for PredRNN++ and 38.0 M
for MIM, as their cells hold convolutions that are never used; its SSIM is
`ssim_openstl` here. For that and PSNR alone predictions are clipped to [0, 1], as in
OpenSTL.

`--config.task.sampling=reverse_scheduled` selects reverse scheduled sampling
(PredRNN-V2, arXiv:2103.09504) with the values of that paper, and the preset
`quick-reverse` a small version of it.

Hardware and time: `quick` was run on two shared cores of an Intel Xeon
(docs/systems.md); the others have not been measured yet. 200 epochs of 10,000 clips are
125,000 steps, with 56.8 G multiply-adds per clip in a forward pass (small). Without a
preset, `quick` is used on a CPU and `small` on an accelerator.
"""

from typing import Any

from ml_collections import ConfigDict

from convlstm_jax.cli.experiment import make_config
from convlstm_jax.data.synthetic.moving_mnist import MovingMNISTConfig
from convlstm_jax.models.recurrent_predictor import (
    RecurrentPredictorConfig,
    SamplingConfig,
)
from convlstm_jax.objectives import ForecastConfig
from convlstm_jax.training.loop import TrainConfig
from convlstm_jax.training.optimizer import AdamConfig

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "model.features": (32, 32),
        "model.input_kernel_size": 3,
        "model.recurrent_kernel_size": 3,
        # A few minutes of training suffice for five frames.
        "task.num_input_frames": 5,
        "task.num_output_frames": 5,
        "task.sampling_end_step": 1000,
        "optimizer.name": "muon",
        "optimizer.learning_rate": 1e-2,
        "optimizer.schedule": "cosine",
        "train.num_steps": 2000,
        "train.batch_size": 4,
        "train.eval_every_steps": 500,
        "train.num_validation_sequences": 128,
        "eval.num_sequences": 1000,
    },
    "small": {"model.features": (128, 128, 128, 128)},
    "large": {"model.features": (192, 192, 192, 192)},
    "predrnn": {"model.cell": "predrnn"},
    "predrnnpp": {"model.cell": "predrnnpp"},
    "predrnnv2": {
        "model.cell": "predrnn",
        "model.decoupling_weight": 0.1,
        "task.sampling": "reverse_scheduled",
    },
    "mim": {"model.cell": "mim"},
}

PRESETS["quick-reverse"] = {
    **PRESETS["quick"],
    "task.sampling": "reverse_scheduled",
    "task.reverse_sampling_start_step": 500,
    "task.reverse_sampling_decay_steps": 100,
}

# Used without a preset.
DEFAULT_PRESETS = {"cpu": "quick", "accelerator": "small"}


def get_config(preset: str = "small") -> ConfigDict:
    """Returns the locked config of a preset.

    Raises:
        UserError: there is no such preset.
    """
    return make_config(
        model=RecurrentPredictorConfig(features=(128, 128, 128, 128)),
        task=ForecastConfig(loss="mse"),
        training=SamplingConfig(sampling="scheduled"),
        data=MovingMNISTConfig(),
        # Adam with PyTorch's one-cycle schedule over 200 epochs, as in OpenSTL.
        optimizer=AdamConfig(
            learning_rate=5e-4, schedule="one_cycle", cycle_momentum=True
        ),
        train=TrainConfig(num_steps=125_000, batch_size=16),
        presets=PRESETS,
        preset=preset,
    )
