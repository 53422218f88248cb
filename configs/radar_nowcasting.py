"""Precipitation nowcasting: the next radar frames from the last ones.

The second experiment of X. Shi et al., 2015, arXiv:1506.04214: an encoder-forecaster of
two ConvLSTM layers of 64 features, 3x3, over patches of 2x2, 5 frames in, 15 out.

    python main.py --config=configs/radar_nowcasting.py[:PRESET]
    python main.py --config=configs/radar_nowcasting.py --config.data.path=FOLDER

| preset | frames  | crop    | layers | patch | loss                     |
|--------|---------|---------|--------|-------|--------------------------|
| quick  | 4 to 9  | 32x32   | 32-32  | 4x4   | B-MSE, weight from 0.5   |
| paper  | 5 to 15 | 100x100 | 64-64  | 2x2   | cross-entropy            |

FOLDER holds radar composites with the time in their names: 8-bit pictures, of which the
defaults read those of the Finnish Meteorological Institute (255: no data, dBZ = value /
2 - 32, Z = 223 R^1.53), or ODIM and KNMI HDF5, MeteoSwiss GIF and Rainfields 3 NetCDF
(`--config.data.radar_format=odim_hdf5`, `knmi_hdf5`, `mch_gif`, `bom_rf3`; these need
`pip install -r requirements-radar.txt`). `--config.data.test_conditions=2017-05-09`
keeps the events of a day for the test alone. Without a folder the program makes rain
cells of its own. Pixels without data count in neither loss nor figures. Evaluation
gives CSI, POD, FAR, bias, HSS and FSS at rain rates, beside persistence, and beside
optical flow where `pip install -r requirements-radar.txt` was done.

The preset `quick` predicts the change from the last frame, and weights rain from
0.5 mm/h on, which the squared error alone would blur away; B-MSE with the weights of
X. Shi et al., 2017, arXiv:1706.03458, is `--config.task.loss=b_mse` elsewhere.

On the FMI's two events (learned from 2016-09-28, 400 test clips of 2017-05-09) `quick`
is little more than persistence: 15 to 45 minutes ahead its MSE is 11.7 to 18.4 per
frame (persistence 12.0 to 19.0) and its CSI at 0.5 mm/h 0.158 to 0.057 (0.156 to
0.055), better at each lead time from 15 minutes on, worse at 5. Measured by

    python main.py --config=configs/radar_nowcasting.py:quick --config.data.path=FOLDER
    --config.data.test_conditions=2017-05-09

Hardware and time: `quick` took about 3 minutes on two shared cores; `paper` was not
run. Without a preset the machine decides: `quick` on a CPU, `paper` on an accelerator.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import base

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {
        "model.features": (32, 32),
        "model.patch_size": 4,
        "task.num_input_frames": 4,
        "task.num_output_frames": 9,
        "task.loss": "b_mse",
        "task.from_last_frame": True,
        "task.rain_weight_rates": (0.5,),
        "task.rain_weights": (4.0,),
        "data.height": 32,
        "data.width": 32,
        "optimizer.learning_rate": 2e-3,
        "train.num_steps": 600,
        "train.batch_size": 8,
        "train.eval_every_steps": 300,
        "train.num_validation_sequences": 64,
        "eval.num_sequences": 400,
    },
    "paper": {},
}


def get_config(preset: str = "") -> ConfigDict:
    """Returns the locked config of a preset; "" means the one that suits the machine.

    Raises:
      UserError: if there is no such preset.
    """
    config = base.get_config()
    config.model.features = (64, 64)
    config.model.input_kernel_size = 3
    config.model.recurrent_kernel_size = 3
    config.model.patch_size = 2
    config.task.name = "nowcast"
    config.task.num_input_frames = 5
    config.task.num_output_frames = 15
    config.task.loss = "cross_entropy"
    config.data.name = "rain_cells"
    config.data.height = 100
    config.data.width = 100
    config.data.downsample = 4
    config.data.clip_stride = 1
    config.data.crop_stride = 8
    config.data.least_rain_share = 0.05
    config.data.symmetries = True
    config.data.zr_a = 223.0
    config.data.zr_b = 1.53
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "one_cycle"
    config.optimizer.clip_norm = 1.0
    config.train.num_steps = 20_000
    config.eval.num_sequences = 1000
    base.apply_preset(config, PRESETS, preset, accelerator="paper", cpu="quick")
    return config
