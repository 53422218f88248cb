"""Whether the recurrent ops are right on a GPU, and how fast its matrix products are.

    python benchmarks/gpu_checks.py --json checks.json

Outputs and gradients of fused layers and of a roll-out on the device, in
float32 (at the highest precision and at the default one, TensorFloat-32) and in
bfloat16, are compared with float64 on the CPU. The rate of bfloat16 matrix products is
what the training steps of `train_step.py` are held against.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Run as a script, the repository is not on the path unless it is installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import machine_line
from convlstm_jax.cells import CELLS
from convlstm_jax.layers.recurrent import RecurrentLayer
from convlstm_jax.models.recurrent_predictor import RecurrentPredictor

# Largest norm of a difference as a share of the norm: (dtype, precision) → share.
TOLERANCES = {
    ("float32", "highest"): 1e-4,
    ("float32", "default"): 2e-2,
    ("bfloat16", "default"): 6e-2,
}
BATCH, STEPS, HEIGHT, WIDTH, CHANNELS, FEATURES = 2, 6, 16, 12, 5, 32


def _drawn(shapes: Any, seed: int) -> Any:
    """Random arrays, of which kernels give results of about one."""
    generator = np.random.default_rng(seed)

    def draw(leaf):
        scale = math.prod(leaf.shape[:3]) ** -0.5 if leaf.ndim == 4 else 0.5
        return scale * generator.standard_normal(leaf.shape)

    return jax.tree.map(draw, shapes)


def layer_case(cell: str, reverse: bool, **fields: Any):
    """A fused layer with clips of unequal length and a carry."""
    generator = np.random.default_rng(3)
    frames = generator.standard_normal((BATCH, STEPS, HEIGHT, WIDTH, CHANNELS))
    lengths = jnp.array([STEPS, STEPS - 2])

    def layer(dtype):
        module = CELLS[cell](FEATURES, 5, 3, dtype=dtype, **fields)
        return RecurrentLayer(module, reverse=reverse)

    single = layer(jnp.float32)
    variables = _drawn(jax.eval_shape(single.init, jax.random.key(0), frames), 5)
    if CELLS[cell].needs_input:
        # Far from 0, where the slope of the candidate's nonlinearity jumps.
        bias = variables["params"]["cell"]["bias"][-FEATURES:]
        bias += 4 * np.sign(bias)
    carry = single.cell.initialize_carry(None, (BATCH, HEIGHT, WIDTH, CHANNELS))
    arguments = (variables, _drawn(carry, 6), frames)

    def run(dtype, arguments):
        variables, carry, frames = arguments
        calls = {"initial_carry": carry, "seq_lengths": lengths}
        carry, outputs = layer(dtype).apply(variables, frames, **calls)
        return jax.tree.leaves(carry)[0], outputs

    return run, arguments


def rollout_case():
    """Two layers of which every second frame is a prediction of their own."""
    generator = np.random.default_rng(4)
    frames = generator.standard_normal((BATCH, STEPS, HEIGHT, WIDTH, CHANNELS))
    teacher_forcing = jnp.arange(STEPS)[None, :] % 2 == jnp.zeros((BATCH, 1), int)

    def model(dtype):
        return RecurrentPredictor((FEATURES,) * 2, 5, 5, patch_size=1, dtype=dtype)

    shapes = jax.eval_shape(
        model(jnp.float32).init, jax.random.key(0), frames, teacher_forcing
    )

    def run(dtype, arguments):
        variables, frames = arguments
        return model(dtype).apply(variables, frames, teacher_forcing)

    return run, (_drawn(shapes, 7), frames)


CASES: dict[str, Any] = {
    "ConvLSTM, channel peephole": lambda: layer_case("convlstm", False),
    "ConvLSTM, location peephole, reverse": lambda: layer_case(
        "convlstm", True, peephole="location"
    ),
    "ConvGRU": lambda: layer_case("convgru", False),
    "minGRU": lambda: layer_case("mingru", False),
    "minLSTM, reverse": lambda: layer_case("minlstm", True),
    "rollout": rollout_case,
}


def results(run: Callable[..., Any], arguments: Any, dtype: str) -> list[np.ndarray]:
    """Outputs and gradients of the sum of outputs times a fixed array."""

    def both(arguments):
        outputs, pull_back = jax.vjp(lambda a: run(jnp.dtype(dtype), a), arguments)
        cotangent = jax.tree.map(_cotangent, outputs)
        return outputs, pull_back(cotangent)

    # XLA:CPU takes long to optimise, for what runs once.
    on_cpu = {leaf.device.platform for leaf in jax.tree.leaves(arguments)} == {"cpu"}
    options = {"xla_backend_optimization_level": 0} if on_cpu else None
    found = jax.device_get(jax.jit(both, compiler_options=options)(arguments))
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(found)]


def _cotangent(outputs):
    wave = np.sin(1 + np.arange(outputs.size, dtype=np.float64))
    return jnp.asarray(wave.reshape(outputs.shape), outputs.dtype)


def check_ops() -> list[dict[str, Any]]:
    """Every case in every dtype against float64 on the CPU: a row each."""
    rows = []
    for name, make in CASES.items():
        run, arguments = make()
        cpu = jax.local_devices(backend="cpu")[0]
        with jax.enable_x64(True), jax.default_device(cpu):
            as_double = jax.tree.map(jnp.asarray, arguments)
            expected = results(run, as_double, "float64")
        for (dtype, precision), tolerance in TOLERANCES.items():
            with jax.default_matmul_precision(
                "highest" if precision == "highest" else "default"
            ):
                single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), arguments)
                found = results(run, single, dtype)
            share = max(
                float(np.linalg.norm(a - b) / np.linalg.norm(b))
                for a, b in zip(found, expected, strict=True)
            )
            rows.append(
                {
                    "case": name,
                    "dtype": dtype,
                    "precision": precision,
                    "difference": share,
                    "allowed": tolerance,
                    "passed": share <= tolerance,
                }
            )
    return rows


def matrix_product_tflop_s(size: int) -> float:
    """The best rate of a bfloat16 product of two random square matrices."""
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (size, size), jnp.bfloat16) for key in keys)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, b))
    times = []
    calls = 10
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(calls):
            c = product(a, b)
        jax.block_until_ready(c)
        times.append((time.perf_counter() - start) / calls)
    return 2e-12 * size**3 / min(times)


def main(arguments: list[str] | None = None) -> int:
    """Checks, measures and prints; the exit code tells whether all is right."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=8192, help="of the matrices")
    parser.add_argument("--json", default="", help="file to write the results to")
    options = parser.parse_args(arguments)
    device = jax.devices()[0].device_kind
    machine = machine_line(("jax", "jaxlib", "flax"))
    print(f"{machine}; {device}\n")
    rows = check_ops()
    print("| op | dtype | precision | difference | allowed |")
    print("|---|---|---|---|---|")
    for row in rows:
        verdict = "" if row["passed"] else " **FAILED**"
        print(
            "| {case} | {dtype} | {precision} | {difference:.2g} | {allowed:g}".format(
                **row
            )
            + f"{verdict} |"
        )
    rate = matrix_product_tflop_s(options.size)
    print(f"\nbfloat16 matrix product {options.size}: {rate:.3g} TFLOP/s")
    if options.json:
        document = {
            "machine": machine,
            "device": device,
            "matrix_product_tflop_s": rate,
            "rows": rows,
        }
        Path(options.json).write_text(json.dumps(document, indent=2) + "\n")
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
