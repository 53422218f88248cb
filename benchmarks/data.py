"""How many training sequences a second one processor core makes.

    python benchmarks/data.py
    python benchmarks/data.py --digits idx --digits-dir ~/mnist --json data.json

The workload is Moving MNIST, two digits on 64x64, sequences of 20 frames: the source
alone, and the whole input pipeline (shuffling, batches of 16, read-ahead thread). The
process is held to one core where the system allows it, so the result is what is left
to an input pipeline beside a busy accelerator.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Run as a script, the repository is not on the path unless it is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import grain
import numpy as np

from benchmarks.machine import processor_name
from convlstm_jax.data.pipeline import train_batches
from convlstm_jax.data.synthetic.moving_mnist import MovingMNISTConfig

TARGET = 3000
WORKLOAD = "moving_mnist 2 digits 64x64, 20 frames"
BATCH_SIZE = 16


def hold_to_one_core() -> str:
    """Keeps this process on one core; tells whether the system allowed it."""
    if not hasattr(os, "sched_setaffinity"):
        return "not held to one core (the system cannot)"
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return f"held to core {core}"


def best_rate(make_one: Callable[[], int], seconds: float, repeats: int) -> float:
    """Calls `make_one` (it returns how many sequences it made); the best rate.

    Args:
        make_one: makes one sequence or one batch.
        seconds: length of one measurement.
        repeats: measurements; the best one counts, as others disturb the machine.

    Returns:
        Sequences per second.
    """
    rates = []
    for _ in range(repeats):
        made = 0
        start = time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            made += make_one()
        rates.append(made / elapsed)
    return max(rates)


def main() -> None:
    """Measures, prints, and writes the rows where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--digits", default="sklearn", choices=["auto", "idx", "tfds", "sklearn"]
    )
    parser.add_argument("--digits-dir", default="", help="folder of IDX files")
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement")
    parser.add_argument("--repeats", type=int, default=3, help="the best one counts")
    parser.add_argument("--json", default="", help="file to write the rows to")
    options = parser.parse_args()

    cores = os.cpu_count()
    machine = (
        f"{processor_name()}, {cores} cores, {hold_to_one_core()}; "
        f"{platform.system()}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, Grain {grain.__version__}"
    )
    print(machine)
    data = MovingMNISTConfig(digits=options.digits, digits_dir=options.digits_dir)
    sources = data.sources(num_frames=20, seed=0)
    print(sources.description)

    position = 0

    def from_source() -> int:
        nonlocal position
        # A prime stride, as a shuffled run jumps about among the digits too.
        position = (position + 104_729) % len(sources.train)
        sources.train[position]
        return 1

    batches = train_batches(sources.train, BATCH_SIZE, seed=0)

    def from_pipeline() -> int:
        return len(next(batches)["frames"])

    rows = []
    for contender, make_one in (
        ("source", from_source),
        (f"pipeline, batch {BATCH_SIZE}", from_pipeline),
    ):
        make_one()
        rate = best_rate(make_one, options.seconds, options.repeats)
        verdict = "met" if rate >= TARGET else "MISSED"
        print(f"{contender:20} {rate:8,.0f} sequences/s  target {TARGET:,}: {verdict}")
        rows.append(
            {
                "workload": WORKLOAD,
                "contender": contender,
                "sequences_per_second": round(rate, 1),
            }
        )
    batches.close()
    if options.json:
        document = {"machine": machine, "target": TARGET, "rows": rows}
        Path(options.json).write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
