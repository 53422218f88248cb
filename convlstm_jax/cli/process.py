"""The process: compiler flags, cache, cluster, Ctrl-C and log. Imports JAX late."""

import _thread
import contextlib
import importlib.metadata
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from absl import flags
from absl import logging as absl_logging
from tqdm import tqdm

from convlstm_jax.errors import UserError

# Matrix products by Eigen instead of XLA:CPU's newer library.
_XLA_CPU_FLAGS = "--xla_cpu_experimental_ynn_fusion_type="
# XLA aborts on a flag that it does not know, and experimental flags come and go: the
# flag is set only for the versions it was tried with (from, below).
_XLA_CPU_FLAGS_JAXLIB = ((0, 10), (0, 12))

# Messages of JAX's transports and coordination service about a lost process.
_NO_ANSWER = re.compile(r"Gloo|NCCL|coordination service|UNAVAILABLE|DEADLINE_EXCEEDED")

# Programs that compile faster are not worth a file. JAX's own bound, a second, leaves
# out the parameters' first values, which each start would compile again.
CACHED_FROM_SECONDS = "0.1"

_log = logging.getLogger("convlstm_jax")


def set_up() -> tuple[int, int]:
    """Sets up this process; JAX must not have been used before.

    Returns the index of this process and the number of processes.

    Raises:
        UserError: the variables of a cluster are wrong, or joining it fails.
    """
    choose_xla_flags(os.environ, importlib.metadata.version("jaxlib"))
    choose_compilation_cache(os.environ)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's worker processes need it.
    # Orbax logs every step, tensorflow-datasets warns of what it then corrects.
    absl_logging.set_verbosity(absl_logging.ERROR)
    arguments = cluster_arguments(os.environ)
    if arguments is None:
        return 0, 1
    import jax

    try:
        if not jax.distributed.is_initialized():
            jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes of the cluster cannot be joined: {_one_line(error)}"
        ) from error
    return jax.process_index(), jax.process_count()


def choose_xla_flags(
    environment: MutableMapping[str, str], jaxlib_version: str
) -> None:
    """Sets `XLA_FLAGS` for fast CPU kernels, unless the user has set it."""
    first, below = _XLA_CPU_FLAGS_JAXLIB
    version = re.match(r"(\d+)\.(\d+)", jaxlib_version)
    if version and first <= tuple(map(int, version.groups())) < below:
        environment.setdefault("XLA_FLAGS", _XLA_CPU_FLAGS)


def choose_compilation_cache(environment: MutableMapping[str, str]) -> None:
    """Lets JAX cache programs that take `CACHED_FROM_SECONDS` or more to compile.

    The folder is `~/.cache/convlstm_jax/xla`, unless the user has set
    `JAX_COMPILATION_CACHE_DIR`. Without a writable home there is no cache.
    """
    if "JAX_COMPILATION_CACHE_DIR" in environment:
        return
    try:
        folder = Path.home() / ".cache" / "convlstm_jax" / "xla"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return
    if os.access(folder, os.W_OK):
        environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        environment.setdefault(
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", CACHED_FROM_SECONDS
        )


def cluster_arguments(environment: MutableMapping[str, str]) -> dict[str, Any] | None:
    """Finds out from the environment whether this is one process of several.

    Returns the arguments for `jax.distributed.initialize` (empty where JAX finds them
    itself: Slurm steps, TPU pods, Open MPI), or None for a single process.

    Raises:
        UserError: `JAX_COORDINATOR_ADDRESS` is set without a proper
            `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.
    """

    def number(name: str) -> int:
        text = environment.get(name, "")
        return int(text) if text.isdecimal() else 0

    if environment.get("JAX_COORDINATOR_ADDRESS"):
        count = environment.get("JAX_NUM_PROCESSES", "")
        index = environment.get("JAX_PROCESS_ID", "")
        if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
            raise UserError(
                f"with JAX_COORDINATOR_ADDRESS set, JAX_NUM_PROCESSES ({count!r}) and "
                f"JAX_PROCESS_ID ({index!r}) must be the number of processes and the "
                "index of this one, from 0"
            )
        return {
            "coordinator_address": environment["JAX_COORDINATOR_ADDRESS"],
            "num_processes": int(count),
            "process_id": int(index),
        }
    # A batch script outside srun has the job's variables, but not those of a step.
    slurm_step = "SLURM_STEP_NODELIST" in environment
    slurm = slurm_step and number("SLURM_STEP_NUM_TASKS") > 1
    open_mpi = number("OMPI_COMM_WORLD_SIZE") > 1
    tpu_pod = "," in environment.get("TPU_WORKER_HOSTNAMES", "")
    return {} if slurm or open_mpi or tpu_pod else None


