import importlib

import pytest

from configs import (
    bubbles,
    clip_classification,
    moving_mnist,
    moving_mnist_autoencoder,
    moving_mnist_next_frame,
    moving_mnist_recurrent,
    moving_squares,
    radar_nowcasting,
)
from convlstm_jax.cli.experiment import (
    describe_fields,
    experiment,
    leaves,
    section_classes,
    update,
)
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
            {"train__batch_size": "x"},
            "config.train.batch_size is 'x': it must be an integer of at least 1",
        ),
        (
            moving_mnist,
            {"model__recurrent_kernel_size": "4"},
            "config.model.recurrent_kernel_size is 4: it must be an odd integer from 1 "
            "to 63",
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
            {"model__features": "64,0"},
            "config.model.features is (64, 0): it must be a tuple of one or more "
            "integers from 1 to 65536, such as (64, 64)",
        ),
        (
            moving_mnist,
            {"optimizer__learning_rate": "0"},
            "config.optimizer.learning_rate is 0.0: it must be a finite number above 0",
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
            {"model__name": "fc_lstm_autoencoder"},
            "config.task.name is 'forecast': it must be 'reconstruct', 'predict' or "
            "'composite' with config.model.name='fc_lstm_autoencoder'",
        ),
        (
            moving_mnist,
            {"data__name": "theft_videos"},
            "config.data.name is 'theft_videos': it must be 'moving_mnist', "
            "'moving_squares', 'bubbles' or 'video' with config.task.name='forecast'",
        ),
        (
            clip_classification,
            {"data__name": "moving_mnist"},
            "config.data.name is 'moving_mnist': it must be 'theft_videos' or "
            "'annotated_video' with config.task.name='classify'",
        ),
        (
            moving_mnist_autoencoder,
            {"task__name": "reconstruct", "task__num_output_frames": "11"},
            "config.task.num_output_frames is 11: it must be at most "
            "num_input_frames, which is 10, with name='reconstruct'",
        ),
        (
            radar_nowcasting,
            {
                "model__name": "recurrent_predictor",
                "task__from_last_frame": "true",
            },
            "config.task.from_last_frame is True: it must be False with "
            "config.model.name='recurrent_predictor', which reads its own predictions",
        ),
        (
            moving_mnist,
            {"model": "fc_lstm"},
            "config.model is a section of the config: set its fields one by one, as in "
            "--config.model.name=...",
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
        (moving_mnist, "model.layer_norm"),
        (moving_mnist, "model.conditional"),
        (moving_mnist, "task.sampling"),
        (moving_mnist, "task.num_training_frames"),
        (moving_mnist, "task.rain_weights"),
        (moving_mnist, "data.downsample"),
        (moving_mnist, "eval.rain_thresholds"),
        (moving_mnist, "optimizer.weight_decay"),
        (moving_mnist_recurrent, "model.peephole"),
        (moving_mnist_next_frame, "model.patch_size"),
        (bubbles, "data.digits"),
        (moving_squares, "data.num_digits"),
        (radar_nowcasting, "data.channels"),
    ],
)
def test_a_field_that_does_not_apply_does_not_exist(module, field):
    section, _, name = field.partition(".")
    (problem,) = problems_of(module, **{field.replace(".", "__"): "3"})
    assert problem.startswith(f"config.{field} is not a field")
    assert "the fields are " in problem
    assert name not in module.get_config()[section]


def test_a_typo_is_answered_with_the_nearest_field_and_the_fields_of_the_section():
    (problem,) = problems_of(moving_mnist, model__fetures="3")
    assert problem.startswith(
        "config.model.fetures is not a field with config.model.name="
        "'encoder_forecaster' (did you mean features?): the fields are name, "
    )


def test_fields_that_another_value_brings():
    (problem,) = problems_of(moving_mnist, optimizer__plateau_factor="0.1")
    assert problem == (
        "config.optimizer.plateau_factor does not exist with config.optimizer.schedule="
        "'constant': it needs config.optimizer.schedule='reduce_on_plateau'"
    )
    overrides = {
        "optimizer.schedule": "reduce_on_plateau",
        "optimizer.plateau_factor": "0.1",
    }
    changed = experiment(moving_mnist.get_config(), overrides)
    assert changed.config.optimizer.plateau_factor == 0.1
    plain = experiment(
        moving_mnist_next_frame.get_config("keras"), {"optimizer.schedule": "cosine"}
    )
    assert "plateau_factor" not in plain.config.optimizer


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


def test_a_path_switches_to_the_reader_of_own_data(tmp_path):
    for module, name in (
        (bubbles, "video"),
        (moving_mnist, "video"),
        (clip_classification, "annotated_video"),
        (radar_nowcasting, "radar"),
    ):
        config = module.get_config()
        values, problems = update(
            config.to_dict(), {"data.path": str(tmp_path)}, from_text=True
        )
        assert not problems
        assert values["data"]["name"] == name
        assert values["data"]["path"] == str(tmp_path)
        assert values["data"]["height"] == config.data.height


def test_any_forecasting_network_goes_with_any_objective_that_asks_for_frames():
    forecasting = [name for name, cls in MODELS.items() if cls.kind == "frames"]
    assert len(forecasting) == 4
    for module in (moving_mnist, radar_nowcasting):
        for name in forecasting:
            overrides = {
                "model.name": name,
                "model.features": "8,8,8",
                "data.height": "64",
                "data.width": "64",
            }
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


def test_values_are_read_by_the_type_of_the_field():
    config = moving_mnist.get_config()
    before = config.to_dict()
    changed = experiment(
        config,
        {
            "seed": "7",
            "model.features": "(8,4)",
            "optimizer.learning_rate": "1",
            "train.num_steps": "1e3",
            "note": "x=1",
        },
    ).config
    assert changed.seed == 7
    assert changed.model.features == (8, 4)
    assert changed.optimizer.learning_rate == 1.0
    assert isinstance(changed.optimizer.learning_rate, float)
    assert changed.train.num_steps == 1000
    assert changed.note == "x=1"
    assert changed.is_locked
    assert config.to_dict() == before


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


def test_own_annotated_films_are_cut_and_split_as_the_experiment_says(tmp_path):
    overrides = {"data.path": str(tmp_path)}
    data = experiment(clip_classification.get_config(), overrides).data
    assert (data.clip_stride, data.frame_stride) == (3, 1)
    assert (data.validation_fraction, data.test_fraction) == (0.2, 0.2)
    assert (data.channels, data.flip, data.crop, data.brightness) == (
        3,
        True,
        0.15,
        0.2,
    )


def test_own_composites_are_read_as_the_experiment_says(tmp_path):
    overrides = {"data.path": str(tmp_path)}
    data = experiment(radar_nowcasting.get_config("quick"), overrides).data
    assert (data.downsample, data.clip_stride, data.crop_stride) == (4, 1, 8)
    assert (data.min_rain_share, data.zr_a, data.zr_b) == (0.05, 223.0, 1.53)
    assert (data.symmetries, data.zoom, data.height) == (True, 2.0, 64)
