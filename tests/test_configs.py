import importlib
from pathlib import Path

import pytest

from configs import base, moving_mnist
from convlstm_jax.cli import config_file
from convlstm_jax.cli.validate import RULES, leaves, validate
from convlstm_jax.errors import UserError

FOLDER = Path(__file__).parents[1] / "configs"
EXPERIMENTS = sorted(
    path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "base")
)


def all_presets():
    for name in EXPERIMENTS:
        for preset in importlib.import_module(f"configs.{name}").PRESETS:
            yield name, preset


def test_the_base_config_is_locked_and_valid():
    config = base.get_config()
    assert config.is_locked
    assert config.model.is_locked
    validate(config)


def test_every_field_of_the_base_config_has_a_rule_and_every_rule_a_field():
    assert set(leaves(base.get_config())) == set(RULES)


def test_every_field_of_the_base_config_is_explained_by_a_comment():
    lines = (FOLDER / "base.py").read_text().splitlines()
    for number, line in enumerate(lines):
        code = line.strip()
        if "get_config" in code or " = " not in code or "ConfigDict()" in code:
            continue
        if code.startswith(("config.", "model.", "task.", "data.", "optimizer.")) or (
            code.startswith(("train.", "evaluation."))
        ):
            if "preset" in code or "note" in code:
                continue
            assert lines[number - 1].strip().startswith("#"), code


@pytest.mark.parametrize(("name", "preset"), list(all_presets()))
def test_every_preset_builds_is_locked_and_valid(name, preset):
    config = importlib.import_module(f"configs.{name}").get_config(preset)
    assert config.preset == preset
    assert config.is_locked
    assert config.note == ""
    validate(config)
    with pytest.raises(AttributeError):
        config.model.fetures = (1,)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_says_its_paper_command_hardware_and_score(name):
    text = importlib.import_module(f"configs.{name}").__doc__
    assert "arXiv" in text
    assert f"python main.py --config=configs/{name}.py" in text
    assert "Hardware" in text


@pytest.mark.parametrize(
    ("preset", "features", "kernels", "patch_size"),
    [
        ("5x5-256", (256,), (5, 5), 4),
        ("5x5-128-128", (128, 128), (5, 5), 4),
        ("5x5-128-64-64", (128, 64, 64), (5, 5), 4),
        ("9x9-128-128", (128, 128), (9, 1), 4),
        ("9x9-128-64-64", (128, 64, 64), (9, 1), 4),
    ],
)
def test_the_models_of_table_1(preset, features, kernels, patch_size):
    config = moving_mnist.get_config(preset)
    assert config.model.name == "encoder_forecaster"
    assert config.model.features == features
    assert config.model.input_kernel_size == kernels[0]
    assert config.model.recurrent_kernel_size == kernels[1]
    assert config.model.patch_size == patch_size
    assert config.optimizer.name == "rmsprop"
    assert config.optimizer.learning_rate == 1e-3
    assert config.optimizer.rmsprop_decay == 0.9
    assert config.train.batch_size == 16
    assert config.train.early_stopping_patience > 0


def test_the_fc_lstm_of_table_1_sees_all_pixels():
    config = moving_mnist.get_config("fc-lstm-2048-2048")
    assert config.model.name == "fc_lstm"
    assert config.model.features == (2048, 2048)
    assert config.model.patch_size == 1


@pytest.mark.parametrize(
    ("backend", "preset"), [("cpu", "quick"), ("gpu", "5x5-128-64-64")]
)
def test_without_a_preset_the_machine_decides(monkeypatch, backend, preset):
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    config = moving_mnist.get_config()
    assert config.preset == preset
    assert config.is_locked
    validate(config)
    if backend == "cpu":
        assert "no accelerator was found" in config.note
        assert ":5x5-128-64-64" in config.note
        assert "\n" not in config.note
    else:
        assert config.note == ""


def test_an_unknown_preset_names_the_known_ones_and_the_nearest():
    with pytest.raises(UserError, match=r"unknown preset '5x5-265'.*5x5-128-64-64"):
        moving_mnist.get_config("5x5-265")
    with pytest.raises(UserError, match=r"did you mean 5x5-256\?"):
        moving_mnist.get_config("5x5-265")


def test_a_preset_with_an_unknown_field_is_refused():
    with pytest.raises(UserError, match=r"'a' sets 'model\.nme'.*mean model\.name\?"):
        base.apply_preset(
            base.get_config(), {"a": {"model.nme": 1}}, "a", accelerator="a", cpu="a"
        )


def test_the_files_load_the_way_the_command_line_loads_them():
    config = config_file.load(f"{FOLDER / 'moving_mnist.py'}:5x5-256")
    assert config.to_dict() == moving_mnist.get_config("5x5-256").to_dict()
    assert config_file.load(str(FOLDER / "base.py")).to_dict() == (
        base.get_config().to_dict()
    )
