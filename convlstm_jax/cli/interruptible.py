"""Ctrl-C and SIGTERM while a mode works: a `KeyboardInterrupt` that is not lost."""

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
    """Makes SIGINT and SIGTERM a `KeyboardInterrupt`, which Python cannot swallow.

    `main.py` starts with the system's own Ctrl-C, which ends the process at once: an
    exception in the midst of an import leaves a traceback, or crashes an extension
    that is being initialised. Modes write files, and so they get the exception, to
    tidy up (training goes further, see `train.interrupts`). Yet it may land in a
    destructor or a callback of the garbage collector (JAX has one), where Python tells
    `sys.unraisablehook` and goes on: then it is raised again.

    What was in force before comes back at the end of the context. In other threads
    than the main one nothing is changed, and an ignored signal stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former_hook = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs", /) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # Not here and now: what is raised in a hook is ignored as well.
            threading.Timer(_SECONDS_UNTIL_AGAIN, _thread.interrupt_main).start()
        else:
            former_hook(unraisable)

    # As nohup sets it, an ignored signal stays so.
    with _handled_by(signal.default_int_handler, lambda now: now != signal.SIG_IGN):
        sys.unraisablehook = hook
        try:
            yield
        finally:
            sys.unraisablehook = former_hook


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Within `interruptible`: the system's own Ctrl-C, while extensions are imported.

    An exception in the midst of their initialisation can crash the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handled_by(signal.SIG_DFL, lambda now: now is signal.default_int_handler):
        yield


@contextlib.contextmanager
def _handled_by(handler: Any, instead_of: Callable[[Any], bool]) -> Iterator[None]:
    """Handles SIGINT and SIGTERM so, each where `instead_of` its handler of now."""
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
