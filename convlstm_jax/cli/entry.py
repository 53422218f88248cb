"""`main`: parses the command line and runs the mode. Imports JAX late."""

import errno
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING

from convlstm_jax.cli import config_file, flags, missing_package, process, workdir
from convlstm_jax.cli.process import say
from convlstm_jax.errors import UserError

if TYPE_CHECKING:
    from convlstm_jax.cli.experiment import Experiment

_FOR_SEVERAL_PROCESSES = ("train", "evaluate", "describe")
# The state of a disk is never a bug of the program.
_DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO,
    errno.EISDIR, errno.ENOTDIR,
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Runs a command line, which starts with the program's name.

    User errors are printed as one sentence on stderr; any other exception is a bug and
    keeps its traceback. If one process of several fails, `main` does not return, as the
    process would wait for the others on exit.

    Returns the exit code: 0 success, 2 user error, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot print a character shows its code point.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        command = flags.parse(argv[1:])
        if command.help:
            _print_help(command)
        else:
            _run(command)
        return 0
    except (Exception, KeyboardInterrupt) as error:
        several = process.is_one_of_several()
        code = _exit_code(error, several=several)
        if not several:
            if code is None:
                raise
            return code
        if code is None:
            traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if code is None else code)


def _exit_code(error: BaseException, *, several: bool) -> int | None:
    """Prints an error as a sentence; returns the exit code, or None for a bug."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    code = 2
    if several and (reason := process.why_processes_part(error)):
        code, words = 1, (
            f"the processes of the cluster lost contact ({reason}); what was saved "
            "before is intact, and the same command resumes"
        )  # fmt: skip
    elif isinstance(error, UserError):
        words = str(error)
    elif isinstance(error, ModuleNotFoundError):
        words = missing_package(error)
    elif isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        file = f" '{error.filename}'" if error.filename else ""
        words = (
            f"the file system refuses{file} ({error.strerror}); what was saved before "
            "is intact"
        )
    elif isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        words = (
            f"the memory does not suffice ({str(error).splitlines()[0][:200]}): it "
            "takes less with a smaller config.train.batch_size, smaller frames, "
            "shorter clips or a smaller network"
        )
    else:
        return None
    print(f"error: {words}", file=sys.stderr)
    return code


def _print_help(command: flags.Command) -> None:
    print(flags.HELP, end="")
    if command.config is not None:
        process.set_up()
        from convlstm_jax.cli.describe import describe_fields

        print("\n" + "\n".join(describe_fields(config_file.load(command.config))))


def _run(command: flags.Command) -> None:
    # Quick checks come first and JAX starts last, so that a typo is reported at once.
    mode, folder = command.mode, command.workdir
    if mode == "compare":
        from convlstm_jax.cli import compare

        compare.run(command.runs)
        return
    if folder is not None and mode == "import" and workdir.holds_run(folder):
        raise UserError(
            f"--workdir={folder} holds a run: --mode=import needs a new folder"
        )
    needs_run = command.config is None or mode not in ("train", "import")
    if folder is not None and needs_run:
        needs_weights = mode in ("evaluate", "predict", "export")
        workdir.require_run(folder, checkpoints=needs_weights)
    process_index, process_count = process.set_up()
    experiment = load_experiment(command)
    if process_count > 1 and mode not in _FOR_SEVERAL_PROCESSES:
        raise UserError(f"--mode={mode} runs in one process, not in {process_count}")
    if mode not in ("prepare", "inspect"):
        process.default_backend()  # Before anything is written.
    module = "import_weights" if mode == "import" else mode
    run = importlib.import_module(f"convlstm_jax.cli.{module}").run
    with process.interruptible():
        if mode == "train":
            _train(run, command, experiment, process_index, process_count)
            return
        if mode == "describe":
            _say_note(experiment)
        _, *names = signature(run).parameters
        run(experiment, **{name: getattr(command, name) for name in names})


def load_experiment(command: flags.Command) -> "Experiment":
    """Returns the validated experiment that a command works with.

    It is the config saved in the workdir if there is one (a `--config` given as well
    must agree in what shapes the training), otherwise that of the experiment file; the
    overrides of the command line apply to either. When training is given both, fields
    that may differ take the values of the experiment file.
    """
    given = None if command.config is None else config_file.load(command.config)
    from convlstm_jax.cli.experiment import experiment

    folder, mode = command.workdir, command.mode
    if folder is None or not workdir.holds_run(folder):
        assert given is not None  # The flags and `require_run` refuse it otherwise.
        return experiment(given, command.overrides, reads_data=mode != "describe")
    saved = workdir.load_config(folder)
    if mode == "train":
        return experiment(saved if given is None else given, command.overrides)
    if given is not None:
        workdir.check_resumes(saved, given, folder)
    # The training data of a run may have moved.
    reads_data = mode not in ("predict", "describe", "export") and not command.input
    loaded = experiment(saved, command.overrides, reads_data=reads_data)
    workdir.check_same_model(saved, loaded.config, folder)
    return loaded


def _train(
    run: Callable[..., None],
    command: flags.Command,
    experiment: "Experiment",
    process_index: int,
    process_count: int,
) -> None:
    if (folder := command.workdir) is not None:
        workdir.make(folder)
    elif process_count == 1:
        path, _ = config_file.split_preset(command.config or "")
        folder = workdir.make_fresh(path.stem, experiment.general.preset)
    else:
        raise UserError(f"training in {process_count} processes needs --workdir")
    run = partial(run, experiment, workdir=folder, init_from=command.init_from)
    if process_index != 0:
        run()
        return
    with workdir.locked(folder):
        if workdir.holds_run(folder) and workdir.holds_checkpoints(folder):
            saved = workdir.load_config(folder)
            workdir.check_resumes(saved, experiment.config, folder)
        workdir.save_config(folder, experiment.config)
        say(f"workdir: {folder}")
        _say_note(experiment)
        try:
            run()
        finally:
            # Also after an interruption: it is the folder to resume in.
            say(f"workdir: {folder}")


def _say_note(experiment: "Experiment") -> None:
    if experiment.general.note:
        say(f"note: {experiment.general.note}")