def is_one_of_several() -> bool:
    """Whether this process has joined others."""
    # The error may have occurred while JAX was imported.
    distributed = getattr(sys.modules.get("jax"), "distributed", None)
    return distributed is not None and distributed.is_initialized()


def why_processes_part(error: BaseException | None) -> str:
    """The part of an error about processes that lost contact, or "".

    It may be the cause of another error, such as a checkpoint that was not saved.
    """
    while error is not None:
        if _NO_ANSWER.search(str(error)):
            return _one_line(error)[:200]
        error = error.__cause__ or error.__context__
    return ""


def default_backend() -> str:
    """Starts JAX; returns the kind of its devices.

    Raises:
        UserError: JAX finds no device of the requested kind.
    """
    try:
        import jax

        return jax.default_backend()
    except (AssertionError, RuntimeError, ValueError) as error:
        asked = ", ".join(
            f"{name}={value!r}"
            for name, value in os.environ.items()
            if name in ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES")
        )
        raise UserError(
            f"JAX finds no device ({_one_line(error) or 'there is none'}) with "
            f"{asked or 'this environment'}: JAX_PLATFORMS must be unset, or name what "
            "is there, such as 'cpu'"
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turns SIGINT and SIGTERM into a `KeyboardInterrupt` that Python cannot swallow.

    `main.py` starts with the system's default handlers, as an exception in the middle
    of an import leaves a traceback or crashes an extension. Modes write files, so they
    get the exception, to clean up (training does more, see `training.interrupts`). If
    it is raised in a destructor or a callback of the garbage collector, Python only
    calls `sys.unraisablehook` and continues; it is then raised again.

    Signals that are ignored, as under `nohup`, stay ignored, and other threads than the
    main one are not affected.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former_hook = sys.unraisablehook
    main_thread = threading.get_ident()

    def hook(unraisable: "sys.UnraisableHookArgs", /) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            _thread.start_new_thread(again, ())
        else:
            former_hook(unraisable)

    def again() -> None:
        # Once the hook has ended: an exception raised in it is ignored as well.
        def in_hook() -> bool:
            stack = traceback.walk_stack(sys._current_frames()[main_thread])
            return any(frame.f_code is hook.__code__ for frame, _ in stack)

        while in_hook():
            time.sleep(0.01)
        _thread.interrupt_main()

    former_handlers = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) != signal.SIG_IGN
    }
    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = former_hook
        for number, handler in former_handlers.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(number, handler or signal.SIG_DFL)


def say(line: str) -> None:
    """Prints a line, above a progress bar if there is one."""
    try:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has gone; the work goes on without it. Python
        # would try once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def logging_to(workdir: Path) -> Iterator[None]:
    """Shows the package's messages and appends them to `<workdir>/log.txt`.

    Only the first of several processes does so. Each session in the file begins with
    versions, devices and compiler flags.
    """
    import jax

    if jax.process_index() != 0:
        yield
        return
    file = _LogFile(workdir / "log.txt", encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handlers: list[logging.Handler] = [_Terminal(), file]
    former_level, former_propagate = _log.level, _log.propagate
    _log.setLevel(logging.INFO)
    _log.propagate = False
    for handler in handlers:
        _log.addHandler(handler)
    try:
        versions = (
            f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax")
        )
        _log.info(
            "%d × %s, %d CPU cores; %s; XLA_FLAGS=%r",
            jax.device_count(), jax.devices()[0].device_kind, os.cpu_count(),
            ", ".join(versions), os.environ.get("XLA_FLAGS", ""),
        )  # fmt: skip
        yield
    finally:
        for handler in handlers:
            _log.removeHandler(handler)
            handler.close()
        _log.setLevel(former_level)
        _log.propagate = former_propagate


class _LogFile(logging.FileHandler):
    """A file that silently drops lines when the disk is full.

    The terminal shows them anyway, and a traceback for each would bury the error.
    """

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class _Terminal(logging.Handler):
    """Messages unchanged; warnings and errors with their level."""

    def emit(self, record: logging.LogRecord) -> None:
        is_warning = record.levelno >= logging.WARNING
        level = f"{record.levelname.lower()}: " if is_warning else ""
        try:
            say(level + self.format(record))
        except Exception:
            self.handleError(record)
