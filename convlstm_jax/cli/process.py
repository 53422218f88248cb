"""Sets up the process before JAX starts: compiler flags, cache, cluster, loggers."""

import importlib.metadata
import os
import re
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from absl import flags
from absl import logging as absl_logging

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


def choose_xla_flags(
    environment: MutableMapping[str, str], jaxlib_version: str
) -> None:
    """Sets `XLA_FLAGS` for fast CPU kernels, unless the user has set it.

    Args:
        environment: the environment variables; changed in place.
        jaxlib_version: the installed version, such as `0.10.2`.
    """
    first, below = _XLA_CPU_FLAGS_JAXLIB
    major_minor = jaxlib_version.split(".")[:2]
    if "XLA_FLAGS" in environment or not all(n.isdecimal() for n in major_minor):
        return
    if first <= tuple(int(number) for number in major_minor) < below:
        environment["XLA_FLAGS"] = _XLA_CPU_FLAGS


def choose_compilation_cache(environment: MutableMapping[str, str]) -> None:
    """Lets JAX cache programs that take `CACHED_FROM_SECONDS` or more to compile.

    The folder is `~/.cache/convlstm_jax/xla`, unless the user has set
    `JAX_COMPILATION_CACHE_DIR`. Without a writable home there is no cache.

    Args:
        environment: the environment variables; changed in place.
    """
    if "JAX_COMPILATION_CACHE_DIR" in environment:
        return
    try:
        folder = Path.home() / ".cache" / "convlstm_jax" / "xla"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return
    if not os.access(folder, os.W_OK):
        return
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    environment.setdefault(
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", CACHED_FROM_SECONDS
    )


def cluster_arguments(
    environment: MutableMapping[str, str],
) -> dict[str, Any] | None:
    """Finds out from the environment whether this is one process of several.

    Returns:
        The arguments for `jax.distributed.initialize` (empty where JAX finds them
        itself: Slurm steps, TPU pods, Open MPI), or None for a single process.

    Raises:
        UserError: if `JAX_COORDINATOR_ADDRESS` is set without a proper
            `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.
    """
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
    slurm = slurm_step and _number(environment, "SLURM_STEP_NUM_TASKS") > 1
    open_mpi = _number(environment, "OMPI_COMM_WORLD_SIZE") > 1
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
            return " ".join(str(error).split())[:200]
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
        reason = " ".join(str(error).split()) or "there is none"
        asked = ", ".join(
            f"{name}={value!r}"
            for name, value in os.environ.items()
            if name in ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES")
        )
        raise UserError(
            f"JAX finds no device ({reason}) with {asked or 'this environment'}: "
            "JAX_PLATFORMS must be unset, or name what is there, such as 'cpu'"
        ) from error


def _number(environment: MutableMapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else 0


def set_up() -> tuple[int, int]:
    """Sets up this process; JAX must not have been used before.

    Returns:
        The index of this process and the number of processes.

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
        reason = " ".join(str(error).split())
        raise UserError(
            f"the processes of the cluster cannot be joined: {reason}"
        ) from (error)
    return jax.process_index(), jax.process_count()
