import re
from pathlib import Path

import pytest

from configs import base
from convlstm_jax.cli import config_file, used_fields
from convlstm_jax.data.data_sets import SOURCES
from convlstm_jax.errors import UserError

GOOD = """
from configs import base

def get_config(preset=""):
    config = base.get_config()
    config.preset = preset
    {line}
    return config
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="experiment.py"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_a_file_is_loaded_and_locked(write):
    path = write(GOOD.format(line="config.model.features = (8, 4)"))
    config = config_file.load(f"{path}:small")
    assert config.is_locked
    assert config.preset == "small"
    assert config.model.features == (8, 4)
    assert config_file.load(path).preset == ""
    assert config_file.load(f"{path}:").preset == ""


def test_presets_are_split_off():
    assert config_file.split_preset("a/b.py:p") == (Path("a/b.py"), "p")
    assert config_file.split_preset("a/b.py") == (Path("a/b.py"), "")


def test_colons_in_names_of_files_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a:b.py").touch()
    assert config_file.split_preset("a:b.py") == (Path("a:b.py"), "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:", "line 1: invalid syntax"),
        ("x = 1", "the file must define a function get_config"),
        ("import no_such_module", "line 1: ModuleNotFoundError: No module named"),
        ("def get_config():\n  return {}", "must return an ml_collections.ConfigDict"),
        ("def get_config(preset):\n  return {}", "must be callable without a preset"),
        ("def get_config():\n  raise KeyError", "line 2: KeyError"),
        ("import sys\n\ndef get_config():\n  sys.exit(3)", "line 4: SystemExit: 3"),
        ("def get_config():\n  raise ValueError('a\\nb')", "line 2: ValueError: a b"),
        (
            GOOD.format(line="config.optimizer.lerning_rate = 3"),
            "line 7: config.optimizer.lerning_rate is not a field of the config (did "
            "you mean config.optimizer.learning_rate?)",
        ),
        (
            GOOD.format(line="config.update_from_flattened_dict({'model.nme': 1})"),
            "line 7: nme is not a field of the config",
        ),
        (
            GOOD.format(line="config.train.batch_size = 'x'"),
            "line 7: TypeError: Could not override field 'batch_size'",
        ),
    ],
)
def test_a_bad_file_is_told_in_one_sentence(write, text, message):
    path = write(text)
    with pytest.raises(UserError) as caught:
        config_file.load(path)
    told = str(caught.value)
    assert told.startswith(f"--config={path}")
    assert message in told
    assert "\n" not in told
    assert "Traceback" not in told


def test_a_file_without_presets_refuses_one(write):
    path = write("def get_config():\n  return None")
    with pytest.raises(UserError, match=r"has no presets, so ':quick' must go"):
        config_file.load(f"{path}:quick")


def test_a_missing_file_hints_at_the_nearest(write):
    path = write("", name="experiment.py")
    wrong = path.replace("experiment", "expriment")
    with pytest.raises(UserError, match=r"not exist \(did you mean .*experiment\.py"):
        config_file.load(wrong)


def test_other_files_and_folders_are_refused(write, tmp_path):
    for path in (write("", name="a.txt"), str(tmp_path)):
        with pytest.raises(UserError, match=r"must name a Python file \(.py\)"):
            config_file.load(path)


def test_overrides_are_read_by_the_kind_of_the_field():
    config = config_file.override(
        base.get_config(),
        {
            "seed": "7",
            "model.features": "(8,4)",
            "optimizer.learning_rate": "1",
            "train.num_steps": "1e3",
            "note": "x=1",
        },
    )
    assert config.seed == 7
    assert config.model.features == (8, 4)
    assert config.optimizer.learning_rate == 1.0
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.train.num_steps == 1000
    assert config.note == "x=1"
    assert config.is_locked


def test_overriding_leaves_the_given_config_as_it_is():
    config = base.get_config()
    config_file.override(config, {"model.features": "8"})
    assert config.to_dict() == base.get_config().to_dict()


def test_bad_overrides_and_bad_fields_are_told_together():
    config = base.get_config()
    config.train.batch_size = 0
    with pytest.raises(UserError) as caught:
        config_file.override(
            config, {"optimizer.learning_rate": "fast", "data.height": "66"}
        )
    assert str(caught.value).split("\n") == [
        "3 things in the config are wrong:",
        "  config.optimizer.learning_rate is 'fast': it must be a finite number above "
        "0",
        "  config.train.batch_size is 0: it must be an integer of at least 1",
        "  config.data.height is 66: it must be a multiple of config.model.patch_size, "
        "which is 4",
    ]


@pytest.mark.parametrize(
    ("model", "field", "text"),
    [
        ("recurrent_predictor", "implementation", "scan"),
        ("recurrent_predictor", "activation", "relu"),
        ("recurrent_predictor", "peephole", "location"),
        ("next_frame", "patch_size", "2"),
        ("encoder_forecaster", "kernel_sizes", "3,3,3"),
        ("fc_lstm", "input_kernel_size", "3"),
    ],
)
def test_what_a_model_does_not_use_cannot_be_set(model, field, text):
    config = base.get_config()
    config.model.name = model
    message = (
        rf"config\.model\.{field} cannot be set with config\.model\.name={model!r}, "
        "which does not use it: it uses name, dtype, features, "
    )
    with pytest.raises(UserError, match=message):
        config_file.override(config, {f"model.{field}": text})
    config.model[field] = config_file.RULES[f"model.{field}"].parse(text)
    config_file.override(config, {f"model.{field}": text})  # It was so before.


@pytest.mark.parametrize(
    ("name", "path", "field", "text", "uses"),
    [
        ("bubbles", "", "digits", "sklearn", ": it uses height, width, num_train_se"),
        ("moving_squares", "", "frame_stride", "2", ", unless config.data.path is set"),
        ("moving_mnist", ".", "num_digits", "3", ": it uses height, width, num_train"),
        ("moving_mnist", "", "downsample", "2", ": it uses height, width, num_train_"),
    ],
)
def test_what_the_data_do_not_use_cannot_be_set(name, path, field, text, uses):
    config = base.get_config()
    config.data.name, config.data.path = name, path
    told = f"path={path!r}" if path else f"name={name!r}"
    message = re.escape(
        f"config.data.{field} cannot be set with config.data.{told}, which does not "
        f"use it{uses}"
    )
    with pytest.raises(UserError, match=message):
        config_file.override(config, {f"data.{field}": text})
    # Nor does what is read, and from where, count as unused.
    config_file.override(
        config, {"data.path": "" if path else ".", "data.height": "32"}
    )


def test_what_is_used_with_another_value_alone_cannot_be_set():
    config = base.get_config()
    with pytest.raises(UserError) as caught:
        config_file.override(config, {"optimizer.plateau_factor": "0.1"})
    assert str(caught.value) == (
        "config.optimizer.plateau_factor cannot be set with config.optimizer.schedule="
        "'constant': it is used with 'reduce_on_plateau' alone"
    )
    fields = {
        "optimizer.schedule": "reduce_on_plateau",
        "optimizer.plateau_factor": "0.1",
    }
    assert config_file.override(config, fields).optimizer.plateau_factor == 0.1


def test_fields_that_others_decide_on_exist():
    rules = config_file.RULES
    for path, (other, values) in used_fields.USED_WITH.items():
        assert path in rules
        assert set(values) <= set(rules[other].names)
    assert set(used_fields.DATA_FIELDS) == set(SOURCES)
    assert set(rules["data.name"].names) <= set(SOURCES)
    for fields in used_fields.DATA_FIELDS.values():
        assert {f"data.{field}" for field in fields} <= set(rules)
    assert set(used_fields.MODEL_FIELDS) == set(rules["model.name"].names)
    for fields in used_fields.MODEL_FIELDS.values():
        assert {f"model.{field}" for field in fields} <= set(rules)
