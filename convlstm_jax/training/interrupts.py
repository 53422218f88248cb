"""Ctrl-C and SIGTERM end a run after its step, not in the middle of it."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType


@dataclasses.dataclass
class Interrupts:
    """What the signals have asked for so far.

    Attributes:
      requested: whether a signal has asked the run to end.
      signal_name: the name of that signal, such as "SIGTERM"; empty before it.
    """

    requested: bool = False
    signal_name: str = ""


@contextlib.contextmanager
def graceful_interrupts() -> Iterator[Interrupts]:
    """Turns the first SIGINT or SIGTERM into a flag that the training loop reads.

    The first signal (Ctrl-C, or a cluster's scheduler taking the machine back) sets
    `requested` and prints one line; the loop then finishes its step, saves and
    returns. A second signal raises `KeyboardInterrupt` at once. The former handlers
    come back at the end of the context. Python allows signal handlers in the main
    thread alone, so in any other thread the flag merely stays unset.

    Yields:
      The flag, updated in place.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupts.requested:
            raise KeyboardInterrupt
        interrupts.requested = True
        interrupts.signal_name = signal.Signals(number).name
        # A signal may land inside another print to the same stream, which Python
        # refuses as a re-entrant call: the flag matters more than the line.
        with contextlib.suppress(RuntimeError):
            print(
                "Interrupted: finishing the step and saving; "
                "press Ctrl-C again to stop at once",
                file=sys.stderr,
                flush=True,
            )

    former = {
        number: signal.signal(number, handle)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield interrupts
    finally:
        for number, handler in former.items():
            # None stands for a handler that was not installed from Python, which
            # cannot be put back; the default is the closest to it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
