"""Moving squares: Keras's first ConvLSTM example.

Example: `examples/conv_lstm.py` of Keras 2
(https://github.com/keras-team/keras/blob/2.1.0/examples/conv_lstm.py), after X. Shi et
al., 2015, arXiv:1506.04214. Films of 3 to 7 white squares that drift through a window
of 40x40 pixels; inputs are noisy, targets are not. The model is trained to predict
frames 2 to 16 from frames 1 to 15. For a forecast it reads 7 frames and predicts 16
from its own predictions.

    python main.py --config=configs/moving_squares.py[:PRESET]

The network of the example: four ConvLSTM layers of 40 features, 3x3 (tanh, no
peepholes), each followed by batch normalisation, and a convolution over 3 frames and
3x3 pixels to one channel. Binary cross-entropy, Adadelta with the learning rate 1 that
Keras had then, batches of 10 from 950 films for 300 epochs, 50 films for validation.

| preset | parameters | with batch statistics | cross-entropy, MSE per frame, here |
|--------|------------|-----------------------|------------------------------------|
| quick  | 28,849     | 28,913                | 129, 15.6                          |
| keras  | 406,681    | 407,001               | not measured yet                   |

The example publishes no score. Differences from it: the last convolution is causal (it
reads its own frame and the two before), where that of the example sees the frame to be
predicted (`--config.model.causal_head=false` restores this); gates are sigmoids, as in
Keras 3, where Keras 2 has hard sigmoids; the loss is summed over pixels, not averaged,
which makes hardly any difference to Adadelta.

`quick` has two layers of 16 features, more films, fewer steps, and Muon.

Hardware and time: `quick` was run on two shared cores of an Intel Xeon
(docs/systems.md); `keras` has not been measured yet. Without a preset, `quick` is used
on a CPU and `keras` on an accelerator.
"""

from typing import Any

from ml_collections import ConfigDict

from convlstm_jax.cli.experiment import make_config
from convlstm_jax.data.synthetic.moving_squares import MovingSquaresConfig
from convlstm_jax.evaluation.evaluate import EvalConfig
from convlstm_jax.models.next_frame import NextFrameConfig, NextFrameTrainingConfig
from convlstm_jax.objectives import ForecastConfig
from convlstm_jax.training.loop import TrainConfig
from convlstm_jax.training.optimizer import AdadeltaConfig

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "model.features": (16, 16),
        "model.kernel_sizes": (3, 3),
        "model.num_normalized_layers": 2,
        "model.batch_norm_momentum": 0.9,
        # All 23 frames of a clip: trained on 16, forecasts do not last for 22.
        "task.num_training_frames": 0,
        "data.num_train_sequences": 10_000_000,
        "optimizer.name": "muon",
        "optimizer.learning_rate": 1e-2,
        "optimizer.schedule": "cosine",
        "optimizer.clip_norm": 1000.0,  # Nats per frame: usual norms are 15 to 150.
        "train.batch_size": 2,
        "train.num_steps": 700,
        "train.eval_every_steps": 350,
        "eval.num_sequences": 500,
    },
    "keras": {},
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
            features=(40, 40, 40, 40),
            kernel_sizes=(3, 3, 3, 3),
            num_normalized_layers=4,
            activation="tanh",
            peephole="none",
        ),
        task=ForecastConfig(num_input_frames=7, num_output_frames=16),
        training=NextFrameTrainingConfig(num_training_frames=16),
        data=MovingSquaresConfig(
            height=40,
            width=40,
            num_train_sequences=950,
            num_validation_sequences=50,
            num_test_sequences=1000,
        ),
        optimizer=AdadeltaConfig(learning_rate=1.0),
        train=TrainConfig(
            batch_size=10,
            num_steps=28_500,
            eval_every_steps=950,  # 10 epochs.
            num_validation_sequences=50,
        ),
        eval=EvalConfig(num_sequences=1000),
        presets=PRESETS,
        preset=preset,
    )
