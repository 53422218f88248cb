"""The process: compiler flags, cache, cluster, Ctrl-C and log. Imports JAX late."""

import contextlib
import importlib.metadata
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from absl import flags
from absl import logging as absl_logging
from tqdm import tqdm

from convlstm_jax.errors import UserError
from convlstm_jax.waiting import reported_if_long

# Matrix products by Eigen instead of XLA:CPU's newer library. XLA aborts on unknown
# flags, so it is set only for the versions it was tried with (from, below).
_XLA_CPU_FLAGS = "--xla_cpu_experimental_ynn_fusion_type="
_XLA_CPU_FLAGS_JAXLIB = ((0, 10), (0, 12))

# Messages of JAX's transports and coordination service about a lost process.
_NO_ANSWER = re.compile(r"Gloo|NCCL|coordination service|UNAVAILABLE|DEADLINE_EXCEEDED")

# Programs that compile faster are not worth a file. JAX's own bound, a second, leaves
# out the parameters' first values, which each start would compile again.
CACHED_FROM_SECONDS = "0.1"

_log = logging.getLogger("convlstm_jax")


def set_up() -> tuple[int, int]:
    """Sets up this process, before JAX is used; returns its index and their number."""
    choose_xla_flags(os.environ, importlib.metadata.version("jaxlib"))
    choose_compilation_cache(os.environ)
    flags.FLAGS.mark_as_parsed()  # Grain's worker processes need it.
    # Orbax logs every step, tensorflow-datasets warns of what it then corrects.
    absl_logging.set_verbosity(absl_logging.ERROR)
    arguments = cluster_arguments(os.environ)
    if arguments is None:
        return 0, 1
    import jax

    words = "waiting for the other processes of the cluster"
    try:
        if not jax.distributed.is_initialized():
            with reported_if_long(say, words):
                jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes of the cluster cannot be joined: {_one_line(error)}"
        ) from error
    return jax.process_index(), jax.process_count()


def choose_xla_flags(environment: MutableMapping[str, str], jaxlib: str) -> None:
    """Sets `XLA_FLAGS` for fast CPU kernels, unless the user has set it."""
    first, below = _XLA_CPU_FLAGS_JAXLIB
    version = re.match(r"(\d+)\.(\d+)", jaxlib)
    if version and first <= tuple(map(int, version.groups())) < below:
        environment.setdefault("XLA_FLAGS", _XLA_CPU_FLAGS)


def choose_compilation_cache(environment: MutableMapping[str, str]) -> None:
    """Lets JAX cache programs in `~/.cache`, if that is writable.

    `JAX_COMPILATION_CACHE_DIR` of the user takes precedence.
    """
    if "JAX_COMPILATION_CACHE_DIR" in environment:
        return
    with contextlib.suppress(OSError, RuntimeError):
        folder = Path.home() / ".cache" / "convlstm_jax" / "xla"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
            threshold = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
            environment.setdefault(threshold, CACHED_FROM_SECONDS)


def cluster_arguments(environment: MutableMapping[str, str]) -> dict[str, Any] | None:
    """The arguments for `jax.distributed.initialize`, or None for a single process.

    They are empty where JAX finds them itself: Slurm steps, TPU pods, Open MPI.
    """
    if environment.get("JAX_COORDINATOR_ADDRESS"):
        count = environment.get("JAX_NUM_PROCESSES", "")
        index = environment.get("JAX_PROCESS_ID", "")
        if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
            raise UserError(
                f"with JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES ({count!r}) must be "
                f"the number of processes and JAX_PROCESS_ID ({index!r}) below it"
            )
        return {
            "coordinator_address": environment["JAX_COORDINATOR_ADDRESS"],
            "num_processes": int(count),
            "process_id": int(index),
        }
    # A batch script outside srun has the job's variables, but not those of a step.
    tasks = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    several = any(environment.get(name, "1") not in ("", "0", "1") for name in tasks)
    tpu_pod = "," in environment.get("TPU_WORKER_HOSTNAMES", "")
    return {} if several or tpu_pod else None


def is_one_of_several() -> bool:
    """Whether this process has joined others."""
    # The error may have occurred while JAX was imported.
    distributed = getattr(sys.modules.get("jax"), "distributed", None)
    return distributed is not None and distributed.is_initialized()


def why_processes_part(error: BaseException | None) -> str:
    """The part of an error, or of its causes, about processes that lost contact."""
    while error is not None:
        if _NO_ANSWER.search(str(error)):
            return _one_line(error)[:200]
        error = error.__cause__ or error.__context__
    return ""


def default_backend() -> str:
    """Starts JAX; returns the kind of its devices."""
    try:
        import jax

        return jax.default_backend()
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"JAX finds no device ({_one_line(error) or 'there is none'}): "
            f"JAX_PLATFORMS, which is {os.environ.get('JAX_PLATFORMS', '')!r}, must be "
            "unset, or name what is there, such as 'cpu'"
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turns SIGINT and SIGTERM into a `KeyboardInterrupt`, for modes to clean up.

    Signals that are ignored, as under `nohup`, stay ignored.
    """
    former_handlers = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
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
    """Shows the first process's messages and appends them to `<workdir>/log.txt`."""
    import jax

    if jax.process_index() != 0:
        yield
        return
    file = logging.FileHandler(
        workdir / "log.txt", encoding="utf-8", errors="backslashreplace"
    )
    # A full disk drops lines; a traceback for each would bury the error.
    file.handleError = lambda record: None  # type: ignore[method-assign]
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handlers: list[logging.Handler] = [_Terminal(), file]
    former_level = _log.level
    _log.setLevel(logging.INFO)
    _log.propagate = False
    for handler in handlers:
        _log.addHandler(handler)
    try:
        _log.info(
            "%d × %s, %d CPU cores; jax %s, flax %s; XLA_FLAGS=%r",
            jax.device_count(), jax.devices()[0].device_kind, os.cpu_count(),
            jax.__version__, importlib.metadata.version("flax"),
            os.environ.get("XLA_FLAGS", ""),
        )  # fmt: skip
        yield
    finally:
        for handler in handlers:
            _log.removeHandler(handler)
            handler.close()
        _log.setLevel(former_level)
        _log.propagate = True


class _Terminal(logging.Handler):
    """Messages unchanged; warnings and errors with their level."""

    def emit(self, record: logging.LogRecord) -> None:
        is_warning = record.levelno >= logging.WARNING
        level = f"{record.levelname.lower()}: " if is_warning else ""
        try:
            say(level + self.format(record))
        except Exception:
            self.handleError(record)
