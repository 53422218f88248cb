import importlib

import pytest

from configs import (
    bubbles,
    clip_classification,
    moving_mnist,
    moving_mnist_autoencoder,
    moving_mnist_recurrent,
    radar_nowcasting,
)
from convlstm_jax.cli.describe import describe_fields
from convlstm_jax.cli.experiment import experiment, leaves, section_classes
from convlstm_jax.errors import UserError
from convlstm_jax.models import MODELS


@pytest.fixture(autouse=True)
def no_mnist_folder(monkeypatch):
    monkeypatch.delenv("CONVLSTM_MNIST_DIR", raising=False)


def problems_of(module, **overrides):
    """What is wrong with a config under overrides, `__` standing for the dot."""
    texts = {name.replace("__", "."): text for name, text in overrides.items()}
    try:
        experiment(module.get_config(), texts)
    except UserError as error:
        lines = str(error).split("\n  ")
        return lines[1:] or lines
    return []


@pytest.mark.parametrize(
    ("module", "overrides", "message"),
    [
        (
            moving_mnist,
            {"train__batch_size": "-3"},
            "config.train.batch_size is -3: it must be an integer of at least 1",
        ),
        (
            moving_mnist,
            {"model__name": "fc_lst"},
            "config.model.name is 'fc_lst': it must be one of 'encoder_forecaster', "
            "'fc_lstm', 'fc_lstm_autoencoder', 'recurrent_predictor', 'next_frame', "
            "'clip_classifier' (did you mean fc_lstm?)",
        ),
        (
            moving_mnist,
            {"data__height": "66"},
            "config.data.height is 66: it must be a multiple of "
            "config.model.patch_size, which is 4",
        ),
        (
            moving_mnist,
            {"optimizer__warmup_steps": "100", "train__num_steps": "100"},
            "config.optimizer.warmup_steps is 100: it must be less than "
            "config.train.num_steps, which is 100",
        ),
        (
            moving_mnist,
            {"data__num_train_sequences": "15"},
            "config.train.batch_size is 16: it must be at most "
            "config.data.num_train_sequences, which is 15",
        ),
        (
            moving_mnist,
            {"task__name": "composite"},
            "config.task.name is 'composite': it must be 'forecast' or 'nowcast' with "
            "config.model.name='encoder_forecaster'",
        ),
        (
            moving_mnist,
            {"data__name": "theft_videos"},
            "config.data.name is 'theft_videos': it must be 'moving_mnist', "
            "'moving_squares', 'bubbles' or 'video' with config.task.name='forecast'",
        ),
        (
            moving_mnist_autoencoder,
            {"task__name": "reconstruct", "task__num_output_frames": "11"},
            "config.task.num_output_frames is 11: it must be at most "
            "num_input_frames, which is 10, with name='reconstruct'",
        ),
        (
            radar_nowcasting,
            {"model__name": "recurrent_predictor", "task__from_last_frame": "true"},
            "config.task.from_last_frame is True: it must be False with "
            "config.model.name='recurrent_predictor', which reads its own predictions",
        ),
        (
            radar_nowcasting,
            {"model__name": "recurrent_predictor", "task__motion": "optical_flow"},
            "config.task.motion is 'optical_flow': it must be 'none' with "
            "config.model.name='recurrent_predictor', as the encoder_forecaster alone "
            "predicts changes in the moving frame",
        ),
        (
            radar_nowcasting,
            {"data__margin": "3", "model__patch_size": "4"},
            "config.data.margin is 3: twice that must be a multiple of "
            "config.model.patch_size, which is 4",
        ),
        (
            moving_mnist,
            {"trian__batch_size": "3"},
            "config.trian.batch_size is not a field of the config (did you mean "
            "config.train.batch_size?)",
        ),
    ],
)
def test_messages(module, overrides, message):
    assert problems_of(module, **overrides) == [message]


