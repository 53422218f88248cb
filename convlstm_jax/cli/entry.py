"""`main`: parses the command line and runs the mode."""

import errno
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from convlstm_jax.cli import config_file, flags, process, workdir
from convlstm_jax.cli.interruptible import ending_at_once, interruptible
from convlstm_jax.config import raise_problems
from convlstm_jax.errors import UserError

if TYPE_CHECKING:
    from convlstm_jax.cli.experiment import Experiment  # It imports JAX.

_Value = TypeVar("_Value")
# The arguments of each mode, besides the experiment.
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "describe": (),
    "evaluate": ("workdir",),
    "predict": ("workdir", "input", "output", "num_frames"),
    "import": ("source", "checkpoint", "workdir"),
    "export": ("workdir", "output", "num_frames"),
    "prepare": ("output",),
    "inspect": ("input", "output"),
}
# The state of a disk is never a bug of the program.
_DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO,
    errno.EISDIR, errno.ENOTDIR,
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Runs one command line.

    User errors are printed as one sentence on stderr, without a traceback. Any other
    exception is a bug and keeps its traceback.

    Args:
        argv: The command line, starting with the program's name.

    Returns:
        The exit code: 0 success, 2 user error, 130 interrupted. If one process of
        several fails, it does not return, as it would wait for the others on exit.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot print a character shows its code point.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        command, problems = flags.read(argv[1:])
        if flags.asks_for_help(argv[1:]):
            _print_help(command)
            return 0
        if problems:
            raise_problems([*problems, *_field_problems(command)], flags.HEADER)
        return _run(command)
    except (Exception, KeyboardInterrupt) as error:
        several = process.is_one_of_several()
        code = _exit_code(error, several=several)
        if code is None and not several:
            raise
        if code is None:
            traceback.print_exc()
            code = 1
    if several:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _exit_code(error: BaseException, *, several: bool) -> int | None:
    """Prints an error as a sentence; returns the exit code, or None for a bug."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    reason = process.why_processes_part(error) if several else ""
    if reason:
        code, words = 1, (
            f"the processes of the cluster lost contact ({reason}); what was saved "
            "before is intact, and the same command resumes"
        )  # fmt: skip
    elif isinstance(error, UserError):
        code, words = 2, str(error)
    elif isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        file = f" '{error.filename}'" if error.filename else ""
        code, words = 2, (
            f"the file system refuses{file} ({error.strerror}); what was saved before "
            "is intact"
        )  # fmt: skip
    else:
        return None
    print(f"error: {words}", file=sys.stderr)
    return code


def _print_help(command: flags.Command) -> None:
    print(flags.HELP, end="")
    if command.config is not None:
        process.set_up()
        from convlstm_jax.cli.experiment import describe_fields

        print()
        for line in describe_fields(config_file.load(command.config)):
            print(line)


def _field_problems(command: flags.Command) -> list[str]:
    """The problems of fields, when the flags have problems too."""
    if command.config is None or not command.overrides:
        return []
    process.set_up()
    from convlstm_jax.cli.experiment import update

    try:
        values = config_file.load(command.config).to_dict()
    except UserError as error:
        return [str(error)]
    return update(values, command.overrides, from_text=True)[1]


def _run(command: flags.Command) -> int:
    # Quick checks come first and JAX starts last, so that a typo is reported at once.
    needs_run = command.config is None or command.mode not in ("train", "import")
    if command.workdir is not None and needs_run:
        needs_weights = command.mode in ("evaluate", "predict", "export")
        workdir.require_run(command.workdir, checkpoints=needs_weights)
    if command.mode == "import" and workdir.holds_run(
        _given(command.workdir, "workdir")
    ):
        raise UserError(
            f"--workdir={command.workdir} holds a run: --mode=import needs a new folder"
        )
    process_index, process_count = process.set_up()
    loaded = load_experiment(command)
    if command.mode not in ("prepare", "inspect"):
        process.default_backend()  # Before anything is written.
    with interruptible():
        _dispatch(command, loaded, process_index, process_count)
    return 0


def _dispatch(
    command: flags.Command,
    experiment: "Experiment",
    process_index: int,
    process_count: int,
) -> None:
    # The modes are imported late, as they import JAX.
    if command.mode == "train":
        _train(command, experiment, process_index, process_count)
        return
    alone = ("predict", "import", "export", "prepare", "inspect")
    if process_count > 1 and command.mode in alone:
        raise UserError(
            f"--mode={command.mode} runs in one process, not in {process_count}"
        )
    if command.mode == "describe":
        _print_note(experiment)
    arguments: dict[str, Any] = {
        name: getattr(command, name) for name in _ARGUMENTS[command.mode]
    }
    module = "import_weights" if command.mode == "import" else command.mode
    with ending_at_once():
        mode = importlib.import_module(f"convlstm_jax.cli.{module}")
    mode.run(experiment, **arguments)


def load_experiment(command: flags.Command) -> "Experiment":
    """Returns the validated experiment that a command works with.

    It is the config saved in the workdir if there is one (a `--config` given as well
    must agree in what shapes the training), otherwise that of the experiment file; the
    overrides of the command line apply to either. When training is given both, fields
    that may differ take the values of the experiment file.

    Raises:
        UserError: naming all problems.
    """
    from convlstm_jax.cli import saved_config
    from convlstm_jax.cli.experiment import experiment

    given = None if command.config is None else config_file.load(command.config)
    folder = command.workdir
    if folder is None or not workdir.holds_run(folder):
        reads_data = command.mode != "describe"
        config = _given(given, "config")
        return experiment(config, command.overrides, reads_data=reads_data)
    saved, added = saved_config.load_config(folder)
    for path in added:
        _print(f"note: {folder} was trained without config.{path}: its default is used")
    if command.mode == "train":
        loaded = experiment(saved if given is None else given, command.overrides)
        _check_resumes(loaded, folder)
        return loaded
    if given is not None:
        saved_config.check_resumes(saved, given, folder)
    # The training data of a run may have moved.
    reads_data = command.mode not in ("predict", "describe", "export")
    loaded = experiment(saved, command.overrides, reads_data=reads_data)
    saved_config.check_same_model(saved, loaded.config, folder)
    return loaded


def _check_resumes(experiment: "Experiment", folder: Path) -> None:
    """Checks that a run, if anything was trained, may be resumed with a config."""
    from convlstm_jax.cli import saved_config

    if workdir.holds_run(folder) and workdir.holds_checkpoints(folder):
        saved, _ = saved_config.load_config(folder)
        saved_config.check_resumes(saved, experiment.config, folder)


def _train(
    command: flags.Command,
    experiment: "Experiment",
    process_index: int,
    process_count: int,
) -> None:
    from convlstm_jax.cli import saved_config

    folder = _train_folder(command, experiment, process_count)
    is_first_process = process_index == 0
    if is_first_process:
        _print(f"workdir: {folder}")
        _print_note(experiment)
    try:
        with workdir.locked(folder) if is_first_process else nullcontext():
            if is_first_process:
                # Again, as another run may have started in between.
                _check_resumes(experiment, folder)
                saved_config.save_config(folder, experiment.config)
            with ending_at_once():
                from convlstm_jax.cli import train

            train.run(experiment, workdir=folder)
    finally:
        # Also after an interruption: it is the folder to resume in.
        if is_first_process:
            _print(f"workdir: {folder}")


def _train_folder(
    command: flags.Command, experiment: "Experiment", process_count: int
) -> Path:
    if command.workdir is not None:
        workdir.make(command.workdir)
        return command.workdir
    if process_count > 1:
        raise UserError(
            f"training in {process_count} processes needs --workdir, a folder that all "
            "of them share"
        )
    path, _ = config_file.split_preset(_given(command.config, "config"))
    return workdir.make_fresh(path.stem, experiment.general.preset)


def _given(value: _Value | None, flag: str) -> _Value:
    """Returns the value of a flag that `flags.parse` requires in this mode."""
    if value is None:
        raise UserError(f"--{flag} is missing")
    return value


def _print_note(experiment: "Experiment") -> None:
    if experiment.general.note:
        _print(f"note: {experiment.general.note}")


def _print(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # The reader, such as `head`, has gone; the work goes on without it. Python
        # would try once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
