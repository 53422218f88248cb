"""Loads an experiment file: a Python file with a function `get_config`."""

import importlib.util
import inspect
import linecache
import os
import re
import traceback
from pathlib import Path
from types import ModuleType

from ml_collections import ConfigDict

from convlstm_jax.cli.process import default_backend
from convlstm_jax.errors import UserError
from convlstm_jax.nearest import did_you_mean


def split_preset(text: str) -> tuple[Path, str]:
    """Splits `FILE[:PRESET]` into the path of the file and the preset's name or ""."""
    file, colon, preset = text.rpartition(":")
    if not colon or os.path.exists(text):
        file, preset = text, ""
    return Path(file).expanduser(), preset


def load(text: str) -> ConfigDict:
    """Runs `get_config` of the experiment file `FILE[:PRESET]`.

    Without a preset, the dictionary `DEFAULT_PRESETS` of the file, if it has one, names
    the preset for this machine under "cpu" or "accelerator".

    Returns:
        The locked config, not yet validated.

    Raises:
        UserError: the file is missing, is no Python file, raises an exception, has no
            `get_config`, lacks the preset, or returns something else than a config.
    """
    path, preset = split_preset(text)
    if not os.path.exists(path):
        others = [str(other) for other in sorted(path.parent.glob("*.py"))]
        hint = did_you_mean(str(path), others)
        if os.path.exists(shipped := os.path.join("configs", f"{path.stem}.py")):
            hint = f" (did you mean {shipped}?)"
        raise UserError(
            f"--config={text} names the file '{path}', which does not exist{hint}"
        )
    if path.suffix != ".py" or not os.path.isfile(path):
        raise UserError(f"--config={text} must name a Python file (.py), not '{path}'")
    try:
        module = _load_module(path)
        note = ""
        if not preset and hasattr(module, "DEFAULT_PRESETS"):
            preset, note = _preset_of_this_machine(module.DEFAULT_PRESETS)
        config = _call_get_config(module, preset)
    except UserError as error:
        raise UserError(f"--config={text}: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserError(
            f"--config={text} cannot be used: {_explain(error, path)}"
        ) from (error)
    if note:
        with config.unlocked():
            config.note = note
    config.lock()
    return config


def _preset_of_this_machine(presets: dict[str, str]) -> tuple[str, str]:
    """The preset for the devices found, and the note that says so."""
    if default_backend() != "cpu":
        return presets["accelerator"], ""
    return presets["cpu"], (
        f"no accelerator was found, so the small preset {presets['cpu']!r} is used; "
        f"for the paper's model put ':{presets['accelerator']}' after the file in "
        "--config"
    )


def _load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"config_file_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError("the file cannot be loaded as a Python module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _call_get_config(module: ModuleType, preset: str) -> ConfigDict:
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise UserError("the file must define a function get_config")
    arguments = (preset,) if preset else ()
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError as error:
        if preset:
            raise UserError(
                f"the file has no presets, so ':{preset}' must be removed"
            ) from error
        raise UserError("get_config must be callable without a preset") from error
    config = get_config(*arguments)
    if not isinstance(config, ConfigDict):
        raise UserError(
            "get_config must return an ml_collections.ConfigDict, not "
            f"{type(config).__name__}"
        )
    return config


def _explain(error: BaseException, path: Path) -> str:
    """Says in one line what went wrong in an experiment file, and where."""
    if isinstance(error, SyntaxError):
        where = Path(error.filename).name if error.filename else path.name
        return f"{where} line {error.lineno}: {error.msg}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == path.resolve()
    ]
    line_number = frames[-1].lineno if frames else None
    where = f"line {line_number}: " if line_number else ""
    unknown = re.search(r'Key \\?"([\w.]+)\\?" ', str(error))
    if isinstance(error, AttributeError | KeyError) and unknown:
        # The source line names the section, which ml_collections' message omits.
        source = linecache.getline(str(path), line_number or 0)
        dotted = re.search(r"config\.([\w.]+)\s*=", source)
        name = f"config.{dotted.group(1)}" if dotted else unknown.group(1)
        return f"{where}{name} is not a field of the config"
    message = " ".join(str(error).split())
    return f"{where}{type(error).__name__}: {message}".rstrip(": ")
