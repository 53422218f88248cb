"""Reports that the program waits for another process, where that takes long."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SILENT_SECONDS = 10.0
"""A wait up to this long is not reported."""


@contextmanager
def reported_if_long(report: Callable[..., Any], *arguments: Any) -> Iterator[None]:
    """Calls `report`, in a thread, if the body takes longer than `SILENT_SECONDS`."""
    timer = threading.Timer(SILENT_SECONDS, report, arguments)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
