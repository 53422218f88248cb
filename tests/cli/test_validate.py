import pytest

from configs import base
from convlstm_jax.cli.data_rules import Box, Span
from convlstm_jax.cli.rules import (
    Boolean,
    Choice,
    Integer,
    Integers,
    Number,
    Numbers,
    Text,
    Texts,
)
from convlstm_jax.cli.validate import RULES, find_problems, leaves, validate
from convlstm_jax.errors import UserError


def config_with(**fields):
    """The base config with some fields changed, `__` standing for the dot."""
    config = base.get_config().unlock()
    with config.ignore_type():
        for name, value in fields.items():
            *sections, last = name.split("__")
            section = config
            for part in sections:
                section = section[part]
            section[last] = value
    return config


def refused_value(rule):
    """A value a rule does not allow, together with the end of the message."""
    match rule:
        case Integer() | Number() | Boolean():
            return "many"
        case Choice():
            return "neither"
        case Integers() | Numbers():
            return ()
        case Texts():
            return "theft"
        case Box() | Span():
            return (1,)
        case Text():
            return 3
    raise AssertionError(rule)


@pytest.fixture(autouse=True)
def no_mnist_folder(monkeypatch):
    monkeypatch.delenv("CONVLSTM_MNIST_DIR", raising=False)


@pytest.mark.parametrize("path", RULES)
def test_every_rule_refuses_by_naming_field_value_and_what_is_allowed(path):
    value = refused_value(RULES[path])
    config = config_with(**{path.replace(".", "__"): value})
    with pytest.raises(UserError) as caught:
        validate(config)
    message = str(caught.value)
    assert message.startswith(f"config.{path} is {value!r}: it must be ")
    assert RULES[path].allowed in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"train__batch_size": -3},
            "config.train.batch_size is -3: it must be an integer of at least 1",
        ),
        (
            {"model__recurrent_kernel_size": 4},
            "config.model.recurrent_kernel_size is 4: it must be an odd integer from 1 "
            "to 63",
        ),
        (
            {"model__name": "fc_lst"},
            "config.model.name is 'fc_lst': it must be one of 'encoder_forecaster', "
            "'fc_lstm', 'fc_lstm_autoencoder', 'recurrent_predictor', 'next_frame', "
            "'clip_classifier' (did you mean fc_lstm?)",
        ),
        (
            {"model__features": (64, 0)},
            "config.model.features is (64, 0): it must be a tuple of one or more "
            "integers from 1 to 65536, such as (128,64,64)",
        ),
        (
            {"optimizer__learning_rate": 0.0},
            "config.optimizer.learning_rate is 0.0: it must be a finite number above 0",
        ),
        (
            {"optimizer__ema_decay": 1.0},
            "config.optimizer.ema_decay is 1.0: it must be a finite number of at least "
            "0 and below 1",
        ),
        (
            {"data__height": 66},
            "config.data.height is 66: it must be a multiple of "
            "config.model.patch_size, which is 4",
        ),
        (
            {"data__width": 65},
            "config.data.width is 65: it must be a multiple of "
            "config.model.patch_size, which is 4",
        ),
        (
            {"data__height": 24},
            "config.data.height is 24: it must be an integer of at least 28, the size "
            "of a digit in pixels",
        ),
        (
            {"eval__num_sequences": 20_000},
            "config.eval.num_sequences is 20000: it must be at most "
            "config.data.num_test_sequences, which is 10000",
        ),
        (
            {"train__num_validation_sequences": 1001},
            "config.train.num_validation_sequences is 1001: it must be at most "
            "config.data.num_validation_sequences, which is 1000",
        ),
        (
            {"optimizer__warmup_steps": 100, "train__num_steps": 100},
            "config.optimizer.warmup_steps is 100: it must be less than "
            "config.train.num_steps, which is 100",
        ),
        (
            {"data__num_train_sequences": 15},
            "config.train.batch_size is 16: it must be at most "
            "config.data.num_train_sequences, which is 15",
        ),
        (
            {"data__digits": "idx"},
            "config.data.digits_dir is '': it must be the folder that holds the IDX "
            "files of MNIST, as config.data.digits is 'idx' and the environment "
            "variable CONVLSTM_MNIST_DIR is not set",
        ),
        (
            {"data__digits_dir": "/no/such/folder"},
            "config.data.digits_dir is '/no/such/folder': it must be an existing "
            "folder that holds the IDX files of MNIST",
        ),
        (
            {"data__test_file": "/no/such/file.npy"},
            "config.data.test_file is '/no/such/file.npy': it must be an existing file "
            "in the format of mnist_test_seq.npy, or ''",
        ),
        (
            {"model__name": "fc_lstm", "model__peephole": "location"},
            "config.model.peephole is 'location': it must be 'channel' or 'none' with "
            "config.model.name='fc_lstm', whose layers have no locations",
        ),
        (
            {
                "model__name": "fc_lstm_autoencoder",
                "model__peephole": "location",
                "task__name": "predict",
            },
            "config.model.peephole is 'location': it must be 'channel' or 'none' with "
            "config.model.name='fc_lstm_autoencoder', whose layers have no locations",
        ),
        (
            {"model__conditional": True},
            "config.model.conditional is True: it must be False with "
            "config.model.name='encoder_forecaster', as 'fc_lstm_autoencoder' alone "
            "has conditional decoders",
        ),
        (
            {"model__memory": "checkpoint", "model__implementation": "scan"},
            "config.model.memory is 'checkpoint': it must be 'default' with "
            "config.model.implementation='scan', as 'fused' alone can save memory",
        ),
        (
            {"task__name": "composite"},
            "config.task.name is 'composite': it must be 'forecast' or 'nowcast' with "
            "config.model.name='encoder_forecaster'",
        ),
        (
            {"model__name": "fc_lstm_autoencoder"},
            "config.task.name is 'forecast': it must be 'reconstruct', 'predict' or "
            "'composite' with config.model.name='fc_lstm_autoencoder'",
        ),
        (
            {
                "model__name": "fc_lstm_autoencoder",
                "task__name": "reconstruct",
                "task__num_output_frames": 11,
            },
            "config.task.num_output_frames is 11: it must be at most "
            "config.task.num_input_frames, which is 10, with "
            "config.task.name='reconstruct'",
        ),
        (
            {"model__layer_norm": True},
            "config.model.layer_norm is True: it must be False with "
            "config.model.name='encoder_forecaster', as 'recurrent_predictor' alone "
            "knows it",
        ),
        (
            {"task__sampling": "scheduled", "model__name": "fc_lstm"},
            "config.task.sampling is 'scheduled': it must be 'none' with "
            "config.model.name='fc_lstm', as 'recurrent_predictor' alone knows it",
        ),
        (
            {
                "model__name": "recurrent_predictor",
                "task__sampling": "reverse_scheduled",
                "task__sampling_end_step": 25_000,
            },
            "config.task.reverse_sampling_start_step is 25000: it must be less than "
            "config.task.sampling_end_step, which is 25000",
        ),
        (
            {"model__name": "next_frame", "model__kernel_sizes": (3, 3)},
            "config.model.kernel_sizes is (3, 3): it must have as many entries as "
            "config.model.features, which is (128, 64, 64)",
        ),
        (
            {"model__kernel_sizes": (5, 4, 1)},
            "config.model.kernel_sizes is (5, 4, 1): it must be a tuple of one or more "
            "odd integers from 1 to 63, such as (5,3,1)",
        ),
        (
            {"model__name": "next_frame", "model__num_normalized_layers": 4},
            "config.model.num_normalized_layers is 4: it must be at most 3, the number "
            "of layers in config.model.features",
        ),
        (
            {"model__name": "next_frame", "task__num_training_frames": 21},
            "config.task.num_training_frames is 21: it must be 0 (all) or from 2 to "
            "20, the sum of config.task.num_input_frames and "
            "config.task.num_output_frames",
        ),
        (
            {
                "model__name": "next_frame",
                "task__num_training_frames": 10,
                "task__score_inputs": False,
            },
            "config.task.num_training_frames is 10: it must be 0 (all) or more than "
            "config.task.num_input_frames, which is 10, with "
            "config.task.score_inputs=False",
        ),
        (
            {"model__name": "clip_classifier"},
            "config.task.name is 'forecast': it must be 'classify' with "
            "config.model.name='clip_classifier'",
        ),
        (
            {"model__name": "clip_classifier", "task__name": "classify"},
            "config.data.name is 'moving_mnist': it must be 'theft_videos' with "
            "config.task.name='classify', unless config.data.path is set",
        ),
        (
            {"data__name": "theft_videos"},
            "config.data.name is 'theft_videos': it must not be 'theft_videos' with "
            "config.task.name='forecast', unless config.data.path is set",
        ),
        (
            {
                "model__name": "clip_classifier",
                "task__name": "classify",
                "data__name": "theft_videos",
                "data__event_labels": ("fire",),
            },
            "config.data.event_labels is ('fire',): it must be ('theft',) with "
            "config.data.name='theft_videos', unless config.data.path is set",
        ),
        (
            {"data__flip": True},
            "config.data.flip is True: it must be False with "
            "config.model.name='encoder_forecaster', as 'clip_classifier' alone knows "
            "it",
        ),
        (
            {"data__path": "/no/such/folder"},
            "config.data.path is '/no/such/folder': it must be an existing folder of "
            "videos, arrays or pictures, or one video or array, or ''",
        ),
        (
            {"data__channels": 3},
            "config.data.channels is 3: it must be 1 with "
            "config.data.name='moving_mnist', whose frames are grey",
        ),
        (
            {"data__channels": 2},
            "config.data.channels is 2: it must be an odd integer from 1 to 3",
        ),
        (
            {"data__condition": "folder"},
            "config.data.condition is 'folder': it must be '' without "
            "config.data.path and with config.task.name='classify' or 'nowcast'",
        ),
        (
            {"data__condition": "(", "data__path": "."},
            "config.data.condition is '(', which is no regular expression (missing ), "
            "unterminated subpattern at position 0): it must be one with one group, "
            "or 'folder', or ''",
        ),
        (
            {"data__condition": "a.*", "data__path": "."},
            "config.data.condition is 'a.*', which has 0 groups: it must be a regular "
            "expression with one group, or 'folder', or ''",
        ),
        (
            {"data__test_conditions": ("slow",)},
            "config.data.test_conditions is ('slow',): it must be () where clips have "
            "no conditions, which are told by config.data.condition with "
            "config.data.path, or come with config.data.name='bubbles'",
        ),
        (
            {"data__test_conditions": ("slow", "")},
            "config.data.test_conditions is ('slow', ''): it must be a tuple of any "
            "number of texts, such as slow,fast",
        ),
        (
            {"data__validation_fraction": 0.5, "data__test_fraction": 0.5},
            "config.data.validation_fraction and config.data.test_fraction are 0.5 "
            "and 0.5: together they must be below 1",
        ),
        (
            {"data__path": ".", "data__test_file": "a.npy"},
            "config.data.test_file is 'a.npy': it must be '' with "
            "config.data.path='.', as it holds moving digits",
        ),
        (
            {"data__name": "moving_squares", "data__test_file": "a.npy"},
            "config.data.test_file is 'a.npy': it must be '' with "
            "config.data.name='moving_squares', as it holds moving digits",
        ),
        (
            {"optimizer__name": "adam", "optimizer__weight_decay": 0.1},
            "config.optimizer.weight_decay is 0.1: it must be 0 with "
            "config.optimizer.name='adam', as 'adamw' alone decays weights",
        ),
    ],
)
def test_messages(fields, message):
    with pytest.raises(UserError) as caught:
        validate(config_with(**fields))
    assert str(caught.value) == message


