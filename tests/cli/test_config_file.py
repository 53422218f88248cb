from pathlib import Path

import pytest

from convlstm_jax.cli import config_file
from convlstm_jax.errors import UserError

GOOD = """
from configs import moving_mnist

def get_config(preset=""):
    config = moving_mnist.get_config()
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
            "line 7: config.optimizer.lerning_rate is not a field of the config",
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
    with pytest.raises(UserError, match=r"has no presets, so ':quick' must be rem"):
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


@pytest.mark.parametrize(
    ("backend", "preset"), [("cpu", "quick"), ("gpu", "5x5-128-64-64")]
)
def test_without_a_preset_the_machine_decides(monkeypatch, at_root, backend, preset):
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    config = config_file.load("configs/moving_mnist.py")
    assert config.preset == preset
    assert config.is_locked
    if backend == "cpu":
        assert "no accelerator was found" in config.note
        assert ":5x5-128-64-64" in config.note
        assert "\n" not in config.note
    else:
        assert config.note == ""
    assert config_file.load("configs/moving_mnist.py:quick").note == ""
