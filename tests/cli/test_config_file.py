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


def test_presets_are_split_off(tmp_path, monkeypatch):
    assert config_file.split_preset("a/b.py:p") == (Path("a/b.py"), "p")
    assert config_file.split_preset("a/b.py") == (Path("a/b.py"), "")
    monkeypatch.chdir(tmp_path)
    Path("a:b.py").touch()
    assert config_file.split_preset("a:b.py") == (Path("a:b.py"), "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:", "SyntaxError: invalid syntax (experiment.py, line 1)"),
        ("x = 1", "the file must define a function get_config"),
        ("import no_such_module", "line 1: ModuleNotFoundError: No module named"),
        ("def get_config():\n  return {}", "must return a ConfigDict, not a dict"),
        ("def get_config(preset):\n  return {}", "TypeError: get_config() missing 1"),
        ("import sys\n\ndef get_config():\n  sys.exit(3)", "line 4: SystemExit: 3"),
        ("def get_config():\n  raise ValueError('a\\nb')", "line 2: ValueError: a b"),
        (
            GOOD.format(line="config.optimizer.lerning_rate = 3"),
            'line 7: AttributeError: Key "lerning_rate" does not exist and cannot be',
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
    assert "\n" not in told and len(told) < len(path) + 200


def test_a_file_without_presets_refuses_one(write):
    path = write("def get_config():\n  return None")
    with pytest.raises(UserError, match=r"get_config\(\) takes 0 positional"):
        config_file.load(f"{path}:quick")


def test_other_paths_are_refused_with_a_hint(write, tmp_path):
    wrong = write("").replace("experiment", "expriment")
    with pytest.raises(UserError, match=r"not exist \(did you mean .*experiment\.py"):
        config_file.load(wrong)
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
