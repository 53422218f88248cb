"""Where messages go: the terminal, and `log.txt` in the workdir."""

import importlib.metadata
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from tqdm.contrib.logging import logging_redirect_tqdm

_log = logging.getLogger("convlstm_jax")


@contextmanager
def logging_to(workdir: Path) -> Iterator[None]:
    """Shows the package's messages and appends them to `<workdir>/log.txt`.

    Only the first of several processes does so. Each session in the file begins with
    versions, devices and compiler flags.
    """
    if jax.process_index() != 0:
        yield
        return
    terminal = _Terminal(sys.stdout)
    terminal.setFormatter(_WarningsMarked("%(message)s"))
    file = _LogFile(workdir / "log.txt", encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handlers: list[logging.Handler] = [terminal, file]
    former_level, former_propagate = _log.level, _log.propagate
    _log.setLevel(logging.INFO)
    _log.propagate = False
    for handler in handlers:
        _log.addHandler(handler)
    try:
        _log.info(_machine())
        with logging_redirect_tqdm([_log]):
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


class _Terminal(logging.StreamHandler):
    """A terminal, or a pipe whose reader (`head`, say) may go away."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


class _WarningsMarked(logging.Formatter):
    """Messages unchanged; warnings and errors with their level."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno >= logging.WARNING:
            return f"{record.levelname.lower()}: {text}"
        return text


def _machine() -> str:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax")
    )
    device = jax.devices()[0]
    return (
        f"{jax.device_count()} × {device.device_kind}, {os.cpu_count()} CPU cores; "
        f"{versions}; XLA_FLAGS={os.environ.get('XLA_FLAGS', '')!r}"
    )
