"""Moving MNIST with the encoder-forecaster ConvLSTM.

Paper: X. Shi, Z. Chen, H. Wang, D.-Y. Yeung, W. Wong, W. Woo, "Convolutional LSTM
Network: A Machine Learning Approach for Precipitation Nowcasting", 2015,
arXiv:1506.04214, section 4.1 and table 1: 10 frames are given, 10 are predicted.

    python main.py --config=configs/moving_mnist.py[:PRESET]

In the names of the presets, `5x5` is the state-to-state kernel and the other numbers
are the features of the layers. The models with a state-to-state kernel of 1x1 are named
9x9 after their input-to-state kernel.

| preset            | parameters  | nats per sequence, paper | here              |
|-------------------|-------------|--------------------------|-------------------|
| quick             | 528,208     |                          | 786.3, 3 frames   |
| fc-lstm-2048-2048 | 142,667,776 | 4832.49                  | not measured yet  |
| 5x5-256           | 13,524,496  | 3887.94                  | not measured yet  |
| 5x5-128-128       | 10,042,896  | 3733.56                  | not measured yet  |
| 5x5-128-64-64     | 7,585,296   | 3670.85                  | not measured yet  |
| 9x9-128-128       | 11,550,224  | 4782.84                  | not measured yet  |
| 9x9-128-64-64     | 8,830,480   | 4231.50                  | not measured yet  |

`quick` predicts 3 frames from 3: MSE 57.7 per frame with scikit-learn's digits, 70.1
with MNIST's (docs/systems.md), in 4 minutes on two cores. Hardware and time of the
others: not measured yet. Without a preset, `quick` is used on a CPU and `5x5-128-64-64`
on an accelerator.
"""

from typing import Any

from ml_collections import ConfigDict

from convlstm_jax.cli.experiment import make_config
from convlstm_jax.data.synthetic.moving_mnist import MovingMNISTConfig
from convlstm_jax.models.encoder_forecaster import EncoderForecasterConfig
from convlstm_jax.objectives import ForecastConfig
from convlstm_jax.training.loop import TrainConfig
from convlstm_jax.training.optimizer import RMSPropConfig

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "model.features": (48, 48),
        "model.input_kernel_size": 3,
        "model.recurrent_kernel_size": 3,
        # A few minutes of training suffice for three frames.
        "task.num_input_frames": 3,
        "task.num_output_frames": 3,
        # Found by trying (benchmarks/RESULTS.md): two layers, many small batches, Muon.
        "optimizer.name": "muon",
        "optimizer.learning_rate": 1e-2,
        "optimizer.schedule": "cosine",
        "optimizer.clip_norm": 100.0,  # Nats per frame: usual norms are 50 to 500.
        "train.batch_size": 4,
        "train.num_steps": 3000,
        "train.eval_every_steps": 600,
        "train.checkpoint_every_steps": 200,
        "train.early_stopping_patience": 0,
        "train.num_validation_sequences": 128,
        "eval.num_sequences": 500,
    },
    "fc-lstm-2048-2048": {
        "model.name": "fc_lstm",
        "model.features": (2048, 2048),
    },
    "5x5-256": {"model.features": (256,)},
    "5x5-128-128": {"model.features": (128, 128)},
    "5x5-128-64-64": {"model.features": (128, 64, 64)},
    "9x9-128-128": {
        "model.features": (128, 128),
        "model.input_kernel_size": 9,
        "model.recurrent_kernel_size": 1,
    },
    "9x9-128-64-64": {
        "model.features": (128, 64, 64),
        "model.input_kernel_size": 9,
        "model.recurrent_kernel_size": 1,
    },
}

# Used without a preset.
DEFAULT_PRESETS = {"cpu": "quick", "accelerator": "5x5-128-64-64"}


def get_config(preset: str = "5x5-128-64-64") -> ConfigDict:
    """Returns the locked config of a preset.

    Raises:
        UserError: there is no such preset.
    """
    return make_config(
        model=EncoderForecasterConfig(features=(128, 64, 64)),
        task=ForecastConfig(loss="cross_entropy"),
        data=MovingMNISTConfig(),
        # RMSProp with early stopping on the validation set, as in the paper.
        optimizer=RMSPropConfig(learning_rate=1e-3, rmsprop_decay=0.9),
        train=TrainConfig(batch_size=16, early_stopping_patience=20),
        presets=PRESETS,
        preset=preset,
    )
