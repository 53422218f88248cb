"""`main`: from the command line to the mode that does the work."""

import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

from ml_collections import ConfigDict

from convlstm_jax.cli import config_file, flags, process, saved_config, workdir
from convlstm_jax.cli.interruptible import ending_at_once, interruptible
from convlstm_jax.errors import UserError

_Value = TypeVar("_Value")
_WHERE_DATA_LIE = ("data.path", "data.digits_dir", "data.test_file")
# The state of a disk is no bug of the program's, wherever it shows.
_DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO,
    errno.EISDIR, errno.ENOTDIR,
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Runs one command line.

    Mistakes of the user are told in one sentence on stderr, without a traceback. Any
    other exception is a bug and keeps its traceback.

    Args:
      argv: the command line, the program's name first.

    Returns:
      The exit code: 0 done, 2 a mistake of the user's, 130 interrupted. One process of
      several that fails does not return: it would wait for the others at its end.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a letter shows its number.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if flags.asks_for_help(argv[1:]):
            print(flags.HELP, end="")
            return 0
        return _run(flags.parse(argv[1:]))
    except (Exception, KeyboardInterrupt) as error:
        several = process.is_one_of_several()
        code = _told(error, several=several)
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


def _told(error: BaseException, *, several: bool) -> int | None:
    """Tells an error in a sentence; returns the exit code, or None for a bug."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    reason = process.why_processes_part(error) if several else ""
    if reason:
        code, words = 1, (
            f"the processes of the cluster no longer meet ({reason}); what was saved "
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


def _run(command: flags.Command) -> int:
    # What is quick to check comes first, and JAX starts last: a typo answers at once.
    goes_on = command.config is None or command.mode not in ("train", "import")
    if command.workdir is not None and goes_on:
        needs_weights = command.mode in ("evaluate", "predict", "export")
        workdir.require_run(command.workdir, checkpoints=needs_weights)
    if command.mode == "import" and workdir.holds_run(
        _given(command.workdir, "workdir")
    ):
        raise UserError(
            f"--workdir={command.workdir} holds a run: --mode=import needs a new folder"
        )
    process_index, process_count = process.set_up()
    config = load_config(command)
    if command.mode != "prepare":
        process.default_backend()  # Before anything is made.
    with interruptible():
        _dispatch(command, config, process_index, process_count)
    return 0


def _dispatch(
    command: flags.Command, config: ConfigDict, process_index: int, process_count: int
) -> None:
    # The modes are imported late, as they import JAX.
    if command.mode == "describe":
        from convlstm_jax.cli import describe

        _tell_note(config)
        describe.run(config, workdir=command.workdir)
    elif command.mode == "train":
        _train(command, config, process_index, process_count)
    elif command.mode == "evaluate":
        from convlstm_jax.cli import evaluate

        evaluate.run(config, workdir=_given(command.workdir, "workdir"))
    elif process_count > 1:
        raise UserError(
            f"--mode={command.mode} runs in one process, not in {process_count}"
        )
    elif command.mode == "import":
        from convlstm_jax.cli import import_weights

        import_weights.run(
            config,
            source=_given(command.source, "from"),
            checkpoint=_given(command.checkpoint, "checkpoint"),
            workdir=_given(command.workdir, "workdir"),
        )
    elif command.mode == "export":
        from convlstm_jax.cli import export

        export.run(
            config,
            workdir=_given(command.workdir, "workdir"),
            output_path=_given(command.output, "output"),
            num_frames=command.num_frames,
        )
    elif command.mode == "prepare":
        from convlstm_jax.cli import prepare

        prepare.run(config, output=_given(command.output, "output"))
    else:
        from convlstm_jax.cli import predict

        predict.run(
            config,
            workdir=_given(command.workdir, "workdir"),
            input_path=_given(command.input, "input"),
            output_path=_given(command.output, "output"),
            num_frames=command.num_frames,
        )


def load_config(command: flags.Command) -> ConfigDict:
    """Returns the validated config a command works with.

    That is the config saved in the workdir if there is one (a `--config` beside it must
    agree in what shapes the training), otherwise the one of the experiment file, both
    with the overrides of the command line. Training with both takes the values of the
    experiment file where they may differ.

    Raises:
      UserError: naming all problems.
    """
    given = None if command.config is None else config_file.load(command.config)
    folder = command.workdir
    if folder is None or not workdir.holds_run(folder):
        return config_file.override(_given(given, "config"), command.overrides)
    saved = workdir.load_config(folder)
    if command.mode == "train":
        start = saved if given is None else given
        config = config_file.override(start, command.overrides)
        _check_resumes(config, folder)
        return config
    if given is not None:
        saved_config.check_resumes(saved, given, folder)
    # The data that a run learned from may be elsewhere.
    reads_no_data = command.mode in ("predict", "describe", "export")
    config = config_file.override(
        saved,
        command.overrides,
        unchecked=_WHERE_DATA_LIE if reads_no_data else (),
    )
    saved_config.check_same_model(saved, config, folder)
    return config


def _check_resumes(config: ConfigDict, folder: Path) -> None:
    """Where anything was trained: whether training may go on under a config."""
    if workdir.holds_run(folder) and workdir.holds_checkpoints(folder):
        saved_config.check_resumes(workdir.load_config(folder), config, folder)


def _train(
    command: flags.Command, config: ConfigDict, process_index: int, process_count: int
) -> None:
    folder = _train_folder(command, config, process_count)
    is_first_process = process_index == 0
    if is_first_process:
        _tell(f"workdir: {folder}")
        _tell_note(config)
    try:
        with workdir.locked(folder) if is_first_process else nullcontext():
            if is_first_process:
                # Once more, as another run may have been here in between.
                _check_resumes(config, folder)
                workdir.save_config(folder, config)
            with ending_at_once():
                from convlstm_jax.cli import train

            train.run(config, workdir=folder)
    finally:
        # Also after an interruption: it is the folder to go on in.
        if is_first_process:
            _tell(f"workdir: {folder}")


def _train_folder(
    command: flags.Command, config: ConfigDict, process_count: int
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
    return workdir.make_fresh(path.stem, config.preset)


def _given(value: _Value | None, flag: str) -> _Value:
    """Returns the value of a flag that `flags.parse` requires in this mode."""
    if value is None:
        raise UserError(f"--{flag} is missing")
    return value


def _tell_note(config: ConfigDict) -> None:
    if config.note:
        _tell(f"note: {config.note}")


def _tell(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # The reader, such as `head`, has gone; the work goes on without it. Python
        # would try once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