def test_the_official_test_file_fixes_size_length_and_digits(tmp_path):
    file = tmp_path / "mnist_test_seq.npy"
    file.touch()
    validate(config_with(data__test_file=str(file)))
    for fields, message in (
        ({"data__height": 128}, "height and config.data.width are 128 and 64: both"),
        ({"task__num_output_frames": 11}, "are 10 and 11: together they must be at"),
        ({"data__num_digits": 3}, "config.data.num_digits is 3: it must be 2 with"),
    ):
        with pytest.raises(UserError, match=message):
            validate(config_with(data__test_file=str(file), **fields))


def test_what_looks_odd_but_is_right(tmp_path, monkeypatch):
    validate(config_with(data__height=128, data__width=32, model__patch_size=1))
    validate(config_with(optimizer__name="adamw", optimizer__weight_decay=0.1))
    validate(config_with(optimizer__learning_rate=1))
    validate(config_with(model__name="next_frame", data__height=30, data__width=29))
    validate(config_with(model__name="fc_lstm", data__height=30, data__width=29))
    rollout = {"model__name": "recurrent_predictor", "model__implementation": "scan"}
    validate(config_with(model__memory="checkpoint", **rollout))
    validate(config_with(model__num_normalized_layers=9, model__kernel_sizes=(1,)))
    validate(config_with(data__path=".", data__channels=3, data__digits="idx"))
    validate(config_with(data__path=".", data__condition=r"(\d+)mm"))
    bubbles = {"data__name": "bubbles", "data__test_conditions": ("1 L/min",)}
    validate(config_with(**bubbles))
    squares = {"data__name": "moving_squares", "model__patch_size": 1}
    validate(config_with(data__height=8, data__digits="idx", **squares))
    validate(config_with(data__digits="idx", data__digits_dir=str(tmp_path)))
    monkeypatch.setenv("CONVLSTM_MNIST_DIR", str(tmp_path))
    validate(config_with(data__digits="idx"))


