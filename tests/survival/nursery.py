"""Starts the program many times, without importing its packages each time.

Reads a JSON line for each run, `{"arguments": [...], "output": FILE, "seconds": S}`,
forks a process that runs main.py with the arguments, kills it with SIGKILL after S
seconds unless that is null, and answers with its exit status, −9 if it was killed.
JAX starts in the child alone.
"""

import json
import os
import signal
import sys
import time

from convlstm_jax.cli import compare, evaluate, prepare, train  # noqa: F401
from convlstm_jax.cli.entry import main
from convlstm_jax.viz import film_strip, plots  # noqa: F401

_POLL_SECONDS = 0.002


def _run(arguments: list[str], output: str) -> None:
    """Becomes the program."""
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = main(["main.py", *arguments])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _status(child: int, seconds: float | None) -> int:
    """The exit status of a child, killed after a time."""
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            end = None
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    for line in sys.stdin:
        wanted = json.loads(line)
        child = os.fork()
        if not child:
            try:
                _run(wanted["arguments"], wanted["output"])
            except BaseException:
                import traceback

                traceback.print_exc()
                sys.stderr.flush()
                os._exit(99)
        print(_status(child, wanted["seconds"]), flush=True)
