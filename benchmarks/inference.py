"""How many frames a second every shipped system forecasts.

    python benchmarks/inference.py
    python benchmarks/inference.py --systems moving_mnist:5x5-128-64-64 --batch-sizes 16

A system is a config and one of its presets, by default the one that suits the machine.
Weights are random, as the time does not depend on them. Of a classifier the frames are
counted that it reads.

A forecast of many frames begins with every shorter one, so the program that is compiled
for the longest serves them all. This is checked: its first frames must be those of
programs made for fewer, and other clips must not compile it again.
"""

import argparse
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Run as a script, the repository is not on the path unless it is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np

from benchmarks.machine import machine_line
from convlstm_jax.cli import config_file
from convlstm_jax.cli.build import build_objective
from convlstm_jax.cli.experiment import experiment
from convlstm_jax.cli.process import choose_xla_flags
from convlstm_jax.objectives.forecast import FramesObjective

_CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SYSTEMS = sorted(path.stem for path in _CONFIGS.glob("*.py") if path.stem != "__init__")
# Of pixels, between programs of different length: in float32, and where
# convolutions are of TensorFloat-32 or less.
TOLERANCES = {"cpu": 1e-4, "gpu": 1e-2, "tpu": 1e-2}

_compilations = 0


def _count_compilations(event: str, duration_secs: float, **_: str | int) -> None:
    del duration_secs
    global _compilations
    if event.endswith("backend_compile_duration"):
        _compilations += 1


jax.monitoring.register_event_duration_secs_listener(_count_compilations)


def best_seconds(call: Callable[[], Any], seconds: float) -> float:
    """The shortest of the calls made within a time, of three at least."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return min(times)


def measure(system: str, batch_size: int, seconds: float) -> dict[str, Any]:
    """Forecasts with one system and checks that one program serves all lengths.

    Args:
        system: `CONFIG` or `CONFIG:PRESET`.
        batch_size: clips at a time.
        seconds: time of the measurement, compilation not counted.

    Returns:
        The row of the table.

    Raises:
        RuntimeError: a shorter forecast differs, or compiled anew.
    """
    name, _, preset = system.partition(":")
    config = config_file.load(f"{_CONFIGS / name}.py{':' if preset else ''}{preset}")
    loaded = experiment(config, reads_data=False)
    objective: Any = build_objective(loaded)
    shape = loaded.data.frame_shape
    # As in training, random draws are not worth optimising.
    options = {"xla_backend_optimization_level": 0}
    init = jax.jit(
        lambda key: objective.init(key, shape),
        compiler_options=options if jax.default_backend() == "cpu" else None,
    )
    variables = jax.block_until_ready(init(jax.random.key(0)))
    generator = np.random.default_rng(0)
    size = (batch_size, objective.num_input_frames, *shape)
    inputs, others = (
        jax.device_put(generator.uniform(size=size).astype(np.float32))
        for _ in range(2)
    )

    forecasts = isinstance(objective, FramesObjective)
    length = objective.num_output_frames if forecasts else objective.num_input_frames

    def forecast(num_frames: int) -> Callable[..., Any]:
        if not forecasts:
            return jax.jit(objective.classify)
        return jax.jit(lambda v, x: objective.forecast(v, x, num_frames).frames)

    before = _compilations
    program = forecast(length)
    start = time.perf_counter()
    outputs = np.asarray(program(variables, inputs))
    first = time.perf_counter() - start
    best = best_seconds(lambda: program(variables, inputs), seconds)
    program(variables, others)
    compilations = _compilations - before
    if compilations != 1:
        raise RuntimeError(f"{system}: compiled {compilations} times, not once")
    if forecasts and "model" not in objective.reconstructions:
        for shorter in {1, length // 2} - {0, length}:
            fewer = np.asarray(forecast(shorter)(variables, inputs))
            difference = float(np.abs(fewer - outputs[:, :shorter]).max())
            if not difference <= TOLERANCES[jax.default_backend()]:
                raise RuntimeError(
                    f"{system}: a forecast of {shorter} frames differs by "
                    f"{difference:.2g} from the first of {length}"
                )
    return {
        "workload": f"{name}:{loaded.general.preset}",
        "contender": "convlstm_jax",
        "batch_size": batch_size,
        "frames_per_second": round(batch_size * length / best, 1),
        "clip_ms": round(1e3 * best / batch_size, 3),
        "first_call_s": round(first, 2),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints, and writes the rows where asked to; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--batch-sizes", default="1,8")
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement")
    parser.add_argument("--json", default="", help="file to write the rows to")
    options = parser.parse_args(arguments)
    # As in main.py; JAX reads it when it is first used.
    choose_xla_flags(os.environ, importlib.metadata.version("jaxlib"))
    machine = machine_line(("jax", "jaxlib", "flax"))
    print(f"{machine}; {jax.devices()[0].device_kind}\n")
    print("| system | batch | frames/s | ms per clip | first call s |")
    print("|---|---|---|---|---|", flush=True)
    rows = []
    for system in options.systems.split(","):
        for batch_size in map(int, options.batch_sizes.split(",")):
            try:
                row = measure(system, batch_size, options.seconds)
            except RuntimeError as error:
                print(error, file=sys.stderr)
                return 1
            print(
                "| {workload} | {batch_size} | {frames_per_second:,.0f} | "
                "{clip_ms:,.1f} | {first_call_s:.1f} |".format(**row),
                flush=True,
            )
            rows.append(row)
    if options.json:
        document = {"machine": machine, "rows": rows}
        Path(options.json).write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