@pytest.mark.parametrize(
    ("module", "field"),
    [
        (moving_mnist, "model.kernel_sizes"),
        (moving_mnist, "task.sampling"),
        (moving_mnist, "task.num_training_frames"),
        (moving_mnist, "task.rain_weights"),
        (moving_mnist, "eval.rain_thresholds"),
        (moving_mnist, "optimizer.weight_decay"),
        (moving_mnist_recurrent, "model.peephole"),
        (bubbles, "data.digits"),
    ],
)
def test_a_field_that_does_not_apply_does_not_exist(module, field):
    section, _, name = field.partition(".")
    (problem,) = problems_of(module, **{field.replace(".", "__"): "3"})
    assert problem.startswith(f"config.{field} is not a field")
    assert "the fields are " in problem
    assert name not in module.get_config()[section]


def test_another_network_keeps_the_fields_that_both_have():
    changed = experiment(
        moving_mnist.get_config(),
        {"model.name": "recurrent_predictor", "task.sampling": "scheduled"},
    )
    assert changed.config.model.features == (128, 64, 64)
    assert "peephole" not in changed.config.model
    assert changed.training.sampling == "scheduled"
    back = experiment(changed.config, {"model.name": "encoder_forecaster"})
    assert "sampling" not in back.config.task and back.training is None


def test_any_forecasting_network_goes_with_any_objective_that_asks_for_frames():
    forecasting = [name for name, cls in MODELS.items() if cls.kind == "frames"]
    assert len(forecasting) == 4
    for module in (moving_mnist, radar_nowcasting):
        for name in forecasting:
            size = {"data.height": "64", "data.width": "64"}
            overrides = size | {"model.name": name, "model.features": "8,8,8"}
            assert experiment(module.get_config(), overrides).model.name == name


def test_all_problems_are_found_at_once(tmp_path):
    found = problems_of(
        moving_mnist,
        train__num_steps="0",
        model__peephole="chanel",
        data__num_train_sequences="3",
        model__fetures="3",
        data__digits_dir=str(tmp_path / "gone"),
    )
    assert [problem.split()[0] for problem in found] == [
        "config.model.fetures",
        "config.model.peephole",
        "config.train.num_steps",
        "config.data.digits_dir",
    ]
    assert "did you mean channel?" in found[1]


def test_a_config_that_somebody_has_spoilt_is_refused():
    config = moving_mnist.get_config().unlock()
    config.model.fetures = (3,)
    config.bogus = 1
    with config.ignore_type():
        config.train.batch_size = "x"
    with pytest.raises(UserError) as caught:
        experiment(config)
    for text in ("config.model.fetures is not", "config.bogus is not", "is 'x': it"):
        assert text in str(caught.value)


def test_every_field_has_a_meaning_and_help_lists_it():
    for name in ("moving_mnist", "radar_nowcasting", "moving_mnist_recurrent"):
        config = importlib.import_module(f"configs.{name}").get_config()
        lines = list(describe_fields(config))
        text = "\n".join(lines)
        for path in leaves(config):
            assert f"  {path.rpartition('.')[2]} = " in text
    for cls in section_classes(radar_nowcasting.get_config().to_dict()).values():
        for name, info in cls.model_fields.items():
            assert name == "name" or info.description, (cls, name)


@pytest.mark.parametrize(
    ("module", "name", "fields"),
    [
        (bubbles, "video", {}),
        (clip_classification, "annotated_video", {"clip_stride": 3, "crop": 0.15}),
        (radar_nowcasting, "radar", {"downsample": 4, "symmetries": True}),
    ],
)
def test_a_path_switches_to_own_data_read_as_the_experiment_says(
    module, name, fields, tmp_path
):
    config = module.get_config()
    data = experiment(config, {"data.path": str(tmp_path)}).data
    assert (data.name, data.path) == (name, str(tmp_path))
    assert data.height == config.data.height
    assert {field: getattr(data, field) for field in fields} == fields
