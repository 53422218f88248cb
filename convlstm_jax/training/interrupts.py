"""Ctrl-C and SIGTERM end a run after the current step."""

import contextlib
import dataclasses
import signal
import sys
import threading
from collections.abc import Iterator


@dataclasses.dataclass
class Interrupts:
    """Whether a signal has asked the run to end."""

    requested: bool = False


@contextlib.contextmanager
def graceful_interrupts() -> Iterator[Interrupts]:
    """Turns the first SIGINT or SIGTERM into a flag that the training loop reads.

    The first signal (Ctrl-C, or preemption by a scheduler) sets `requested` and prints
    one line; the loop then finishes its step, saves and returns. A second signal raises
    `KeyboardInterrupt` at once. The previous handlers are restored at the end of the
    context. Outside the main thread, where Python allows no signal handlers, the flag
    stays unset.

    Yields:
        The flag, updated in place.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return

    def handle(number: int, frame: object) -> None:
        if interrupts.requested:
            raise KeyboardInterrupt
        interrupts.requested = True
        # A signal may arrive inside another print to the same stream, which Python
        # refuses as a re-entrant call: the flag matters more than the line.
        with contextlib.suppress(RuntimeError):
            print(
                "Interrupted: finishing the step and saving; "
                "press Ctrl-C again to stop at once",
                file=sys.stderr,
                flush=True,
            )

    signals = (signal.SIGINT, signal.SIGTERM)
    former = {number: signal.signal(number, handle) for number in signals}
    try:
        yield interrupts
    finally:
        for number, handler in former.items():
            # None stands for a handler that was not installed from Python, which
            # cannot be put back; the default is the closest to it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
