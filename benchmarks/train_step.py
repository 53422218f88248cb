"""Forward and backward pass of recurrent cells here and in peers, side by side.

    pip install -r requirements-bench.txt
    python benchmarks/train_step.py --json train_step.json
    python benchmarks/train_step.py --workloads layer_16x16 --contenders pytorch

Every contender gets the same weights and inputs. Its outputs and the gradients of all
weights (for a single layer those of the inputs too) are compared with this project's
before anything is timed; one that differs or fails is left out and named, and the
exit code is 1. ConvLSTM layers are without peepholes, with tanh and sigmoid, as all
contenders have these; ConvGRU and TrajGRU are those of HKO-7. Other cells than ConvLSTM
are compared with PyTorch and `nn.scan`. The loss is the sum of outputs times a fixed
array; there is no optimizer.

Contenders are processes of their own that take turns, so that what else disturbs the
machine disturbs all of them. `ratio` is a contender's training time by this project's,
the median over the rounds: above 1, this project is faster. Times are medians too. In
its turn a contender begins each pass with a call that is not timed, as a process that
was idle is slower; those that take minutes do not.
`TFLOP/s` counts three times the forward pass's multiply-adds of convolutions.
First calls, which compile, count apart. `process MB` is the resident peak of training
steps, in another process that does nothing else; `step MB` that less what was resident
before the first one (on a GPU: the peak of its memory).

Contenders: `pytorch` (one convolution over input and state together, the usual cell),
`pytorch_channels_last`, `pytorch_compile` (the cell under torch.compile, channels
last), `keras_tensorflow`, `keras_jax`, `flax_rnn` (`nn.RNN(nn.ConvLSTMCell)`); by name
alone `pytorch_compile_model` (the whole network, unrolled), `plain_scan` (this
project's cells under `nn.scan`), and for minimal cells `our_convlstm` (this project's
ConvLSTM of the same features, not compared in results).
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

# Run as a script, the repository is not on the path unless it is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.contenders import CONTENDERS, OURS, Settings, Skip
from benchmarks.machine import machine_line
from benchmarks.worker import ContenderError, Worker
from benchmarks.workloads import (
    WORKLOADS,
    Arrays,
    Problem,
    Workload,
    draw,
    tiny,
)

PACKAGES = ("jax", "jaxlib", "flax", "torch", "keras", "tensorflow", "tensorflow-cpu")
PASSES = ("forward", "train")

# Largest norm of a difference, as a share of the norm, by device and dtype: float32 on
# a GPU is TensorFloat-32 in the convolutions of all contenders.
TOLERANCES = {
    ("cpu", "float32"): 1e-4,
    ("gpu", "float32"): 2e-2,
    ("cpu", "bfloat16"): 1e-1,
    ("gpu", "bfloat16"): 1e-1,
}

# A turn calls as often as it takes to run this long.
_TURN_SECONDS = 0.3
# A framework's threads may spin for a while after their work.
_PAUSE_SECONDS = 0.05


def check(name: str, found: Arrays, expected: Arrays, tolerance: float) -> float:
    """Compares a contender's outputs and gradients with this project's.

    Returns:
        The largest relative difference.

    Raises:
        ContenderError: one is missing, too many or too different.
    """
    if found.keys() != expected.keys():
        missing = sorted(found.keys() ^ expected.keys())
        raise ContenderError(f"{name} and {OURS} do not both give {missing}")
    largest = 0.0
    for path, array in expected.items():
        if found[path].shape != array.shape:
            raise ContenderError(
                f"{name} gives {path} the shape {found[path].shape}, {OURS} "
                f"{array.shape}"
            )
        difference = np.linalg.norm((found[path] - array).astype(np.float64))
        share = float(difference / np.linalg.norm(array.astype(np.float64)))
        if not share <= tolerance:
            raise ContenderError(
                f"{name} differs from {OURS} in {path} by {share:.2g} of its norm: "
                f"{tolerance:g} is allowed"
            )
        largest = max(largest, share)
    return largest


class Entry(NamedTuple):
    """Who takes part: how it is called, a key of `CONTENDERS`, and how it computes."""

    label: str
    name: str
    settings: Settings


def is_slow(entry: Entry) -> bool:
    """Whether a run of it takes a minute."""
    return entry.settings.device in CONTENDERS[entry.name].slow_on


class Entrant:
    """A contender in one workload, and its times of each round so far."""

    def __init__(self, entry: Entry, worker: Worker):
        self.entry = entry
        self.worker = worker
        self.slow = is_slow(entry)
        self.first_call_seconds = worker.ask("compile")["seconds"]
        self.calls = {"forward": 1, "train": 1}
        self.rounds: list[dict[str, float]] = []
        self.seconds = 0.0
        self.idle_share = 0.0
        self._idle_since = 0.0

    def warm_up(self) -> None:
        """Runs once, and finds how many calls fill a turn."""
        for what in PASSES:
            seconds = self.worker.ask(what, calls=1)["seconds"]
            self.calls[what] = max(1, round(_TURN_SECONDS / max(seconds, 1e-6)))

    def take_turn(self) -> None:
        """Times both passes, seconds per call."""
        start = time.perf_counter()
        times = {}
        for index, what in enumerate(PASSES):
            # After a pause the first call is slower.
            answer = self.worker.ask(what, calls=0 if self.slow else 1)
            if index == 0 and self.rounds:
                idle = answer["idle_cpu_seconds"] / (start - self._idle_since)
                self.idle_share = max(self.idle_share, idle)
            answer = self.worker.ask(what, calls=self.calls[what])
            times[what] = answer["seconds"] / self.calls[what]
        self.rounds.append(times)
        self._idle_since = time.perf_counter()
        self.seconds += self._idle_since - start

    def row(
        self, workload: Workload, ours: "Entrant", facts: dict[str, Any]
    ) -> dict[str, Any]:
        """The results, as they go into the table and the file.

        Args:
            workload: what was measured.
            ours: this project's own times.
            facts: see `Worker.memory`; empty if that failed.
        """
        ratios = {
            what: median(
                mine[what] / theirs[what]
                for mine, theirs in zip(self.rounds, ours.rounds, strict=False)
            )
            for what in PASSES
        }
        milliseconds = {
            f"{what}_ms": round(1e3 * median(turn[what] for turn in self.rounds), 3)
            for what in PASSES
        }
        train_seconds = milliseconds["train_ms"] / 1e3
        work = _work(workload, self.entry)
        return {
            "workload": workload.name,
            "contender": self.entry.label,
            "batch_size": workload.batch_size,
            **milliseconds,
            "train_tflop_s": round(6e-12 * work.multiply_adds / train_seconds, 3),
            "compile_s": round(self.first_call_seconds, 2),
            "ratio": round(ratios["train"], 3),
            "forward_ratio": round(ratios["forward"], 3),
            **{
                f"{what}_memory_mb": round(facts[f"{what}_bytes"] / 2**20, 1)
                for what in ("process", "peak", "kept", "temporary")
                if f"{what}_bytes" in facts
            },
            "rounds": len(self.rounds),
            "idle_share": round(self.idle_share, 3),
            "device": facts.get("device"),
        }


def measure(
    workload: Workload,
    entries: list[Entry],
    *,
    num_rounds: int,
    num_slow_rounds: int,
    seconds: float,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """All contenders on one workload.

    Args:
        workload: the work.
        entries: who takes part; the others are compared with the first.
        num_rounds: turns of each contender.
        num_slow_rounds: turns of those that take minutes.
        seconds: a contender that has used so many gets no further turn.

    Returns:
        Rows of results; and the contenders that left, with reasons, see `_left`.

    Raises:
        ContenderError: the first contender fails.
    """
    problem = draw(workload)
    with ExitStack() as stack:
        entrants, left = _start(workload, problem, entries, stack)
        for number in range(num_rounds):
            for entrant in list(entrants):
                if number >= num_slow_rounds and entrant.slow:
                    continue
                first = entrant is entrants[0]
                if number and not first and entrant.seconds > seconds:
                    continue
                time.sleep(_PAUSE_SECONDS)
                try:
                    entrant.take_turn()
                except ContenderError as error:
                    if first:
                        raise
                    entrants.remove(entrant)
                    left.append(_left(workload, entrant.entry, error))
            say(f"{workload.name}: round {number + 1} of {num_rounds}")
    rows = []
    for entrant in entrants:
        say(f"{workload.name}: memory of {entrant.entry.label}")
        facts = {}
        try:
            facts = _memory(workload, problem, entrant.entry)
        except ContenderError as error:
            left.append(_left(workload, entrant.entry, error))
        rows.append(entrant.row(workload, entrants[0], facts))
    return rows, left


def _left(workload: Workload, entry: Entry, error: Exception) -> dict[str, Any]:
    """Who left, and why; "failed" tells an error from what cannot run here."""
    return {
        "workload": workload.name,
        "contender": entry.label,
        "reason": str(error),
        "failed": isinstance(error, ContenderError),
    }


def _memory(workload: Workload, problem: Problem, entry: Entry) -> dict[str, Any]:
    """What training alone takes, in a process of its own."""
    worker = _worker(workload, problem, entry)
    try:
        return worker.memory(calls=1 if is_slow(entry) else 3)
    finally:
        worker.stop()


def _work(workload: Workload, entry: Entry) -> Workload:
    """What a contender does: the workload, or other work of its shape."""
    system = CONTENDERS[entry.name].other_system or workload.system
    return dataclasses.replace(workload, system=system)


def _worker(workload: Workload, problem: Problem, entry: Entry) -> Worker:
    work = _work(workload, entry)
    problem = problem if work == workload else draw(work)
    return Worker(entry.name, work, problem, entry.settings)


def _start(
    workload: Workload, problem: Problem, entries: list[Entry], stack: ExitStack
) -> tuple[list[Entrant], list[dict[str, Any]]]:
    """Starts and compares all; the stack stops them."""
    entrants: list[Entrant] = []
    left = []
    expected: Arrays = {}
    for entry in entries:
        label, name, settings = entry
        say(f"{workload.name}: {label} gets ready")
        with ExitStack() as own:
            try:
                worker = _worker(workload, problem, entry)
                own.callback(worker.stop)
                entrant = Entrant(entry, worker)
                results = worker.results()
                expected = expected or results
                tolerance = TOLERANCES[settings.device, settings.dtype]
                if not CONTENDERS[name].other_system:
                    check(label, results, expected, tolerance)
                if not entrant.slow:
                    entrant.warm_up()
            except (Skip, ContenderError) as error:
                if entry is entries[0] and isinstance(error, ContenderError):
                    raise
                left.append(_left(workload, entry, error))
                continue
            entrants.append(entrant)
            stack.push(own.pop_all())
    return entrants, left


def say(words: str) -> None:
    """Tells how far it is, beside the results."""
    print(words, file=sys.stderr, flush=True)


def tell_who_left(left: list[dict[str, Any]]) -> None:
    """Prints a line for each contender that was skipped or failed."""
    for one in left:
        what = "failed" if one["failed"] else "skipped"
        print(f"\n{one['workload']}, {one['contender']} {what}: {one['reason']}")


def memory_cells(row: dict[str, Any], *kinds: str) -> list[str]:
    """Kinds of memory, MB, for a table; empty where one was not measured."""
    keys = [f"{kind}_memory_mb" for kind in kinds]
    return [f"{row[key]:,.0f}" if key in row else "" for key in keys]


def table(rows: list[dict[str, Any]], workload: Workload) -> str:
    """The rows of one workload as a Markdown table."""
    lines = [
        f"**{workload.name}** {workload.description}",
        "",
        "| contender | forward ms | train ms | ratio | TFLOP/s | first call s | "
        "process MB | step MB | rounds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    row_format = (
        "| {contender} | {forward_ms:,.1f} | {train_ms:,.1f} | {ratio:.2f} | "
        "{train_tflop_s:.3g} | {compile_s:.1f} | {process} | {step} | {rounds} |"
    )
    for row in rows:
        process, step = memory_cells(row, "process", "peak")
        lines.append(row_format.format(**row, process=process, step=step))
    return "\n".join(lines)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line; ends the program over names that do not exist."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    workloads = [workload.name for workload in WORKLOADS]
    peers = [name for name in CONTENDERS if name != OURS]

    def listed(allowed: list[str]):
        def names(text: str) -> list[str]:
            found = [name for name in text.split(",") if name]
            for name in found:
                if name not in allowed:
                    raise argparse.ArgumentTypeError(
                        f"{name!r} is unknown: it must be one of {', '.join(allowed)}"
                    )
            return found

        return names

    defaults = [name for name in peers if CONTENDERS[name].by_default]
    parser.add_argument("--workloads", type=listed(workloads), default=workloads)
    parser.add_argument("--contenders", type=listed(peers), default=defaults)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each")
    parser.add_argument(
        "--slow-rounds", type=int, default=1, help="turns of those that take minutes"
    )
    parser.add_argument(
        "--seconds", type=float, default=120, help="time of a contender in a workload"
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--batch-size", type=int, help="in place of the workload's own")
    parser.add_argument("--tiny", action="store_true", help="small shapes, for tests")
    parser.add_argument("--json", default="", help="file to write the rows to")
    options = parser.parse_args(arguments)
    refuse_below_one(parser, options, ("rounds", "slow_rounds", "batch_size"))
    return options


def refuse_below_one(
    parser: argparse.ArgumentParser, options: argparse.Namespace, names: Iterable[str]
) -> None:
    """Ends the program over the first of these options that is given and below 1."""
    for name in names:
        value = getattr(options, name)
        if value is not None and value < 1:
            flag = name.replace("_", "-")
            parser.error(f"--{flag} is {value}: it must be at least 1")


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints, and writes the rows where asked to; returns the exit code."""
    options = parse(arguments)
    settings = Settings(options.device, options.dtype)
    machine = machine_line(PACKAGES)
    xla_flags = os.environ.get("XLA_FLAGS")
    flags = "XLA_FLAGS as main.py sets them"
    if xla_flags:
        flags = f"XLA_FLAGS={xla_flags!r}"
    print(f"{machine}; {options.dtype} on {options.device}; {flags}\n", flush=True)
    all_rows: list[dict[str, Any]] = []
    all_left: list[dict[str, Any]] = []
    for workload in WORKLOADS:
        if workload.name not in options.workloads:
            continue
        if options.tiny:
            workload = tiny(workload)
        if options.batch_size:
            workload = dataclasses.replace(workload, batch_size=options.batch_size)
        entries = [
            Entry(name, name, settings)
            for name in [OURS, *options.contenders]
            if workload.system in CONTENDERS[name].systems
            and options.dtype in CONTENDERS[name].dtypes
        ]
        rows: list[dict[str, Any]] = []
        try:
            rows, left = measure(
                workload,
                entries,
                num_rounds=options.rounds,
                num_slow_rounds=options.slow_rounds,
                seconds=options.seconds,
            )
            print(table(rows, workload))
        except ContenderError as error:
            left = [_left(workload, entries[0], error)]
        all_rows += rows
        all_left += left
        tell_who_left(left)
        print(flush=True)
        document = {
            "machine": machine,
            "settings": settings._asdict(),
            "rows": all_rows,
            "left": all_left,
        }
        if options.json:  # Now, as the next workload may be cut off.
            Path(options.json).write_text(json.dumps(document, indent=2) + "\n")
    return int(any(one["failed"] for one in all_left))


if __name__ == "__main__":
    sys.exit(main())
