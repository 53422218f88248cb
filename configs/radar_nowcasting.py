"""Precipitation nowcasting: the next radar frames from the last ones.

The preset `paper` is the second experiment of X. Shi et al., 2015, arXiv:1506.04214: an
encoder-forecaster of two ConvLSTM layers of 64 features, 3x3, over patches of 2x2.

    python main.py --config=configs/radar_nowcasting.py[:PRESET]
    python main.py --config=configs/radar_nowcasting.py --config.data.path=FOLDER

| preset   | frames  | crop    | layers | patch | loss                     |
|----------|---------|---------|--------|-------|--------------------------|
| quick    | 4 to 12 | 64x64   | 32-32  | 4x4   | squared error            |
| ensemble | 4 to 12 | 64x64   | 32-32  | 4x4   | almost fair CRPS         |
| paper    | 5 to 15 | 100x100 | 64-64  | 2x2   | cross-entropy            |

FOLDER holds radar composites with the time in their names: 8-bit pictures, where the
defaults are those of the Finnish Meteorological Institute (255: no data, dBZ = value /
2 - 32, Z = 223 R^1.53), ODIM or KNMI HDF5, MeteoSwiss GIF or Rainfields 3 NetCDF;
several folders have commas between them. The last two formats need
`pip install -r requirements-radar.txt`. `--config.data.test_conditions=2017-05-09`
holds the events of a day out for the test. Without a folder the program generates rain
cells. Pixels without data count in neither loss nor metrics. Evaluation gives CSI, POD,
FAR, bias, HSS and FSS at rain rates, compared with persistence, and with optical flow
if the packages of requirements-radar.txt are installed.

The preset `quick` forecasts in the moving frame: the motion of the given fields is
found, the network forecasts growth and decay where they stand still, and the result is
carried on along the motion (docs/radar.md, which has its figures on five real events,
each left out of the training, beside pysteps' optical flow and S-PROG). `ensemble`
trains an ensemble of twelve such forecasts, which give probabilities. With
`--config.task.motion=none` the network learns motion itself, as in `paper`. Training
clips are rotated and mirrored at random. With `paper`, `--config.task.loss=b_mse` is
B-MSE with the weights of X. Shi et al., 2017, arXiv:1706.03458, and any network that
forecasts can be used, for example `--config.model.name=recurrent_predictor`.

Hardware and time: `quick` and `ensemble` took 2 to 3 minutes each on two cores of
an Intel Xeon, other work running; `paper` has not been run. Without a preset, `quick`
is used.
"""

from typing import Any

from ml_collections import ConfigDict

from convlstm_jax.cli.experiment import make_config
from convlstm_jax.data.synthetic.rain_cells import RainCellsConfig
from convlstm_jax.evaluation.evaluate import RainEvalConfig
from convlstm_jax.models.encoder_forecaster import EncoderForecasterConfig
from convlstm_jax.objectives import NowcastConfig
from convlstm_jax.training.loop import TrainConfig
from convlstm_jax.training.optimizer import AdamConfig

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "model.features": (32, 32),
        "model.patch_size": 4,
        "task.motion": "optical_flow",
        "task.num_input_frames": 4,
        "task.num_output_frames": 12,
        "task.loss": "mse",
        "task.probability_matching": 1.0,
        "data.height": 64,
        "data.width": 64,
        "data.margin": 24,
        "optimizer.name": "muon",
        "optimizer.learning_rate": 1e-2,
        "optimizer.ema_decay": 0.98,
        "train.num_steps": 300,
        "train.batch_size": 4,
        "train.eval_every_steps": 300,
        "train.num_validation_sequences": 64,
        "eval.num_sequences": 400,
    },
    "paper": {},
}

PRESETS["ensemble"] = {
    name: value for name, value in PRESETS["quick"].items() if name != "task.loss"
} | {
    "task.num_members": 12,
    "train.num_steps": 200,
    "train.eval_every_steps": 50,
    "eval.num_sequences": 100,
}

# Used without a preset.
DEFAULT_PRESETS = {"cpu": "quick", "accelerator": "quick"}


def get_config(preset: str = "paper") -> ConfigDict:
    """Returns the locked config of a preset.

    Raises:
        UserError: there is no such preset.
    """
    return make_config(
        model=EncoderForecasterConfig(
            features=(64, 64),
            input_kernel_size=3,
            recurrent_kernel_size=3,
            patch_size=2,
        ),
        task=NowcastConfig(
            num_input_frames=5, num_output_frames=15, loss="cross_entropy"
        ),
        data=RainCellsConfig(height=100, width=100, symmetries=True),
        optimizer=AdamConfig(learning_rate=1e-3, schedule="one_cycle", clip_norm=1.0),
        train=TrainConfig(num_steps=20_000),
        eval=RainEvalConfig(num_sequences=1000),
        presets=PRESETS,
        preset=preset,
    )
