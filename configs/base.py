"""Every field of a config, with its unit and default.

An experiment file starts from `get_config()`, sets the fields in which it differs,
and names its variants in a table of presets (see `apply_preset`). The config is
locked: a misspelt field is an error. A new field goes here and, with what it allows,
into `convlstm_jax/cli/validate.py`.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from convlstm_jax.cli.process import default_backend
from convlstm_jax.cli.validate import RULES
from convlstm_jax.errors import UserError
from convlstm_jax.nearest import did_you_mean


def get_config() -> ConfigDict:
    """Returns the locked config with every field at its default."""
    config = ConfigDict()

    # Random numbers of weights, data and their order all derive from it.
    config.seed = 0
    # Name of the chosen preset; set by `apply_preset`.
    config.preset = ""
    # One line that is shown before training; empty: none.
    config.note = ""

    model = config.model = ConfigDict()
    # "encoder_forecaster" (ConvLSTM), "fc_lstm" (the same with dense layers),
    # "fc_lstm_autoencoder" (an encoder with one or two decoders, see task.name),
    # "recurrent_predictor" (ConvLSTM that predicts one frame and reads it again),
    # "next_frame" (the same as Keras's examples have it: learned on true frames alone,
    # batch normalisation, a convolution over time and space at the end), or
    # "clip_classifier" (ConvLSTM, last frame, average over its points, dense layer).
    model.name = "encoder_forecaster"
    # Features of each layer, encoder and forecaster alike, bottom layer first.
    model.features = (128, 64, 64)
    # Input-to-state kernel, odd, in patches; unused by "fc_lstm".
    model.input_kernel_size = 5
    # State-to-state kernel, odd, in patches; unused by "fc_lstm".
    model.recurrent_kernel_size = 5
    # Side of the square patches that become the channels of one point, in pixels;
    # "next_frame" has none.
    model.patch_size = 4
    # Weights from the cell state to the gates: one per "channel", one per "location"
    # and channel, or "none"; unused by "recurrent_predictor", which has none.
    model.peephole = "channel"
    # Nonlinearity of cell input and output: "tanh" or "relu"; unused by
    # "recurrent_predictor", whose is tanh.
    model.activation = "tanh"
    # Of the computation: "float32" or "bfloat16"; weights and cell state are float32.
    model.dtype = "float32"
    # How a layer runs over time: "fused" (fast) or "scan" (the reference); unused by
    # "recurrent_predictor", which has one way.
    model.implementation = "fused"
    # What a layer keeps for the backward pass: "default" (all gates and states; fast)
    # or "checkpoint" (every ⌈√T⌉th state, for long clips: a fraction of the memory, but
    # the layer runs a second time).
    model.memory = "default"
    # "recurrent_predictor": whether the results of the convolutions are normalised.
    model.layer_norm = False
    # "recurrent_predictor": constant added to the forget gate before its sigmoid; 0 for
    # imported weights of OpenSTL, whose cells add none.
    model.forget_offset = 1.0
    # Whether decoders read the frame before: the true one in training, their own in
    # evaluation and prediction; "fc_lstm_autoencoder" only.
    model.conditional = False
    # Kernel of each layer, input-to-state and state-to-state alike, odd, in pixels;
    # "next_frame" only, as are the four below.
    model.kernel_sizes = (5, 3, 1)
    # Layers, from the bottom, that batch normalisation follows.
    model.num_normalized_layers = 2
    # Share of batch normalisation's running statistics that each training step keeps:
    # 0.99 in Keras; less suits runs of a few hundred steps.
    model.batch_norm_momentum = 0.99
    # Frames the last convolution spans: 3 as in Keras's examples, or its own alone, 1.
    model.head_frames = 3
    # Whether the last convolution sees no later frame; False as in Keras's examples,
    # which leak one frame in training.
    model.causal_head = True
    # "clip_classifier": side of the squares of which the greatest value goes on to the
    # next layer, in points; 1: all values do.
    model.pool_size = 2

    task = config.task = ConfigDict()
    # "forecast"; with "fc_lstm_autoencoder": "reconstruct" (the inputs, last one
    # first), "predict" (the frames that follow) or "composite" (both).
    # With "clip_classifier": "classify". "nowcast": as "forecast", of rain on a radar.
    task.name = "forecast"
    # Frames the model is given.
    task.num_input_frames = 10
    # Frames the model predicts; "reconstruct": input frames it gives back.
    task.num_output_frames = 10
    # First frames of a clip that "next_frame" learns from, each from those before; 0:
    # all of them.
    task.num_training_frames = 0
    # "next_frame": whether it learns to predict the given frames too, each from those
    # before, and not only the frames that follow.
    task.score_inputs = True
    # "cross_entropy": nats per frame, summed over its pixels; "mse", "mae": mean over
    # pixels; "mse_sum": squared error summed over the pixels of a frame. With "nowcast"
    # each is the mean over pixels with data, there is no "mse_sum", and "b_mse" and
    # "b_mae" weight heavy rain more, up to 30 times.
    task.loss = "cross_entropy"
    # "nowcast": whether the model predicts the change from the last given frame alone.
    task.from_last_frame = False
    # "nowcast": rain rates, mm/h, from which on a pixel counts more in the losses
    # "b_mse" and "b_mae"; below the first it counts 1.
    task.rain_weight_rates = (2.0, 5.0, 10.0, 30.0)
    # How much it counts from each of these rates on.
    task.rain_weights = (2.0, 5.0, 10.0, 30.0)
    # True frames that a "recurrent_predictor" reads in training: the given ones alone
    # ("none"), fewer and fewer of those to forecast besides ("scheduled"), or at first
    # half of all and in the end the given ones ("reverse_scheduled").
    task.sampling = "none"
    # Step from which on both schedules read the given frames alone.
    task.sampling_end_step = 50_000
    # "reverse_scheduled": step up to which half of the frames are read.
    task.reverse_sampling_start_step = 25_000
    # "reverse_scheduled": steps in which the share of given frames that are not read
    # falls by a factor of e.
    task.reverse_sampling_decay_steps = 5_000
    # "classify": whether a clip counts in training by how rare its class is: "none", or
    # "balanced" (all classes then count the same together).
    task.class_weights = "none"

    data = config.data = ConfigDict()
    # Source of the clips where no path is given, each made by the program:
    # "moving_mnist", "moving_squares", "bubbles" (a bubble column) or "theft_videos"
    # (films of a shop with their annotations, for "classify"), or "rain_cells" (for
    # "nowcast").
    data.name = "moving_mnist"
    # Folder of your own videos, arrays and folders of pictures, or one video or array,
    # or a folder that --mode=prepare wrote, read in place of data.name; with "classify"
    # a folder in which each video has an XML file of annotations beside it, with
    # "nowcast" one of radar composites with the time in their names (year to minute, 12
    # digits), see data.radar_format. Empty: none.
    data.path = ""
    # Channels of a frame: 1 (grey) or 3 (colour).
    data.channels = 1
    # Part of each frame of your videos that is used, resized to height and width: (top,
    # left, height, width) in pixels of the file; (): all of it.
    data.crop_box = ()
    # Values of your arrays (npy, npz, NetCDF, Zarr) that become 0 and 1, what lies
    # beyond being clipped; (): they are uint8, or floats from 0 to 1.
    data.value_range = ()
    # Name of the array in npz files, NetCDF and Zarr; empty: the only one there is.
    data.variable = ""
    # Of a video every n-th frame is used.
    data.frame_stride = 1
    # Frames (of those used) from the beginning of one clip to that of the next; 0: as
    # many as a clip has, so that clips do not overlap.
    data.clip_stride = 0
    # What tells the condition a video was taken under, for figures of each apart: the
    # "folder" it lies in, or a regular expression with one group for its path; empty:
    # there are none.
    data.condition = ""
    # What of your videos is dealt out to training, validation and test: each "file",
    # all files of a "condition" together, or parts of each file ("time": the first to
    # learn from, the last to test on). Clips of two sets never share a frame.
    data.split_by = "file"
    # Conditions that are kept for the test set; empty: videos of all are. With
    # "nowcast" the dates of radar events, such as 2017-05-09.
    data.test_conditions = ()
    # Share of the videos that the validation set gets.
    data.validation_fraction = 0.1
    # Share of the videos that the test set gets, where test_conditions says nothing.
    data.test_fraction = 0.1
    # A file that cannot be read to its end, or has values that are not finite: "refuse"
    # it, or "skip" what is missing.
    data.bad_files = "refuse"
    # Labels of the annotations in whose intervals clips are of the class to be told.
    data.event_labels = ("theft",)
    # Whether training clips are mirrored left to right, every other one; "classify"
    # only, as are the two below.
    data.flip = False
    # Largest share of height and width that is cut off training clips.
    data.crop = 0.0
    # Largest change of a training clip's brightness, as a share.
    data.brightness = 0.0
    # "nowcast": whether training clips are turned and mirrored at random, in all 8 ways
    # (4 if height and width differ).
    data.symmetries = False
    # "nowcast": greatest factor by which training clips are enlarged or shrunk at
    # random, so that what moves in them becomes faster or slower; 1: they are not.
    data.zoom = 1.0
    # Radar composites: what data.path holds: 8-bit "picture" files (PGM, PNG), or what
    # pysteps' importer of this name reads where it is installed (pip install -r
    # requirements-radar.txt): "odim_hdf5" (DBZH or RATE), "knmi_hdf5" (reflectivity or
    # rain gathered), "mch_gif" (MeteoSwiss's AQC, CPC, AZC and RZC) or "bom_rf3"
    # (NetCDF of Australia's Rainfields 3).
    data.radar_format = "picture"
    # Radar composites: side of the blocks of pixels that are averaged into one.
    data.downsample = 1
    # Radar composites: pixels from one training crop to the next; 0: side by side, as
    # those of validation and test are.
    data.crop_stride = 0
    # Radar composites: share of rain, from 0.1 mm/h on, that a crop must have in the
    # first frame of its clip.
    data.least_rain_share = 0.0
    # Radar composites: minutes from one to the next; where one is missing, an event
    # ends. Rain that was gathered (mm) counts as that of this time, unless a file says
    # of which.
    data.time_step_minutes = 5.0
    # Radar pictures: dBZ = gain * value + offset; as the FMI's files have it.
    data.dbz_gain = 0.5
    # See data.dbz_gain, dBZ.
    data.dbz_offset = -32.0
    # Radar pictures: the value that stands for no data.
    data.no_data_value = 255
    # "nowcast": reflectivity of pixel 0, dBZ; what is weaker counts as no rain.
    data.dbz_min = 0.0
    # "nowcast": reflectivity of pixel 1, dBZ.
    data.dbz_max = 60.0
    # "nowcast": a of Z = a R^b, which turns reflectivity into mm/h: 200 after Marshall
    # and Palmer, 223 in Finland.
    data.zr_a = 200.0
    # "nowcast": b of Z = a R^b: 1.6 after Marshall and Palmer, 1.53 in Finland.
    data.zr_b = 1.6
    # Source of the digits: "idx" (the four MNIST files in digits_dir), "tfds"
    # (downloaded), "sklearn" (small digits that come with scikit-learn), or "auto"
    # (the first of these that is at hand).
    data.digits = "auto"
    # Folder of the IDX files; empty: environment variable CONVLSTM_MNIST_DIR.
    data.digits_dir = ""
    # Folder tensorflow-datasets keeps downloads in; empty: ~/tensorflow_datasets.
    data.tfds_dir = ""
    # Height of a frame in pixels.
    data.height = 64
    # Width of a frame in pixels.
    data.width = 64
    # Digits in a clip.
    data.num_digits = 2
    # Way of a digit from one frame to the next, as a fraction of the canvas.
    data.velocity = 0.1
    # Distinct training clips; they are made when needed, so many cost nothing.
    data.num_train_sequences = 10_000_000
    # Distinct validation clips.
    data.num_validation_sequences = 1000
    # Distinct test clips.
    data.num_test_sequences = 10_000
    # Official test set, mnist_test_seq.npy; empty: test clips are made.
    data.test_file = ""
    # Processes that make batches; 0: a thread of the training process.
    data.num_workers = 0
    # Batches made ahead of time.
    data.prefetch_batches = 2

    optimizer = config.optimizer = ConfigDict()
    # "adam", "adamw", "rmsprop", "adadelta", or "muon" (which makes the momentum of
    # recurrent layers' kernels orthogonal; Adam for all other weights).
    optimizer.name = "adam"
    # Highest learning rate of the schedule.
    optimizer.learning_rate = 1e-3
    # "constant", "cosine", "one_cycle" or "reduce_on_plateau".
    optimizer.schedule = "constant"
    # Steps over which the learning rate rises from 0.
    optimizer.warmup_steps = 0
    # Decay of the weights, "adamw" only.
    optimizer.weight_decay = 0.0
    # Decay of the mean squared gradient, "rmsprop" only.
    optimizer.rmsprop_decay = 0.9
    # Largest global norm of the gradient; 0: not clipped.
    optimizer.clip_norm = 0.0
    # "reduce_on_plateau": factor on the learning rate.
    optimizer.plateau_factor = 0.5
    # "reduce_on_plateau": spans of train.eval_every_steps steps without a lower mean
    # training loss before the factor.
    optimizer.plateau_patience = 5
    # Decay of the moving average of the weights that is evaluated; 0: none.
    optimizer.ema_decay = 0.0

    train = config.train = ConfigDict()
    # Optimizer steps.
    train.num_steps = 100_000
    # Sequences in a step, over all devices.
    train.batch_size = 16
    # Steps between validations, each followed by a checkpoint.
    train.eval_every_steps = 1000
    # Steps between checkpoints; validations save one besides.
    train.checkpoint_every_steps = 500
    # Steps between lines of the log.
    train.log_every_steps = 50
    # Validations without improvement before training stops; 0: never.
    train.early_stopping_patience = 0
    # Sequences of one validation.
    train.num_validation_sequences = 256
    # Validation sequences drawn at a validation.
    train.num_pictures = 4

    evaluation = config.eval = ConfigDict()
    # Test sequences.
    evaluation.num_sequences = 10_000
    # Sequences in a step, over all devices.
    evaluation.batch_size = 64
    # Test sequences drawn.
    evaluation.num_pictures = 8
    # Test sequences, evenly spread over all, whose VMAF is measured where the package
    # imageio-ffmpeg is installed; 0: none. A film of 64 x 64 takes about 50 ms.
    evaluation.num_vmaf_sequences = 16
    # "nowcast": rain rates, mm/h, from which on rain counts as forecast and as fallen.
    evaluation.rain_thresholds = (0.5, 2.0, 5.0, 10.0, 30.0)
    # "nowcast": sides of the windows of the fractions skill score, odd, pixels.
    evaluation.fss_window_sizes = (5,)

    config.lock()
    return config


def apply_preset(
    config: ConfigDict,
    presets: Mapping[str, Mapping[str, Any]],
    preset: str,
    *,
    accelerator: str,
    cpu: str,
) -> None:
    """Sets the fields of a preset in a config, and the name of the preset.

    Args:
      config: the locked config of the experiment; changed in place.
      presets: for each preset, values by dotted path such as `model.features`.
      preset: the preset the user asked for, or "" for the one that suits the machine.
      accelerator: the preset for a machine with an accelerator, the paper's model.
      cpu: the preset for a machine without; `config.note` says that it was taken.

    Raises:
      UserError: if there is no such preset, or it sets a field that does not exist.
    """
    if not preset:
        preset = accelerator
        if default_backend() == "cpu":  # Slow: not asked when the user names one.
            preset = cpu
            config.note = (
                f"no accelerator was found, so the small preset {cpu!r} is used; for "
                f"the paper's model put ':{accelerator}' after the file in --config"
            )
    if preset not in presets:
        raise UserError(
            f"unknown preset {preset!r}: it must be one of {', '.join(presets)}"
            f"{did_you_mean(preset, presets)}"
        )
    for path in presets[preset]:
        if path not in RULES:
            raise UserError(
                f"the preset {preset!r} sets {path!r}, which is not a field of the "
                f"config{did_you_mean(path, RULES)}"
            )
    config.update_from_flattened_dict(dict(presets[preset]))
    config.preset = preset
