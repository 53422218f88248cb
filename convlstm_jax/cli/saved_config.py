"""The config saved with a run, and the fields that may change when it is resumed."""

import json
from collections.abc import Set
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.cli.experiment import complete, leaves, section_classes
from convlstm_jax.cli.workdir import CONFIG_FILE
from convlstm_jax.errors import UserError

# Raised when a field changes its meaning; new fields and renamed ones need no number.
_VERSION = 1
# These schedules span all steps: another number changes the whole curve.
_SCHEDULES_OVER_ALL_STEPS = ("cosine", "one_cycle")
# The task, too, says which decoders an autoencoder has.
_FIELD_OF_THE_MODEL = "task.name"
# The trained weights fit one model; these fields only say how it is computed.
_FREE_OF_THE_MODEL = frozenset({"model.dtype", "model.implementation", "model.memory"})


def save_config(workdir: Path, config: ConfigDict) -> None:
    """Writes the config into the folder of a run."""
    content = {"version": _VERSION, **config.to_dict()}
    with atomic_file(workdir / CONFIG_FILE) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_config(workdir: Path) -> tuple[ConfigDict, list[str]]:
    """Reads the config that `save_config` wrote; tuples are tuples again.

    Returns:
        The locked config, not validated (the file may have been edited by hand), and
        the fields that a later version added, which have their defaults.

    Raises:
        UserError: the file is no JSON object, or has another version.
    """
    path = workdir / CONFIG_FILE
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the saved config '{path}' cannot be read: {reason}") from (
            error
        )
    if not isinstance(loaded, dict):
        raise UserError(f"the saved config '{path}' must be a JSON object")
    version = loaded.pop("version", None)
    if version != _VERSION:
        raise UserError(
            f"the saved config '{path}' has the version {version!r}: it must be "
            f"{_VERSION}, so use the release of this program that wrote it, or train "
            "again in another folder"
        )
    try:
        values = _with_tuples(loaded)
        added = complete(values, section_classes(values))
        config = ConfigDict(values)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"the saved config '{path}' must be the config of a run: {error}"
        ) from error
    config.lock()
    return config, added


def _with_tuples(value: Any) -> Any:
    """JSON has no tuples, and configs hold no lists: every list was a tuple."""
    if isinstance(value, dict):
        return {name: _with_tuples(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return tuple(_with_tuples(entry) for entry in value)
    return value


def check_resumes(saved: ConfigDict, config: ConfigDict, workdir: Path) -> None:
    """Checks that a run with the config `saved` may be resumed with `config`.

    Raises:
        UserError: naming every differing field that shapes the training, with both
            values.
    """
    classes = section_classes(config.to_dict())
    free = {
        f"{section}.{name}".lstrip(".")
        for section, cls in classes.items()
        for name in cls.model_fields
        if cls.rule(name).may_change
    }
    before, now = leaves(saved), leaves(config)
    schedule, steps = before.get("optimizer.schedule"), "train.num_steps"
    why = ""
    if schedule in _SCHEDULES_OVER_ALL_STEPS:
        free.discard(steps)
        if before.get(steps) != now.get(steps):
            why = f"; the schedule {schedule!r} spans all steps"
    if before.get("data.path") and now.get("data.path"):
        free.add("data.path")  # The same data may lie elsewhere, or be prepared.
    differing = _differing(saved, config, free)
    if differing:
        raise UserError(
            f"--workdir={workdir} holds a run with another config, so choose another "
            f"folder or give the same config: {differing}{why}"
        )


def check_same_model(saved: ConfigDict, config: ConfigDict, workdir: Path) -> None:
    """Checks that the trained weights of a run fit the model of `config`.

    Raises:
        UserError: naming every differing field of the model with both values.
    """
    paths = leaves(saved) | leaves(config)
    of_the_model = {path for path in paths if path.startswith("model.")}
    of_the_model |= {_FIELD_OF_THE_MODEL}
    free = paths.keys() - of_the_model | _FREE_OF_THE_MODEL
    differing = _differing(saved, config, free)
    if differing:
        raise UserError(
            f"the model trained in --workdir={workdir} cannot be changed: {differing}"
        )


def _differing(saved: ConfigDict, config: ConfigDict, free: Set[str]) -> str:
    before, now = leaves(saved), leaves(config)
    return ", ".join(
        f"config.{path} is {before.get(path)!r} there and {now.get(path)!r} here"
        for path in dict.fromkeys([*before, *now])
        if path not in free and before.get(path) != now.get(path)
    )
