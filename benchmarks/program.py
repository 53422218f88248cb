"""How much of the bare training step's rate the whole program keeps, and its start.

    python benchmarks/program.py
    python benchmarks/program.py --config=configs/moving_squares.py:quick --rounds=5
    python benchmarks/program.py --config.data.digits=sklearn

The rate: `main.py` trains, and another process takes the same step again and again on
one batch that lies on the device. They take turns as long as from one log line to the
next; the one that waits is stopped (SIGSTOP), so neither disturbs the other. What
main.py does between two log lines counts: data, copies, reading and writing metrics,
and the checkpoints at the config's rhythm. A round spans that rhythm, so each has its
checkpoint. Validations are other work and are left out, as are the first steps, up to
the first log line. On an accelerator the steps that were handed to it before the stop,
two at most, still run: let `log_every_steps` be hundreds there.

The start: from the start of the process to the end of its first training step, with an
empty folder of compiled programs and with one that holds them. The best one counts, as
others disturb the machine.
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Run as a script, the repository is not on the path unless it is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.machine import machine_line
from convlstm_jax.cli.process import CACHED_FROM_SECONDS

TARGET_RATIO = 0.95
TARGET_START_SECONDS = 5.0
_ROOT = Path(__file__).resolve().parent.parent
_STEP_LINE = re.compile(r"step (\d+) of \d+: loss ")


class ProgramError(Exception):
    """A process that ended before its time, in a sentence."""


class _Process:
    """A process and its children, whose standard output is read line by line."""

    def __init__(self, name: str, command: list[str], folder: Path, cache: Path):
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": CACHED_FROM_SECONDS,
            # Two processes share an accelerator.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        self._name = name
        # What it tells the terminal is kept for when it fails.
        self._log = (folder / "log").open("w+", errors="replace")
        self._process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=_ROOT,
            env=environment,
            start_new_session=True,  # A group of its own, to stop as one.
        )

    def line(self) -> str:
        """The next line it prints."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            words = self._log.read().strip().splitlines() or ["it said nothing"]
            raise ProgramError(f"{self._name} ended too early: {words[-1]}")
        return line

    def tell(self, line: str) -> None:
        """Writes a line to its standard input."""
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to it and its children."""
        os.killpg(self._process.pid, number)

    def end(self) -> None:
        """Ends it and its children at once."""
        self.send(signal.SIGKILL)
        self._process.communicate()
        self._log.close()


class _Training(_Process):
    """`main.py`, training in a fresh folder."""

    def __init__(self, flags: list[str], cache: Path, folder: Path):
        folder = Path(tempfile.mkdtemp(dir=folder))
        command = ["main.py", f"--workdir={folder / 'run'}", *flags]
        super().__init__("main.py", command, folder, cache)

    def wait_for(self, step: int) -> None:
        """Waits until the metrics of a step are logged."""
        while True:
            found = _STEP_LINE.search(self.line())
            if found and int(found[1]) >= step:
                return


def start_seconds(flags: list[str], cache: Path, folder: Path) -> float:
    """Seconds from the start of main.py to the end of its first step.

    Args:
        flags: for main.py: the config and its overrides.
        cache: the folder of compiled programs.
        folder: for what main.py writes.
    """
    start = time.perf_counter()
    training = _Training([*flags, "--config.train.log_every_steps=1"], cache, folder)
    try:
        training.wait_for(1)
        return time.perf_counter() - start
    finally:
        training.end()


def measure_rates(
    flags: list[str], steps: int, rounds: int, cache: Path, folder: Path
) -> dict[str, Any]:
    """Lets main.py and the bare step take turns.

    Args:
        flags: as above.
        steps: steps of a round, rounded up to whole turns; 0 for the config's
            `checkpoint_every_steps`.
        rounds: how many.
        cache: as above.
        folder: as above.

    Returns:
        "batch_size", "device", "data", "steps" of a round; sequences per second of
        "program" and "bare", and their "ratio", one for each round.
    """
    processes: list[_Process] = []
    try:
        command = ["-m", "benchmarks.bare_step", *flags]
        bare = _Process("the bare step", command, folder, cache)
        processes.append(bare)
        facts = json.loads(bare.line())
        every = facts["log_every_steps"]
        turns = -(-(steps or facts["checkpoint_every_steps"]) // every)
        num_steps = every * (2 + rounds * turns)  # The last ones are not reached.
        lengths = [
            f"--config.train.{name}={num_steps}"
            for name in ("num_steps", "eval_every_steps")
        ]
        training = _Training([*flags, *lengths], cache, folder)
        processes.append(training)
        step = every
        training.wait_for(step)
        training.send(signal.SIGSTOP)
        seconds: dict[str, list[float]] = {"program": [], "bare": []}
        for _ in range(rounds):
            bare_seconds = program_seconds = 0.0
            for _ in range(turns):
                bare.tell(str(every))
                bare_seconds += float(bare.line())
                step += every
                start = time.perf_counter()
                training.send(signal.SIGCONT)
                training.wait_for(step)
                training.send(signal.SIGSTOP)
                program_seconds += time.perf_counter() - start
            seconds["bare"].append(bare_seconds)
            seconds["program"].append(program_seconds)
    finally:
        for process in processes:
            process.end()
    sequences = turns * every * facts["batch_size"]
    rates = {name: [sequences / s for s in each] for name, each in seconds.items()}
    pairs = zip(rates["program"], rates["bare"], strict=True)
    return {
        "batch_size": facts["batch_size"],
        "device": facts["device"],
        "data": facts["data"],
        "steps": turns * every,
        **rates,
        "ratio": [program / bare for program, bare in pairs],
    }


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints, and writes the row where asked to; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="--config.SECTION.FIELD=VALUE is handed on to main.py",
    )
    parser.add_argument("--config", default="configs/moving_mnist.py:quick")
    parser.add_argument(
        "--steps",
        type=int,
        default=0,
        help="of a round; 0: checkpoint to checkpoint",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", default="", help="file to write the row to")
    options, others = parser.parse_known_args(arguments)
    if wrong := [other for other in others if not other.startswith("--config.")]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if options.steps < 0 or options.rounds < 1:
        parser.error("--steps must be at least 0 and --rounds at least 1")
    flags = [f"--config={options.config}", *others]
    machine = machine_line(("jax", "jaxlib", "flax", "optax", "grain"))
    print(machine, flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = folder / "cache"
        try:
            cold = start_seconds(flags, cache, folder)
            warm = [start_seconds(flags, cache, folder) for _ in range(options.rounds)]
            rates = measure_rates(flags, options.steps, options.rounds, cache, folder)
        except ProgramError as error:
            print(error, file=sys.stderr)
            return 1
    row = {
        "workload": options.config,
        "contender": "convlstm_jax",
        **rates,
        "start_empty_cache_s": round(cold, 2),
        "start_warm_cache_s": [round(seconds, 2) for seconds in warm],
    }
    print(_table(row))
    if options.json:
        document = {
            "machine": machine,
            "targets": {"ratio": TARGET_RATIO, "start_s": TARGET_START_SECONDS},
            "rows": [row],
        }
        Path(options.json).write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _table(row: dict[str, Any]) -> str:
    ratios, starts = row["ratio"], row["start_warm_cache_s"]
    ratio, start = statistics.median(ratios), min(starts)

    def spread(values: list[float]) -> str:
        return f"{min(values):.2f} to {max(values):.2f}"

    lines = [
        f"{row['device']}; {row['workload']}, batch {row['batch_size']}; {row['data']}",
        "",
        "| measured | value | target |",
        "|---|---|---|",
        f"| bare step, sequences/s | {statistics.median(row['bare']):,.1f} | |",
        f"| main.py, sequences/s | {statistics.median(row['program']):,.1f} | |",
        f"| ratio, median of {len(ratios)} rounds of {row['steps']} steps "
        f"({spread(ratios)}) | {ratio:.3f} | "
        f"≥ {TARGET_RATIO}: {_verdict(ratio >= TARGET_RATIO)} |",
        f"| start to first step, empty cache, s | {row['start_empty_cache_s']:.1f} | |",
        f"| the same, warm cache, best of {len(starts)} ({spread(starts)}) | "
        f"{start:.1f} | ≤ {TARGET_START_SECONDS:g}: "
        f"{_verdict(start <= TARGET_START_SECONDS)} |",
    ]
    return "\n".join(lines)


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


if __name__ == "__main__":
    sys.exit(main())
