"""Turns Ctrl-C and SIGTERM into a `KeyboardInterrupt` that is never lost."""

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_SECONDS_UNTIL_AGAIN = 0.02


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turns SIGINT and SIGTERM into a `KeyboardInterrupt` that Python cannot swallow.

    `main.py` starts with the system's default handlers, which end the process at once:
    an exception in the middle of an import leaves a traceback, or crashes an extension
    that is being initialised. Modes write files, so they get the exception, to clean up
    (training does more, see `training.loop`). If it is raised in a destructor or
    in a callback of the garbage collector (JAX has one), Python only calls
    `sys.unraisablehook` and continues; it is then raised again.

    The previous handlers are restored at the end of the context. Other threads than the
    main one are not affected, and an ignored signal stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former_hook = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs", /) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # Not here: an exception raised in a hook is ignored as well.
            threading.Timer(_SECONDS_UNTIL_AGAIN, _thread.interrupt_main).start()
        else:
            former_hook(unraisable)

    # A signal that nohup ignores stays ignored.
    with _handled_by(signal.default_int_handler, lambda now: now != signal.SIG_IGN):
        sys.unraisablehook = hook
        try:
            yield
        finally:
            sys.unraisablehook = former_hook


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Within `interruptible`: the default handlers, while extensions are imported.

    An exception in the middle of their initialisation can crash the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handled_by(signal.SIG_DFL, lambda now: now is signal.default_int_handler):
        yield


@contextlib.contextmanager
def _handled_by(handler: Any, instead_of: Callable[[Any], bool]) -> Iterator[None]:
    """Installs a handler for SIGINT and SIGTERM in place of `instead_of`."""
    former_handlers = {
        number: signal.signal(number, handler)
        for number in (signal.SIGINT, signal.SIGTERM)
        if instead_of(signal.getsignal(number))
    }
    try:
        yield
    finally:
        for number, former in former_handlers.items():
            # None stands for a handler that was not installed from Python.
            signal.signal(number, former or signal.SIG_DFL)
