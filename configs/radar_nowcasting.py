"""Precipitation nowcasting: the next radar frames from the last ones.

The second experiment of X. Shi et al., 2015, arXiv:1506.04214: an encoder-forecaster of
two ConvLSTM layers of 64 features, 3x3, over patches of 2x2, 5 frames in, 15 out.

    python main.py --config=configs/radar_nowcasting.py[:PRESET]
    python main.py --config=configs/radar_nowcasting.py --config.data.path=FOLDER

| preset | frames  | crop    | layers | patch | loss                     |
|--------|---------|---------|--------|-------|--------------------------|
| quick  | 4 to 9  | 64x64   | 32-32  | 2x2   | B-MSE, weight from 0.5   |
| paper  | 5 to 15 | 100x100 | 64-64  | 2x2   | cross-entropy            |

FOLDER holds radar composites with the time in their names: 8-bit pictures, where the
defaults are those of the Finnish Meteorological Institute (255: no data, dBZ = value /
2 - 32, Z = 223 R^1.53), ODIM or KNMI HDF5, MeteoSwiss GIF or Rainfields 3 NetCDF;
several folders have commas between them. The last two formats need
`pip install -r requirements-radar.txt`. `--config.data.test_conditions=2017-05-09`
holds the events of a day out for the test. Without a folder the program generates rain
cells. Pixels without data count in neither loss nor metrics. Evaluation gives CSI, POD,
FAR, bias, HSS and FSS at rain rates, compared with persistence, and with optical flow
if the packages of requirements-radar.txt are installed.

The preset `quick` predicts the change from the last frame and weights rain from
0.5 mm/h on, which the squared error alone would blur; with other presets
`--config.task.loss=b_mse` is B-MSE with the weights of X. Shi et al., 2017,
arXiv:1706.03458. As one event has one wind and one size of showers, training clips are
rotated, mirrored, enlarged and shrunk at random. Any network that forecasts can be
used, for example `--config.model.name=recurrent_predictor`.

On the FMI's two events, trained on one and tested on all clips of the other, lead
times 15, 25, 35 and 45 minutes, MSE per frame and CSI at 0.5 mm/h:

| test       |             | MSE                 | CSI                     |
|------------|-------------|---------------------|-------------------------|
| 2017-05-09 | model       | 33.0 43.8 53.2 63.1 | 0.205 0.130 0.099 0.086 |
|            | seed 1      | 31.5 43.6 54.5 66.0 | 0.220 0.138 0.101 0.082 |
|            | persistence | 42.2 60.6 67.1 68.0 | 0.170 0.079 0.055 0.058 |
| 2016-09-28 | model       | 24.4 39.2 53.8 69.0 | 0.667 0.596 0.427 0.209 |
|            | persistence | 35.0 50.6 62.7 73.1 | 0.611 0.550 0.508 0.475 |

On 2017-05-09 the model is better than persistence in both from 15 minutes on; trained
on the few showers of that day, it does not preserve the widespread rain of 2016-09-28
beyond half an hour. Measured with

    python main.py --config=configs/radar_nowcasting.py:quick --config.data.path=FOLDER
    --config.data.test_conditions=2017-05-09

On generated rain cells, MSE 15 to 45 minutes ahead is 23.0 to 174.2
(persistence 56.3 to 200.8), CSI at 0.5 mm/h 0.705 to 0.296 (0.497 to 0.167).

Hardware and time: `quick` took 3 to 4 minutes on two shared cores of an Intel Xeon;
`paper` has not been run. Without a preset, `quick` is used on a CPU and `paper` on an
accelerator.
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
        "train.num_steps": 600,
        "train.batch_size": 4,
        "train.eval_every_steps": 300,
        "train.num_validation_sequences": 64,
        "eval.num_sequences": 400,
    },
    "paper": {},
}

# Used without a preset.
DEFAULT_PRESETS = {"cpu": "quick", "accelerator": "paper"}


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
