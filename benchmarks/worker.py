"""One contender in a process of its own, which works when it is told to.

Processes do not share thread pools, compiler flags or frameworks. Between turns a
worker waits for the next line of its standard input.
"""

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import CONTENDERS, OURS, Program, Settings, Skip
from benchmarks.peak_memory import peak_bytes_during, resident_bytes
from benchmarks.workloads import Arrays, Problem, Workload
from convlstm_jax.cli.process import choose_xla_flags

_ROOT = Path(__file__).resolve().parent.parent


class ContenderError(Exception):
    """A contender that failed or differs, in a sentence."""


class Worker:
    """The parent's side: starts a contender and waits for its answers.

    Args:
        name: a key of `CONTENDERS`.
        workload: what it computes.
        problem: with which weights and inputs.
        settings: how.

    Raises:
        Skip: the contender cannot run here.
        ContenderError: it fails.
    """

    def __init__(
        self, name: str, workload: Workload, problem: Problem, settings: Settings
    ):
        self.name = name
        self._folder = tempfile.TemporaryDirectory()
        save(Path(self._folder.name) / "problem.npz", problem)
        environment = os.environ | CONTENDERS[name].environment
        _set_environment(environment, name, settings)
        # A worker's messages to the terminal are kept for when it fails.
        self._log = open(Path(self._folder.name) / "log", "w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", self._folder.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=_ROOT,
            env=environment,
        )
        try:
            built = self.ask(
                "build",
                name=name,
                workload=dataclasses.asdict(workload),
                settings=settings._asdict(),
            )
            self._resident_bytes = built["resident_bytes"]
        except BaseException:
            self.stop()
            raise

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Sends a request and waits for the answer to it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"do": what, **arguments}), file=self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # The worker has ended; its last words follow.
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            words = self._log.read().strip().splitlines() or ["it said nothing"]
            raise ContenderError(
                f"{self.name} ended while asked to {what}: {words[-1]}"
            )
        answer = json.loads(line)
        if "skip" in answer:
            raise Skip(answer["skip"])
        return answer

    def results(self) -> Arrays:
        """Outputs and gradients by path."""
        self.ask("results")
        path = Path(self._folder.name) / "results.npz"
        with np.load(path) as arrays:
            results = dict(arrays)
        path.unlink()
        return results

    def memory(self, calls: int) -> dict[str, Any]:
        """The peaks of resident memory during training steps, after a first one.

        Only what a worker was asked before counts besides: to compare training steps,
        ask a worker nothing else.

        Returns:
            `Program.device_facts`; "process_bytes", the peak; and "peak_bytes" where a
            program does not count that itself, the peak less what was resident before
            the first step.
        """
        return self.ask("memory", calls=calls, resident_bytes=self._resident_bytes)

    def stop(self) -> None:
        """Ends the worker and removes its files."""
        self._process.kill()
        self._process.communicate()
        self._log.close()
        self._folder.cleanup()


def save(path: Path, problem: Problem) -> None:
    """Writes a problem where a worker reads it."""
    arrays = {f"weights:{k}": v for k, v in problem.weights.items()}
    arrays |= {f"inputs:{k}": v for k, v in problem.inputs.items()}
    np.savez(path, cotangent=problem.cotangent, **arrays)  # type: ignore[arg-type]


def load(path: Path) -> Problem:
    """Reads what `save` wrote."""
    parts: dict[str, Arrays] = {"weights": {}, "inputs": {}}
    with np.load(path) as arrays:
        for key in arrays:
            part, _, name = key.partition(":")
            if name:
                parts[part][name] = arrays[key]
        return Problem(**parts, cotangent=arrays["cotangent"])


def _set_environment(
    environment: MutableMapping[str, str], name: str, settings: Settings
) -> None:
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if settings.device == "cpu":
        environment["JAX_PLATFORMS"] = "cpu"
        environment["CUDA_VISIBLE_DEVICES"] = ""
    else:
        environment.pop("JAX_PLATFORMS", None)
        # Several contenders share the card.
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if CONTENDERS[name].module == CONTENDERS[OURS].module:  # As `main.py` does.
        choose_xla_flags(environment, importlib.metadata.version("jaxlib"))


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _build(request: dict[str, Any], folder: Path) -> Program:
    name = request["name"]
    contender = CONTENDERS[name]
    settings = Settings(**request["settings"])
    fields = request["workload"].items()
    workload = Workload(**{k: _as_tuple(v) for k, v in fields})
    missing = [p for p in contender.packages if not importlib.util.find_spec(p)]
    if missing:
        raise Skip(
            f"{' and '.join(missing)} cannot be imported: "
            "pip install -r requirements-bench.txt"
        )
    module = importlib.import_module(f"benchmarks.contenders.{contender.module}")
    problem = load(folder / "problem.npz")
    (folder / "problem.npz").unlink()
    return module.build(name, workload, problem, settings)


def _answer(program: Program, request: dict[str, Any], folder: Path) -> dict[str, Any]:
    what = request["do"]
    start = time.perf_counter()
    if what == "compile":
        program.compile()
    elif what == "results":
        np.savez(folder / "results.npz", **program.results())  # type: ignore[arg-type]
    elif what in ("forward", "train"):
        call = getattr(program, what)
        for _ in range(request["calls"]):
            call()
    elif what == "memory":
        program.train()
        peak = max(peak_bytes_during(program.train) for _ in range(request["calls"]))
        alone = peak - request["resident_bytes"]
        facts = {"process_bytes": peak, "peak_bytes": alone}
        return facts | program.device_facts()
    return {"seconds": time.perf_counter() - start}


def main() -> None:
    """Answers the requests of the parent until it ends."""
    folder = Path(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Whatever a framework prints is no answer.
    program: Any = None
    busy_before = time.process_time()
    for line in sys.stdin:
        # What was computed since the last answer: nothing, if idle means idle.
        idle_seconds = time.process_time() - busy_before
        request = json.loads(line)
        try:
            if request["do"] == "build":
                program = _build(request, folder)
                answer: dict[str, Any] = {"resident_bytes": resident_bytes()}
            else:
                answer = _answer(program, request, folder)
        except Skip as skip:
            answer = {"skip": str(skip)}
        answer["idle_cpu_seconds"] = idle_seconds
        busy_before = time.process_time()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
