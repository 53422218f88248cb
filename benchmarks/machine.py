"""What a measurement was made on."""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Sequence


def processor_name() -> str:
    """Returns the name of the processor, as far as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def num_cores() -> int:
    """Returns the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions(packages: Sequence[str]) -> str:
    """Returns the installed versions of packages; those not installed are left out."""
    found = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def machine_line(packages: Sequence[str]) -> str:
    """Returns processor, cores, system, versions and date in one line."""
    return (
        f"{processor_name()}, {num_cores()} cores; {platform.system()}, "
        f"{versions(packages)}; {datetime.date.today().isoformat()}"
    )
