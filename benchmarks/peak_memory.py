"""How much memory a call takes, as the system counts it."""

import ctypes
import gc
import resource
import sys
from collections.abc import Callable
from typing import Any


def resident_bytes() -> int:
    """Returns the memory that is resident now; its peak so far outside Linux."""
    resident = _status_bytes("VmRSS")
    return _peak_bytes() if resident is None else resident


def peak_bytes_during(function: Callable[[], Any]) -> int:
    """Calls a function once; returns the peak of resident memory meanwhile.

    What was freed before is given back first, and the peak set back, so that earlier
    work (imports, compilation) does not count. Where the system cannot do that, it is
    the peak of the whole process.
    """
    gc.collect()
    _return_freed_memory()
    reset = _reset_peak()
    function()
    peak = _status_bytes("VmHWM") if reset else None
    return _peak_bytes() if peak is None else peak


def _return_freed_memory() -> None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # Not glibc.
        return


def _reset_peak() -> bool:
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _status_bytes(name: str) -> int | None:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            for line in lines:
                if line.startswith(f"{name}:"):
                    return 1024 * int(line.split()[1])
    except OSError:
        return None
    return None


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
