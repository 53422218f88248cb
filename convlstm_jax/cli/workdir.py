"""The folder of a run: finding, creating and locking it, and the config saved there."""

import contextlib
import datetime
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError

CONFIG_FILE = "config.json"
CHECKPOINT_FOLDER = "checkpoints"

# Raised when a field changes its meaning; new fields and renamed ones need no number.
_VERSION = 1
# These schedules span all steps: another number changes the whole curve.
_SCHEDULES_OVER_ALL_STEPS = ("cosine", "one_cycle")
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


def require_run(workdir: Path, *, checkpoints: bool) -> None:
    """Checks that a folder holds a run, and a checkpoint if one is needed.

    Raises:
        UserError: naming what is missing.
    """
    if not os.path.exists(workdir):
        problem = "does not exist: it must be the folder of a run"
    elif not os.path.isdir(workdir):
        problem = "is a file: it must be a folder"
    elif not holds_run(workdir):
        problem = (
            f"holds no {CONFIG_FILE}: it must be the folder of a run, which "
            "--mode=train writes"
        )
    elif checkpoints and not holds_checkpoints(workdir):
        problem = (
            f"holds no checkpoint under {CHECKPOINT_FOLDER}/: train there first, with "
            "--mode=train"
        )
    else:
        return
    raise UserError(f"--workdir={workdir} {problem}")


def make_fresh(config_name: str, preset: str) -> Path:
    """Creates a folder for a new run, `runs/<config>-<preset>-<date>-<time>`.

    Raises:
        UserError: it cannot be created.
    """
    started = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = "-".join(part for part in (config_name, preset, started) if part)
    workdir, attempt = Path("runs", name), 1
    while True:
        try:
            workdir.mkdir(parents=True)
            return workdir
        except FileExistsError:  # Two runs started in the same second.
            attempt += 1
            workdir = Path("runs", f"{name}-{attempt}")
        except OSError as error:
            raise UserError(
                f"the folder '{workdir}' for a new run cannot be made "
                f"({error.strerror}): choose another with --workdir"
            ) from error


def make(workdir: Path) -> None:
    """Creates the folder given with `--workdir` if needed, and tries to write to it.

    Raises:
        UserError: it is a file, cannot be written to, or holds checkpoints without a
            config.
    """
    if os.path.exists(workdir) and not os.path.isdir(workdir):
        raise UserError(f"--workdir={workdir} is a file: it must be a folder")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise UserError(
            f"--workdir={workdir} cannot be written to ({error.strerror}): it must be "
            "a folder of yours"
        ) from error
    if not holds_run(workdir) and holds_checkpoints(workdir):
        raise UserError(
            f"--workdir={workdir} holds checkpoints but no {CONFIG_FILE}: choose "
            "another folder, as it is unknown what was trained there"
        )


@contextlib.contextmanager
def locked(
    workdir: Path, *, work: str = "training", flag: str = "workdir"
) -> Iterator[None]:
    """Locks a folder against a second process; the lock ends with the process.

    `work`, done there, and `flag`, which names the folder, are for the message.

    Raises:
        UserError: another process has the folder.
    """
    with (workdir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another {work} is running in --{flag}={workdir}: wait for it, or "
                "choose another folder"
            ) from None
        except OSError:
            pass  # Some network file systems have no locks.
        yield


def save_config(workdir: Path, config: ConfigDict) -> None:
    """Writes the config into the folder of a run."""
    content = {"version": _VERSION, **config.to_dict()}
    with atomic_file(workdir / CONFIG_FILE) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_config(workdir: Path) -> tuple[ConfigDict, list[str]]:
    """Reads the locked config that `save_config` wrote, not validated.

    Also returns the fields that a later version added, which have their defaults.

    Raises:
        UserError: the file is no JSON object, or has another version.
    """
    from convlstm_jax.cli.experiment import complete, section_classes

    path = workdir / CONFIG_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_hook=_with_tuples)
    except (ValueError, OSError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"the saved config '{path}' cannot be read: {reason}"
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"the saved config '{path}' must be a JSON object")
    version = values.pop("version", None)
    if version != _VERSION:
        raise UserError(
            f"the saved config '{path}' has the version {version!r}: it must be "
            f"{_VERSION}, so use the release of this program that wrote it, or train "
            "again in another folder"
        )
    try:
        added = complete(values, section_classes(values))
        config = ConfigDict(values)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"the saved config '{path}' must be the config of a run: {error}"
        ) from error
    config.lock()
    return config, added


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples, and configs hold no lists: every list was a tuple."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in fields.items()
    }


def check_resumes(saved: ConfigDict, config: ConfigDict, workdir: Path) -> None:
    """Checks that a run with the config `saved` may be resumed with `config`.

    Raises:
        UserError: naming every differing field that shapes the training, with both
            values.
    """
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
    if differing := _differing(before, now, lambda path: path not in free):
        raise UserError(
            f"--workdir={workdir} holds a run with another config, so choose another "
            f"folder or give the same config: {differing}{why}"
        )


def check_same_model(saved: ConfigDict, config: ConfigDict, workdir: Path) -> None:
    """Checks that the trained weights of a run fit the model of `config`.

    Raises:
        UserError: naming every differing field of the model with both values.
    """
    from convlstm_jax.cli.experiment import leaves

    def shapes_the_model(path: str) -> bool:
        # The task, too, says which decoders an autoencoder has.
        is_of_the_model = path.startswith("model.") or path == "task.name"
        return is_of_the_model and path not in _FREE_OF_THE_MODEL

    if differing := _differing(leaves(saved), leaves(config), shapes_the_model):
        raise UserError(
            f"the model trained in --workdir={workdir} cannot be changed: {differing}"
        )


def _differing(
    before: dict[str, Any], now: dict[str, Any], counts: Callable[[str], bool]
) -> str:
    return ", ".join(
        f"config.{path} is {before.get(path)!r} there and {now.get(path)!r} here"
        for path in dict.fromkeys([*before, *now])
        if counts(path) and before.get(path) != now.get(path)
    )
