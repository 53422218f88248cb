"""Moving MNIST, frame by frame: Keras's next-frame prediction with Conv-LSTM.

Example: A. Joshi, "Next-Frame Video Prediction with Convolutional LSTMs", 2021,
https://keras.io/examples/vision/conv_lstm/, with the layers of
X. Shi et al., 2015, arXiv:1506.04214. In training the model reads frames 1 to 19
of a clip of 20 and predicts frames 2 to 20. For a forecast it reads 10 frames, and then
its own predictions.

    python main.py --config=configs/moving_mnist_next_frame.py[:PRESET]

The network of the example: ConvLSTM 64 5x5, batch normalisation, ConvLSTM 64 3x3, batch
normalisation, ConvLSTM 64 1x1 (relu, no peepholes, no normalisation after the third),
and a convolution over 3 frames and 3x3 pixels to one channel. Binary cross-entropy,
Adam, batches of 5 from 900 clips for 20 epochs, 100 clips for validation; the learning
rate falls to a tenth after 5 epochs without improvement, and training stops after 10.

| preset | parameters | with batch statistics | cross-entropy, MSE per frame, here |
|--------|------------|-----------------------|------------------------------------|
| quick  | 27,637     | 27,685                | 630, 147.3, 5 frames               |
| keras  | 746,433    | 746,689               | not measured yet                   |

`quick` predicts 5 frames from 5 and is trained with Muon.

The example publishes no score. Differences from it: the last convolution is causal (it
reads its own frame and the two before), where that of the example sees the frame to be
predicted (`--config.model.causal_head=false` restores this); the loss is summed over
pixels, not averaged, which makes no difference to Adam; the learning rate is reduced by
the training loss, and validation measures the forecast of 10 frames; clips are
generated as those of the file `mnist_test_seq.npy`, from which the example takes its
own.

Hardware and time: `quick` was run on two shared cores of an Intel Xeon
(docs/systems.md); `keras` has not been measured yet. Without a preset, `quick` is used
on a CPU and `keras` on an accelerator.
"""

from typing import Any

from ml_collections import ConfigDict

from convlstm_jax.cli.experiment import make_config
from convlstm_jax.data.synthetic.moving_mnist import MovingMNISTConfig
from convlstm_jax.models.next_frame import NextFrameConfig
from convlstm_jax.objectives import ForecastConfig
from convlstm_jax.training.loop import TrainConfig
from convlstm_jax.training.optimizer import AdamConfig

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "model.features": (12, 12, 12),
        "model.batch_norm_momentum": 0.9,
        # A few minutes of training suffice for five frames.
        "task.num_input_frames": 5,
        "task.num_output_frames": 5,
        "optimizer.name": "muon",
        "optimizer.learning_rate": 1e-2,
        "optimizer.schedule": "cosine",
        "optimizer.clip_norm": 1000.0,  # Nats per frame: usual norms are 100 to 1000.
        "train.batch_size": 2,
        "train.num_steps": 600,
        "train.eval_every_steps": 300,
        "train.num_validation_sequences": 64,
        "eval.num_sequences": 500,
    },
    "keras": {
        "data.num_train_sequences": 900,
        "train.early_stopping_patience": 10,
    },
}

# Used without a preset.
DEFAULT_PRESETS = {"cpu": "quick", "accelerator": "keras"}


def get_config(preset: str = "keras") -> ConfigDict:
    """Returns the locked config of a preset.

    Raises:
        UserError: there is no such preset.
    """
    return make_config(
        model=NextFrameConfig(
            features=(64, 64, 64),
            kernel_sizes=(5, 3, 1),
            num_normalized_layers=2,
            activation="relu",
            peephole="none",
        ),
        task=ForecastConfig(),
        data=MovingMNISTConfig(num_validation_sequences=100),
        optimizer=AdamConfig(
            learning_rate=1e-3,
            schedule="reduce_on_plateau",
            plateau_factor=0.1,
            plateau_patience=5,
        ),
        train=TrainConfig(
            batch_size=5,
            num_steps=3600,
            eval_every_steps=180,  # An epoch.
            num_validation_sequences=100,
        ),
        presets=PRESETS,
        preset=preset,
    )
