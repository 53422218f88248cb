"""Loads an experiment file: a Python file with a function `get_config`."""

import importlib.util
import os
import traceback
from pathlib import Path

from ml_collections import ConfigDict

from convlstm_jax.cli.process import default_backend
from convlstm_jax.errors import UserError, did_you_mean
from convlstm_jax.paths import local_path


def split_preset(text: str) -> tuple[Path, str]:
    """Splits `FILE[:PRESET]` into the path of the file and the preset's name or ""."""
    file, colon, preset = text.rpartition(":")
    if not colon or os.path.exists(text):
        file, preset = text, ""
    return local_path(file), preset


def load(text: str) -> ConfigDict:
    """Returns the locked config of `FILE[:PRESET]`, not yet validated.

    `NAME[:PRESET]` is the shipped file `configs/NAME.py`. Without a preset, the
    dictionary `DEFAULT_PRESETS` of the file, if it has one, names the preset for this
    machine under "cpu" or "accelerator".
    """
    path, preset = split_preset(text)
    if not os.path.exists(path):
        shipped = {file.stem: file for file in sorted(_shipped().glob("[!_]*.py"))}
        if str(path) not in shipped:
            known = [*map(str, sorted(path.parent.glob("*.py"))), *shipped]
            hint = did_you_mean(str(path), known)
            if path.stem in shipped:
                hint = f" (did you mean {path.stem}?)"
            raise UserError(f"--config={text}: '{path}' does not exist{hint}")
        path = shipped[str(path)]
    if path.suffix != ".py" or not os.path.isfile(path):
        raise UserError(f"--config={text} must name a Python file (.py), not '{path}'")
    note = ""
    try:
        spec = importlib.util.spec_from_file_location(f"config_file_{path.stem}", path)
        assert spec and spec.loader  # They depend on the suffix alone.
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not preset and hasattr(module, "DEFAULT_PRESETS"):
            preset, note = _preset_of_this_machine(module.DEFAULT_PRESETS)
        get_config = getattr(module, "get_config", None)
        if not callable(get_config):
            raise UserError("the file must define a function get_config")
        config = get_config(preset) if preset else get_config()
        if not isinstance(config, ConfigDict):
            found = type(config).__name__
            raise UserError(f"get_config must return a ConfigDict, not a {found}")
    except UserError as error:
        raise UserError(f"--config={text}: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserError(
            f"--config={text} cannot be used: {_explain(error, path)}"
        ) from error
    if note:
        with config.unlocked():
            config.note = note
    config.lock()
    return config


def _shipped() -> Path:
    """The folder of the configs that come with this program."""
    package = Path(__file__).parent.parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def _preset_of_this_machine(presets: dict[str, str]) -> tuple[str, str]:
    """The preset for the devices found, and the note about it."""
    if default_backend() != "cpu":
        return presets["accelerator"], ""
    return presets["cpu"], (
        f"no accelerator was found, so the small preset {presets['cpu']!r} is used; "
        f"for the paper's model put ':{presets['accelerator']}' after the file in "
        "--config"
    )


def _explain(error: BaseException, path: Path) -> str:
    """What went wrong in an experiment file, and where, in one line."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == path.resolve()
    ]
    where = f"line {lines[-1]}: " if lines else ""
    # The message of ml_collections about an unknown field goes on with all others.
    words = str(error).partition("Other fields present")[0].split()
    message = " ".join(words).strip("'")
    return f"{where}{type(error).__name__}: {message}".rstrip(": ")
