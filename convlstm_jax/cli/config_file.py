"""Loads an experiment file and sets single fields of its config."""

import importlib.util
import inspect
import linecache
import os
import re
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path

from ml_collections import ConfigDict

from convlstm_jax.cli.used_fields import without_effect
from convlstm_jax.cli.validate import (
    RULES,
    find_problems,
    leaves,
    raise_problems,
    refusal,
)
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

    Returns:
      The locked config, not yet validated.

    Raises:
      UserError: if the file is missing or no Python file, fails, has no `get_config`,
        does not know the preset or returns something else than a config.
    """
    path, preset = split_preset(text)
    if not os.path.exists(path):
        others = [str(other) for other in sorted(path.parent.glob("*.py"))]
        raise UserError(
            f"--config={text} names the file '{path}', which does not exist"
            f"{did_you_mean(str(path), others)}"
        )
    if path.suffix != ".py" or not os.path.isfile(path):
        raise UserError(f"--config={text} must name a Python file (.py), not '{path}'")
    try:
        config = _call_get_config(path, preset)
    except UserError as error:
        raise UserError(f"--config={text}: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserError(
            f"--config={text} cannot be used: {_explain(error, path)}"
        ) from (error)
    config.lock()
    return config


def _call_get_config(path: Path, preset: str) -> ConfigDict:
    spec = importlib.util.spec_from_file_location(f"config_file_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError("the file cannot be loaded as a Python module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise UserError("the file must define a function get_config")
    arguments = (preset,) if preset else ()
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError as error:
        if preset:
            raise UserError(
                f"the file has no presets, so ':{preset}' must go"
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
    """Tells in one line what went wrong in an experiment file, and where."""
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
    if isinstance(error, (AttributeError, KeyError)) and unknown:
        # The source tells the section, which ml_collections' message leaves out.
        source = linecache.getline(str(path), line_number or 0)
        dotted = re.search(r"config\.([\w.]+)\s*=", source)
        name = f"config.{dotted.group(1)}" if dotted else unknown.group(1)
        hint = did_you_mean(name, (f"config.{known}" for known in RULES))
        return f"{where}{name} is not a field of the config{hint}"
    message = " ".join(str(error).split())
    return f"{where}{type(error).__name__}: {message}".rstrip(": ")


def override(
    config: ConfigDict, overrides: Mapping[str, str], *, unchecked: Iterable[str] = ()
) -> ConfigDict:
    """Returns a copy of a config with some fields set from text, and validated.

    Args:
      config: the config to start from.
      overrides: dotted path of a field, without `config.`, to its value as text.
      unchecked: fields that nobody will look at, whatever they hold.

    Raises:
      UserError: naming all problems of the config and of the overrides at once.
    """
    before = leaves(config)
    config = ConfigDict(config.to_dict())  # ConfigDict(config) would share sections.
    problems = []
    wrong = set(unchecked)
    # Rules, not the types of the present values, decide what a field may hold.
    with config.ignore_type():
        for path, text in overrides.items():
            section, _, name = path.rpartition(".")
            try:
                value = RULES[path].parse(text)
                (config[section] if section else config)[name] = value
            except ValueError:
                problems.append(refusal(path, text))
                wrong.add(path)
            except (KeyError, TypeError):
                wrong.add(path)  # A saved config without the field: named below.
    problems += find_problems(config, skip=wrong)
    if not problems:
        after = leaves(config)
        changed = [path for path in overrides if before[path] != after[path]]
        problems = without_effect(after, changed)
    raise_problems(problems, "things in the config are wrong")
    config.lock()
    return config
