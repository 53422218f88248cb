"""The folder of a run: finding or making it, and the config kept in it."""

import contextlib
import datetime
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from convlstm_jax.atomic_file import atomic_file
from convlstm_jax.errors import UserError

CONFIG_FILE = "config.json"
CHECKPOINT_FOLDER = "checkpoints"
RUNS_FOLDER = "runs"


def holds_run(workdir: Path) -> bool:
    """Whether a training wrote its config into the folder."""
    # Of os.path, as Path.is_file raises where a folder may not be read.
    return os.path.isfile(workdir / CONFIG_FILE)


def holds_checkpoints(workdir: Path) -> bool:
    """Whether anything was trained in the folder."""
    folder = workdir / CHECKPOINT_FOLDER
    return folder.is_dir() and any(folder.iterdir())


def require_run(workdir: Path, *, checkpoints: bool) -> None:
    """Checks that a folder holds a run.

    Args:
      workdir: the folder given with `--workdir`.
      checkpoints: whether a checkpoint is needed too.

    Raises:
      UserError: naming what is missing.
    """
    if not os.path.exists(workdir):
        raise UserError(
            f"--workdir={workdir} does not exist: it must be the folder of a run"
        )
    if not os.path.isdir(workdir):
        raise UserError(f"--workdir={workdir} is a file: it must be a folder")
    if not holds_run(workdir):
        raise UserError(
            f"--workdir={workdir} holds no {CONFIG_FILE}: it must be the folder of a "
            "run, which --mode=train writes"
        )
    if checkpoints and not holds_checkpoints(workdir):
        raise UserError(
            f"--workdir={workdir} holds no checkpoint under {CHECKPOINT_FOLDER}/: "
            "train there first, with --mode=train"
        )


def make_fresh(config_name: str, preset: str, *, parent: Path | None = None) -> Path:
    """Makes a folder for a new run, `runs/<config>-<preset>-<date>-<time>`.

    Args:
      config_name: name of the experiment file without its ending.
      preset: name of the preset, or "".
      parent: the folder to make it in; `runs` in the current folder by default.

    Raises:
      UserError: if it cannot be made.
    """
    parent = Path(RUNS_FOLDER) if parent is None else parent
    started = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    name = "-".join(part for part in (config_name, preset, started) if part)
    attempt = 1
    while True:
        workdir = parent / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            workdir.mkdir(parents=True)
            return workdir
        except FileExistsError:
            if not workdir.is_dir():
                raise UserError(
                    f"the folder '{workdir}' for a new run cannot be made: a file is "
                    "in the way, so choose another folder with --workdir"
                ) from None
            attempt += 1  # Two runs that started in the same second.
        except OSError as error:
            raise UserError(
                f"the folder '{workdir}' for a new run cannot be made "
                f"({error.strerror}): choose another with --workdir"
            ) from error


def make(workdir: Path) -> None:
    """Makes the folder given with `--workdir` unless it is there, and tries to write.

    Raises:
      UserError: if it is a file, cannot be written to, or holds checkpoints of which
        nobody knows the config.
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
    folder = workdir / CHECKPOINT_FOLDER
    if os.path.exists(folder) and not folder.is_dir():
        raise UserError(
            f"--workdir={workdir} has a file where the folder {CHECKPOINT_FOLDER}/ "
            "must be: remove it, or choose another folder"
        )
    if not holds_run(workdir) and holds_checkpoints(workdir):
        raise UserError(
            f"--workdir={workdir} holds checkpoints but no {CONFIG_FILE}: choose "
            "another folder, as nobody can tell what was trained there"
        )


@contextlib.contextmanager
def locked(
    workdir: Path, *, work: str = "training", flag: str = "workdir"
) -> Iterator[None]:
    """Keeps a second training out of a folder; the lock goes with the process.

    Args:
      workdir: the folder.
      work: what is done there.
      flag: the flag that names the folder.

    Raises:
      UserError: another training has the folder.
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
    """Writes the config into the folder, whole or not at all."""
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    with atomic_file(workdir / CONFIG_FILE) as partial:
        partial.write_text(text, encoding="utf-8")


def load_config(workdir: Path) -> ConfigDict:
    """Reads the config that `save_config` wrote; tuples are tuples again.

    Returns:
      The locked config, not validated (the file may have been edited by hand).

    Raises:
      UserError: if the file is no JSON object.
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
    try:
        config = ConfigDict(_with_tuples(loaded))
    except ValueError as error:  # A name that no field can have, such as "a.b".
        raise UserError(f"the saved config '{path}' is none: {error}") from error
    config.lock()
    return config


def _with_tuples(value: Any) -> Any:
    """JSON has no tuples, and configs hold no lists: every list was a tuple."""
    if isinstance(value, dict):
        return {name: _with_tuples(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return tuple(_with_tuples(entry) for entry in value)
    return value
