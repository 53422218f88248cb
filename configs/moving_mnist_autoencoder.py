"""Moving MNIST with the FC-LSTM autoencoder: reconstruct, predict, or both.

Paper: N. Srivastava, E. Mansimov, R. Salakhutdinov, "Unsupervised Learning of Video
Representations using LSTMs", ICML 2015, arXiv:1502.04681: an LSTM reads 10 frames; from
its last state one LSTM reconstructs them in reverse order, another predicts the next
10.

    python main.py --config=configs/moving_mnist_autoencoder.py[:PRESET]

`--config.model.conditional=true` makes the decoders read the previous frame: the true
one in training, their own output in evaluation and prediction. `--config.task.name=` is
`reconstruct`, `predict` or `composite`; the presets set it.

Every frame is one vector of 64 x 64 = 4096 pixels, each layer has 2048 units with
peepholes, a dense layer with logistic outputs reads the top layer of each decoder, and
the loss is the cross-entropy, summed over both decoders in the composite model. The
encoder has 83,914,752 parameters, an unconditional decoder 58,753,024 and a conditional
one 92,307,456.

| preset                | parameters  | conditional | here             |
|-----------------------|-------------|-------------|------------------|
| quick, 5 frames       | 15,747,584  | 32,524,800  | 513 nats, MSE 128 |
| reconstruct-2048-2048 | 142,667,776 | 176,222,208 | not measured yet |
| predict-2048-2048     | 142,667,776 | 176,222,208 | not measured yet |
| composite-2048-2048   | 201,420,800 | 268,529,664 | not measured yet |

The paper reports 341.2 nats per frame on Moving MNIST.

Hardware and time: `quick`, a small composite model, was run on two shared cores of an
Intel Xeon (docs/systems.md); the others have not been measured yet. Without a preset,
`quick` is used on a CPU and `composite-2048-2048` on an accelerator.
"""

from typing import Any

from ml_collections import ConfigDict

from convlstm_jax.cli.experiment import make_config
from convlstm_jax.data.synthetic.moving_mnist import MovingMNISTConfig
from convlstm_jax.models.autoencoder import FCLSTMAutoencoderConfig
from convlstm_jax.objectives import CompositeConfig
from convlstm_jax.training.loop import TrainConfig
from convlstm_jax.training.optimizer import AdamConfig

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "model.features": (512,),
        # A few minutes of training suffice for five frames.
        "task.num_input_frames": 5,
        "task.num_output_frames": 5,
        "optimizer.learning_rate": 2e-3,
        "optimizer.schedule": "one_cycle",
        "train.num_steps": 800,
        "train.eval_every_steps": 200,
        "train.early_stopping_patience": 0,
        "train.num_validation_sequences": 128,
        "eval.num_sequences": 1000,
    },
    "composite-2048-2048": {},
    "reconstruct-2048-2048": {"task.name": "reconstruct"},
    "predict-2048-2048": {"task.name": "predict"},
}

# Used without a preset.
DEFAULT_PRESETS = {"cpu": "quick", "accelerator": "composite-2048-2048"}


def get_config(preset: str = "composite-2048-2048") -> ConfigDict:
    """Returns the locked config of a preset.

    Raises:
        UserError: there is no such preset.
    """
    return make_config(
        model=FCLSTMAutoencoderConfig(features=(2048, 2048)),
        task=CompositeConfig(),
        data=MovingMNISTConfig(),
        optimizer=AdamConfig(learning_rate=1e-3),
        train=TrainConfig(batch_size=16, early_stopping_patience=20),
        presets=PRESETS,
        preset=preset,
    )
