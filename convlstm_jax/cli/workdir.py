"""The folder of a run: finding, creating and locking it."""

import contextlib
import datetime
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

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
    """Creates a folder for a new run, `runs/<config>-<preset>-<date>-<time>`.

    Args:
        config_name: name of the experiment file without its ending.
        preset: name of the preset, or "".
        parent: the folder to make it in; `runs` in the current folder by default.

    Raises:
        UserError: it cannot be created.
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
    folder = workdir / CHECKPOINT_FOLDER
    if os.path.exists(folder) and not folder.is_dir():
        raise UserError(
            f"--workdir={workdir} has a file where the folder {CHECKPOINT_FOLDER}/ "
            "must be: remove it, or choose another folder"
        )
    if not holds_run(workdir) and holds_checkpoints(workdir):
        raise UserError(
            f"--workdir={workdir} holds checkpoints but no {CONFIG_FILE}: choose "
            "another folder, as it is unknown what was trained there"
        )


@contextlib.contextmanager
def locked(
    workdir: Path, *, work: str = "training", flag: str = "workdir"
) -> Iterator[None]:
    """Locks a folder against a second training; the lock ends with the process.

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
