import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from configs import moving_mnist
from convlstm_jax.cli.experiment import experiment
from convlstm_jax.errors import UserError

FOLDER = Path(__file__).parents[1] / "configs"
EXPERIMENTS = sorted(
    path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__"
)


def all_presets():
    for name in EXPERIMENTS:
        for preset in importlib.import_module(f"configs.{name}").PRESETS:
            yield name, preset


@pytest.mark.parametrize(("name", "preset"), list(all_presets()))
def test_every_preset_builds_is_locked_and_valid(name, preset):
    config = importlib.import_module(f"configs.{name}").get_config(preset)
    assert config.preset == preset
    assert config.is_locked
    assert config.note == ""
    experiment(config)
    with pytest.raises(AttributeError):
        config.model.fetures = (1,)


def test_an_unknown_preset_names_the_known_ones_and_the_nearest():
    message = r"unknown preset '5x5-265'.*5x5-128-64-64.*did you mean 5x5-256\?"
    with pytest.raises(UserError, match=message):
        moving_mnist.get_config("5x5-265")


def test_a_preset_with_an_unknown_field_is_refused(monkeypatch):
    monkeypatch.setitem(moving_mnist.PRESETS, "a", {"model.nme": 1})
    with pytest.raises(UserError, match=r"preset 'a': config\.model\.nme is not a fie"):
        moving_mnist.get_config("a")


def test_importing_the_configs_starts_no_device():
    code = "".join(
        f"from configs import {name}; {name}.get_config()\n" for name in EXPERIMENTS
    )
    code += "from jax._src import xla_bridge; assert not xla_bridge._backends"
    subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent, check=True)