def test_a_folder_of_digits_that_the_environment_names_must_exist(monkeypatch):
    monkeypatch.setenv("CONVLSTM_MNIST_DIR", "/no/such/folder")
    message = "variable CONVLSTM_MNIST_DIR is '/no/such/folder': it must be an existing"
    with pytest.raises(UserError, match=message):
        validate(config_with())
    validate(config_with(data__digits="sklearn"))


def test_all_problems_are_told_at_once():
    config = config_with(
        train__batch_size=0,
        model__name="x",
        eval__num_sequences=20_000,
        model__fetures=(3,),
    )
    with pytest.raises(UserError) as caught:
        validate(config)
    header, *problems = str(caught.value).split("\n")
    assert header == "4 things in the config are wrong:"
    assert [problem.split()[0] for problem in problems] == [
        "config.model.fetures",
        "config.model.name",
        "config.train.batch_size",
        "config.eval.num_sequences",
    ]


def test_unknown_and_missing_fields_are_named():
    config = config_with(model__fetures=(3,))
    del config.model["features"]
    assert find_problems(config) == [
        "config.model.fetures is not a field of the config (did you mean "
        "config.model.features?)",
        "config.model.features is missing: it must be a tuple of one or more integers "
        "from 1 to 65536, such as (128,64,64)",
    ]


def test_conditions_wait_until_their_fields_are_right():
    problems = find_problems(config_with(model__patch_size=0))
    assert problems == [
        "config.model.patch_size is 0: it must be an integer of at least 1"
    ]


def test_leaves_are_dotted_paths():
    assert leaves({"a": 1, "b": {"c": (2,), "d": {"e": 3}}}) == {
        "a": 1,
        "b.c": (2,),
        "b.d.e": 3,
    }
