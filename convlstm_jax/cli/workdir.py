"""The folder of a run: finding, creating and locking it, and the config saved there."""

import contextlib
import datetime
import fcntl
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError
from convlstm_jax.paths import read_json

CONFIG_FILE = "config.json"
CHECKPOINT_FOLDER = "checkpoints"

# Raised when a field changes its meaning; new fields and renamed ones need no number.
_VERSION = 1
# These schedules span all steps: another number changes the whole curve.
_SCHEDULES_OVER_ALL_STEPS = ("cosine", "one_cycle")
# Beside those of the model, these say which outputs and decoders a network has.
_OF_THE_MODEL = ("task.name", "task.motion")
# The trained weights fit one model; these fields only say how it is computed.
_FREE_OF_THE_MODEL = frozenset({"model.dtype", "model.implementation", "model.memory"})


def holds_run(workdir: Path) -> bool:
    """Whether a training wrote its config into the folder."""
    # Of os.path, as Path.is_file raises where a folder may not be read.
    return os.path.isfile(workdir / CONFIG_FILE)


def holds_checkpoints(workdir: Path) -> bool:
    """Whether anything was trained in the folder."""
    folder = workdir / CHECKPOINT_FOLDER
    return folder.is_dir() and any(folder.iterdir())


def require_run(
    workdir: Path, *, checkpoints: bool, named: str = "--workdir={}"
) -> None:
    """Checks that a folder holds a run, and a checkpoint if one is needed.

    The message names the folder as in `named`.
    """
    if not os.path.exists(workdir):
        problem = "does not exist: it must be the folder of a run"
    elif not holds_run(workdir):
        problem = f"holds no {CONFIG_FILE}: it must be the folder of a run"
    elif checkpoints and not holds_checkpoints(workdir):
        problem = f"holds no checkpoint under {CHECKPOINT_FOLDER}/: train there first"
    else:
        return
    raise UserError(f"{named.format(workdir)} {problem}")


def make_fresh(config_name: str, preset: str) -> Path:
    """Creates a folder for a new run, `runs/<config>-<preset>-<date>-<time>`."""
    started = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = "-".join(part for part in (config_name, preset, started) if part)
    names = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
    while True:
        workdir = Path("runs", next(names))
        # Two runs may start in the same second.
        with contextlib.suppress(FileExistsError):
            workdir.mkdir(parents=True)
            return workdir


def make(workdir: Path, *, flag: str = "workdir") -> None:
    """Creates the folder given with a flag if needed."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--{flag}={workdir} cannot be made ({error.strerror}): it must be a folder"
        ) from error
    if not holds_run(workdir) and holds_checkpoints(workdir):
        raise UserError(
            f"--{flag}={workdir} holds checkpoints but no {CONFIG_FILE}: choose another"
        )


@contextlib.contextmanager
def locked(
    workdir: Path, *, work: str = "training", flag: str = "workdir"
) -> Iterator[None]:
    """Locks a folder against a second process; the lock ends with the process.

    `work`, done there, and `flag`, which names the folder, are for the message.
    """
    with (workdir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another {work} is running in --{flag}={workdir}: wait for it"
            ) from None
        except OSError:
            pass  # Some network file systems have no locks.
        yield


def save_config(workdir: Path, config: ConfigDict) -> None:
    """Writes the config into the folder of a run."""
    content = {"version": _VERSION, **config.to_dict()}
    with atomic_file(workdir / CONFIG_FILE) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_config(workdir: Path) -> ConfigDict:
    """Reads the locked config that `save_config` wrote, not validated.

    Fields that a later version added have their defaults.
    """
    from convlstm_jax.cli.experiment import complete, section_classes

    path = workdir / CONFIG_FILE
    try:
        values = read_json(path, object_hook=_with_tuples)
    except (ValueError, OSError) as error:
        raise UserError(f"the saved config '{path}' cannot be read: {error}") from error
    version = values.pop("version", None) if isinstance(values, dict) else None
    if version != _VERSION:
        raise UserError(
            f"the saved config '{path}' has the version {version!r}: it must be "
            f"{_VERSION}, so use the release of this program that wrote it"
        )
    try:
        complete(values, section_classes(values))
        config = ConfigDict(values)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"the saved config '{path}' must be the config of a run: {error}"
        ) from error
    config.lock()
    return config


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    # JSON has no tuples, and configs hold no lists: every list was a tuple.
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in fields.items()
    }


def check_resumes(saved: ConfigDict, config: ConfigDict, workdir: Path) -> None:
    """Checks that a run with the config `saved` may be resumed with `config`."""
    from convlstm_jax.cli.experiment import leaves, section_classes

    free = {
        f"{section}.{name}".lstrip(".")
        for section, cls in section_classes(config.to_dict()).items()
        for name in cls.model_fields
        if cls.rule(name).may_change
    }
    before, now = leaves(saved), leaves(config)
    schedule, steps, why = before.get("optimizer.schedule"), "train.num_steps", ""
    if schedule in _SCHEDULES_OVER_ALL_STEPS:
        free.discard(steps)
        if before.get(steps) != now.get(steps):
            why = f"; the schedule {schedule!r} spans all steps"
    if before.get("data.path") and now.get("data.path"):
        free.add("data.path")  # The same data may lie elsewhere, or be prepared.
    if differing := _differing(before, now, free.__contains__):
        raise UserError(
            f"--workdir={workdir} holds a run with another config, so choose another "
            f"folder or give the same config: {differing}{why}"
        )


def check_same_model(saved: ConfigDict, config: ConfigDict, workdir: Path) -> None:
    """Checks that the trained weights of a run fit the model of `config`."""
    from convlstm_jax.cli.experiment import leaves

    before, now = leaves(saved), leaves(config)

    def free(path: str) -> bool:
        if path == "task.num_members":  # An ensemble may have any number.
            return all(of.get(path, 1) > 1 for of in (before, now))
        is_of_the_model = path.startswith("model.") or path in _OF_THE_MODEL
        return not is_of_the_model or path in _FREE_OF_THE_MODEL

    if differing := _differing(before, now, free):
        raise UserError(
            f"the model trained in --workdir={workdir} cannot be changed: {differing}"
        )


def _differing(
    before: dict[str, Any], now: dict[str, Any], is_free: Callable[[str], bool]
) -> str:
    return ", ".join(
        f"config.{path} is {before.get(path)!r} there and {now.get(path)!r} here"
        for path in dict.fromkeys([*before, *now])
        if not is_free(path) and before.get(path) != now.get(path)
    )
